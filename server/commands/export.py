"""fedward-server export: the model of a study as files."""

from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.encoders.shelf import EncoderShelf
from common.terminal import JsonOption, errors, output, print_json
from common.trust.errors import KeyInvalidError
from common.trust.identity import public_bytes, read_signing_key
from common.trust.release import WEIGHTS
from server.commands.federation_options import HERE, FolderOption, study_at
from server.export.package import export_model
from server.federation.folder import FederationFolder
from server.study.folder import Study, open_study
from server.study.status import read_journal, require_started


def export(
    study: Annotated[str, typer.Argument(help="The study: its name, or its folder.")],
    *,
    target: Annotated[Path | None, typer.Option("--output", help="Where to write; default: FOLDER/model.")] = None,
    verify: Annotated[bool, typer.Option(help="Compute the model again from the stored sums first.")] = True,
    key: Annotated[
        Path | None, typer.Option(help="The coordinator's secret key; default: that of the federation folder.")
    ] = None,
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write the model (safetensors, ONNX) and its signed card: plan, privacy, scores, who took part.

    The ONNX file takes prepared images and gives class probabilities; a public encoder that the plan names is inside.

    Example: `fedward-server export lungs-2026 --output released/`
    """
    opened = open_study(study_at(study, folder))
    journal = require_started(read_journal(opened), opened)
    place = target or opened.folder.model
    signing_key = _signing_key(opened, key or FederationFolder(folder).key, is_given=key is not None)
    encoders = EncoderShelf(FederationFolder(folder).encoders)
    card = export_model(opened, journal, place, verify=verify, key=signing_key, encoders=encoders)
    journal.close()
    if as_json:
        print_json(card)
    else:
        signed = "its signed card" if signing_key else "its card, which nobody signed: there is no coordinator.key here"
        if not card["finished"]:
            errors.print(
                f"the study is not finished: {card['rounds_applied']} of {card['rounds_planned']} rounds are applied. "
                "What a later phase trains is as it began, so the model may answer the same to every scan; export it "
                "again when `status` says finished",
                markup=False,
            )
        output.print(f"wrote {place / WEIGHTS} (SHA-256 {card['weights']['sha256']}) and {signed}", markup=False)


def _signing_key(study: Study, file: Path, *, is_given: bool) -> Ed25519PrivateKey | None:
    """Return the coordinator's key; None where there is none. Raises: KeyInvalidError for another coordinator's."""
    if not is_given and not file.exists():
        return None
    key = read_signing_key(file)
    if public_bytes(key.public_key()) != public_bytes(study.roster.coordinator):
        raise KeyInvalidError(f"{file}: not the key of the coordinator who signed this study's roster")
    return key
