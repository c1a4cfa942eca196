"""Parsers of documents that one party hands to another, and of keys, each with good inputs for the fuzz run."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.torch import save
from torch.nn import Linear

from client.commands.site_options import settings_from
from client.consent.policy import read_policy
from client.final_model.package import open_package
from client.final_model.receiving import load_weights
from client.installation.config import default_site_config, read_site_config
from client.installation.folder import SiteFolder
from client.installation.policy_template import POLICY_TEMPLATE
from client.installation.public_images import read_public_images
from client.installation.setup import node_key_line
from common.plan.reading import read_plan
from common.plan.signing import signature_path, verify_plan
from common.trust.enrolment import read_enrolment
from common.trust.identity import (
    create_signing_key,
    read_public_key,
    read_secret_file,
    read_signing_key,
    write_public_key,
)
from common.trust.kit import read_kit
from common.trust.release import CARD, MAX_FILE_BYTES, WEIGHTS, verify_card
from common.trust.roster import read_roster
from common.web.page_token import page_token, read_page_token
from server.federation.certificates import new_authority, read_authority, read_certificate
from server.federation.config import coordinator_config_text, read_coordinator_config
from simulation.hostile.fuzz_seeds import Parser, Parsers, TrustSeeds, of_file

_SECRET: Final = bytes(range(32))


def document_parsers(trust: TrustSeeds) -> Parsers:
    """Return the parsers of documents: of coordinators for hospitals, of hospitals for coordinators, of people."""
    key, card = trust.key.public_key(), trust.card
    coordinator = coordinator_config_text(
        "lungs", "localhost:8443", gateway_port=None, superlink_port=18000, status_port=0
    ).encode()
    return {
        "plan": (of_file(read_plan), [trust.plan]),
        "plan: task and image": (of_file(settings_from), [trust.plan]),
        "plan: signature": (_signature_of(trust), [trust.plan_signature]),
        "policy": (of_file(read_policy), [POLICY_TEMPLATE.encode()]),
        "site settings": (of_file(read_site_config), [default_site_config("north").encode()]),
        "coordinator settings": (of_file(read_coordinator_config), [coordinator]),
        "roster": (of_file(read_roster), [trust.roster]),
        "kit": (of_file(read_kit), [trust.kit]),
        "enrolment": (of_file(read_enrolment), [trust.enrolment]),
        "release: signature of the card": (lambda c, _: verify_card(card, c, key), [trust.card_signature]),
        "release: weights": (lambda c, _: load_weights(Linear(3, 2), c), [save(Linear(3, 2).state_dict())]),
        "release: zip": (of_file(_unpacked), [_zipped(zipfile.ZIP_DEFLATED), _zipped(zipfile.ZIP_STORED)]),
        "public images": (_public_images(trust), [_arrays(trust)]),
    }


def key_parsers(trust: TrustSeeds, place: Path) -> Parsers:
    """Return the parsers of keys and certificates; ``place``: an empty folder to make some."""
    authority = new_authority("lungs")
    write_public_key(place / "site.pub", create_signing_key(place / "site.key").public_key())
    page_token(place / "page.token")
    certificate = place / "ca.pem"
    certificate.write_bytes(authority.pem)
    return {
        "secret key": (of_file(read_signing_key), [(place / "site.key").read_bytes()]),
        "public key": (of_file(read_public_key), [(place / "site.pub").read_bytes()]),
        "secret": (of_file(read_secret_file), [_SECRET]),
        "node key": (of_file(node_key_line), [trust.node_secret]),
        "certificate": (of_file(read_certificate), [authority.pem]),
        "authority's key": (of_file(lambda file: read_authority(certificate, file)), [authority.key_pem]),
        "page token": (of_file(read_page_token), [(place / "page.token").read_bytes()]),
    }


def _signature_of(trust: TrustSeeds) -> Parser:
    def parse(content: bytes, place: Path) -> object:
        file = place / "study.toml"
        signature_path(file).write_bytes(content)
        return verify_plan(trust.checked_plan, file)

    return parse


def _unpacked(file: Path) -> object:
    package = open_package(file)
    return [package.read(name, MAX_FILE_BYTES) for name in (CARD, WEIGHTS)]


def _zipped(method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(f"release/{CARD}", b"{}")
        archive.writestr(f"release/{WEIGHTS}", bytes(4000))
    return file.getvalue()


def _arrays(trust: TrustSeeds) -> bytes:
    """Return two public images of the plan's size."""
    file = io.BytesIO()
    images = np.zeros((2, *trust.checked_plan.image.size_px), np.uint8)
    np.savez_compressed(file, images=images, classes=np.array([0, 1]))
    return file.getvalue()


def _public_images(trust: TrustSeeds) -> Parser:
    """Return the parser of public images that a plan names, whatever their digest is."""
    plan = trust.checked_plan

    def parse(content: bytes, place: Path) -> object:
        folder, digest = SiteFolder(place), hashlib.sha256(content).hexdigest()
        named = plan.model_copy(update={"image": plan.image.model_copy(update={"public_images": digest})})
        file = folder.public_images(digest)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        try:
            return read_public_images(folder, named)
        finally:
            file.unlink()

    return parse
