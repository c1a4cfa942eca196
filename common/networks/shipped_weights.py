"""The public start weights of this package, and whether they fit a network: all that is known without PyTorch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from common.files import parsed_json, read_bounded, read_text
from common.networks.errors import WeightsInvalidError

DATA_FOLDER: Final = Path(__file__).parents[1] / "data"
SUMS_FILE: Final = "SHA256SUMS"
MAX_BYTES: Final = 1_000_000
FLOAT32: Final = "F32"


@dataclass(frozen=True, slots=True)
class PublicInitialisation:
    """One file of start weights: what it fits and its SHA-256 (hex), by which a plan names it."""

    file_name: str
    digest: str
    network: str
    dimensions: int
    width: int


def available(folder: Path = DATA_FOLDER) -> tuple[PublicInitialisation, ...]:
    """List the start weights of this package, in the order of ``SHA256SUMS``; the files themselves are not opened.

    File names say what a file fits: ``small_cnn-2d-width16.safetensors``.
    """
    lines = read_text(folder / SUMS_FILE, MAX_BYTES).splitlines()
    return tuple(_described(*line.split(maxsplit=1)) for line in lines if line.strip())


def shipped_content(digest: str, folder: Path = DATA_FOLDER) -> bytes:
    """Return the safetensors file that ``digest`` names.

    Raises: WeightsInvalidError if no file has this digest, or the file was changed.
    """
    known = {entry.digest: entry.file_name for entry in available(folder)}
    if digest not in known:
        raise WeightsInvalidError(
            f"no public initialisation with digest {json.dumps(digest[:64])}; this version has: {', '.join(known)}"
        )
    content = read_bounded(folder / known[digest], MAX_BYTES)
    if sha256(content).hexdigest() != digest:
        raise WeightsInvalidError(f"{known[digest]} does not have its digest {digest}; install this version anew")
    return content


def check_initialisation(parameters: Mapping[str, tuple[int, ...]], digest: str) -> frozenset[str]:
    """Return which of a network's ``parameters`` (name to shape) the start weights named by ``digest`` fill.

    The same rule as ``common.networks.initialisation``, which loads them. Raises: WeightsInvalidError.
    """
    content = shipped_content(digest)
    header = parsed_json(content[8 : 8 + int.from_bytes(content[:8], "little")])  # the format's own head
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    refuse_missing(parameters, tensors, digest)
    fitting = frozenset(tensors) & frozenset(parameters)
    for name in sorted(fitting):
        found = tuple(tensors[name]["shape"])
        if found != parameters[name] or tensors[name]["dtype"] != FLOAT32:
            raise WeightsInvalidError(
                f"'{name}' is {tensors[name]['dtype']} {found} in the initialisation, float32 {parameters[name]} in "
                "the network: it is for another width, dimension or number of channels"
            )
    return fitting


def refuse_missing(parameters: Mapping[str, object], tensors: Mapping[str, object], digest: str) -> None:
    """Raise WeightsInvalidError unless every parameter under ``encoder.`` is in the file."""
    missing = [name for name in parameters if name.startswith("encoder.") and name not in tensors]
    if missing:
        raise WeightsInvalidError(f"initialisation {digest[:12]} lacks '{missing[0]}': it is for another network")


def _described(digest: str, file_name: str) -> PublicInitialisation:
    network, dimensions, width = file_name.removesuffix(".safetensors").split("-")
    return PublicInitialisation(
        file_name, digest, network, int(dimensions.removesuffix("d")), int(width.removeprefix("width"))
    )
