"""Receiving a final model: who signed it, for which plan, and whether these are its weights.

In this order:

    1  the card is signed by this site's coordinator           4  the weights have the digest of the card
    2  its plan is approved here, and unchanged                5  they fit the plan's network, every value finite
    3  no file is larger than that plan's network needs        6  kept in models/<SHA-256 of the weights>/

Opening a received model checks all of it again, so a file changed on the disk is noticed.
"""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from client.final_model.package import FolderPackage, Package, open_package
from client.installation.audit_log import audit, standing_approvals
from client.installation.errors import NotEnrolledError
from client.installation.folder import SiteFolder
from common.encoders.shelf import EncoderShelf
from common.files import sync_folder, write_new
from common.networks.errors import WeightsInvalidError
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan
from common.plan.signing import verify_plan
from common.plan.start import start_network
from common.trust.errors import ReleaseInvalidError
from common.trust.release import (
    CARD,
    MAX_CARD_BYTES,
    MAX_SIGNATURE_BYTES,
    NETWORK,
    READABLE,
    SIGNATURE,
    WEIGHTS,
    verify_card,
    verify_file,
)
from common.trust.roster import read_roster

MAX_HEADER_BYTES: Final = 1 << 20  # of a safetensors file: names and shapes
MAX_READABLE_BYTES: Final = 1 << 20
ONNX_OVERHEAD_BYTES: Final = 16 << 20
LENGTH_BYTES: Final = 8


@dataclass(frozen=True, eq=False)
class FinalModel:
    """A model that passed every check. ``digest``: SHA-256 (hexadecimal) of its weights; ``files``: as received."""

    digest: str
    plan: StudyPlan
    network: nn.Module
    card: Mapping[str, Any]
    files: Mapping[str, bytes]


def receive(folder: SiteFolder, release: Path) -> FinalModel:
    """Check a release and keep it; receiving it again changes nothing.

    Raises: ReleaseInvalidError (card, signature, digest), NotEnrolledError (a plan that is not approved here),
    WeightsInvalidError, FileUnreadableError, FileTooLargeError.
    """
    model = checked_model(folder, open_package(release))
    target = folder.models / model.digest
    if not target.exists():
        folder.models.mkdir(mode=0o700, exist_ok=True)
        _keep(model.files, target)
        entry: dict[str, object] = {"what": "model received", "plan": model.plan.digest(), "weights": model.digest}
        audit(folder, {**entry, "time": int(time.time())})
    return model


def _keep(files: Mapping[str, bytes], target: Path) -> None:
    """Write all files beside ``target`` and rename, so that the folder is whole or not there."""
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
    try:
        for name, content in files.items():
            write_new(temporary / name, content, 0o600)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(target.parent)


def open_model(folder: SiteFolder, digest: str = "") -> FinalModel:
    """Open the received model whose digest begins with ``digest``; empty: the one that was received last.

    Raises: NotEnrolledError when there is none, or several; and as ``receive``.
    """
    found = sorted(
        (place for place in folder.models.glob("[0-9a-f]*") if place.name.startswith(digest)),
        key=lambda place: place.stat().st_mtime,
    )
    if not found or (digest and len(found) > 1):
        raise NotEnrolledError(
            f"{folder.models}: {len(found)} received models have a digest that begins so; "
            "`fedward-site model receive RELEASE` takes one in"
        )
    return checked_model(folder, FolderPackage(found[-1]))


def checked_model(folder: SiteFolder, package: Package) -> FinalModel:
    """Check a release as the module's words say, and load its weights. Raises: as ``receive``."""
    coordinator = read_roster(folder.roster).coordinator
    if not package.has(SIGNATURE):
        raise ReleaseInvalidError("nobody signed this model; ask the coordinator for a signed release")
    card_bytes, signature = package.read(CARD, MAX_CARD_BYTES), package.read(SIGNATURE, MAX_SIGNATURE_BYTES)
    card = verify_card(card_bytes, signature, coordinator)
    plan = _approved_plan(folder, str(card.get("plan_digest", "")))
    network = start_network(plan)
    size = 4 * sum(parameter.numel() for parameter in network.parameters())
    limits = {
        WEIGHTS: size + MAX_HEADER_BYTES + LENGTH_BYTES,
        NETWORK: size + ONNX_OVERHEAD_BYTES + _encoder_bytes(folder, plan),
        READABLE: MAX_READABLE_BYTES,
    }
    files = {name: package.read(name, most) for name, most in limits.items() if name == WEIGHTS or package.has(name)}
    for name, content in files.items():
        verify_file(card, name, content)
    load_weights(network, files[WEIGHTS])
    digest = hashlib.sha256(files[WEIGHTS]).hexdigest()
    return FinalModel(digest, plan, network, card, {CARD: card_bytes, SIGNATURE: signature, **files})


def _encoder_bytes(folder: SiteFolder, plan: StudyPlan) -> int:
    """Return the length of the public encoder inside the model; its card is here since the plan was approved."""
    named = plan.network.encoder
    return 0 if named is None else EncoderShelf(folder.encoders).named(card=named.card, file=named.file).bytes


def load_weights(network: nn.Module, content: bytes) -> None:
    """Write the tensors of a safetensors file into ``network``; nothing is written unless all of them fit.

    Raises: WeightsInvalidError.
    """
    tensors = _tensors(content)
    parameters = dict(network.named_parameters())
    if set(tensors) != set(parameters):
        raise WeightsInvalidError(f"{len(set(tensors) ^ set(parameters))} tensors are missing or too many for the plan")
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tensor.shape != parameters[name].shape:
            raise WeightsInvalidError(f"'{name}' is {tensor.dtype} {tuple(tensor.shape)}, which does not fit the plan")
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsInvalidError(f"'{name}' holds a value that is not finite; the model was not taken")
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
    network.eval()


def _tensors(content: bytes) -> dict[str, Tensor]:
    """Parse a safetensors file: 8 bytes length of the header (little-endian), header (JSON), tensors."""
    header = int.from_bytes(content[:LENGTH_BYTES], "little")
    if header > min(MAX_HEADER_BYTES, len(content)):
        raise WeightsInvalidError(f"the weights' header claims {header} bytes, the limit is {MAX_HEADER_BYTES}")
    try:
        return load_tensors(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError):
        raise WeightsInvalidError("the weights are no safetensors file; ask the coordinator for them again") from None


def _approved_plan(folder: SiteFolder, digest: str) -> StudyPlan:
    """Return the plan of a model: approved here (though perhaps under a former roster or policy) and unchanged.

    Nothing leaves the site when a model comes in, so a plan that trains no more may still bring its result.
    """
    if digest not in standing_approvals(folder):
        raise NotEnrolledError("the model is of a plan that nobody approved here; is it meant for this hospital?")
    file = folder.plan(digest)
    plan = read_plan(file)
    verify_plan(plan, file, read_roster(folder.roster).coordinator)
    if plan.digest() != digest:
        raise NotEnrolledError("the model's plan was changed on this disk after it was approved; restore it first")
    return plan
