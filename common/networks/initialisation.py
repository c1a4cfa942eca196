"""Public initialisation: weights pre-trained on generated pictures, kept in the package, named by digest in the plan.

The largest single gain under privacy costs nothing: the pictures belong to nobody. ``python -m simulation.pretraining``
reproduces the files; ``common/data/SHA256SUMS`` is the list of those we ship.
"""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from common.files import read_bounded, read_text
from common.networks.errors import WeightsInvalidError

DATA_FOLDER: Final = Path(__file__).parents[1] / "data"
SUMS_FILE: Final = "SHA256SUMS"
MAX_BYTES: Final = 1_000_000


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


def load_initialisation(network: nn.Module, digest: str, *, folder: Path = DATA_FOLDER) -> tuple[str, ...]:
    """Write the start weights named by ``digest`` into ``network``; return the names of the parameters written.

    Every parameter under ``encoder.`` must be in the file; tensors of the file that the network lacks (a decoder, when
    an autoencoder takes a classifier's encoder) are left out; the head keeps its start value.
    Guarantee: nothing is written unless the SHA-256 of the file, every shape and every value is right.
    Raises: WeightsInvalidError if no file has this digest, the file was changed, or it does not fit the network.
    """
    tensors = _read(digest, folder)
    parameters = dict(network.named_parameters())
    missing = [name for name in parameters if name.startswith("encoder.") and name not in tensors]
    if missing:
        raise WeightsInvalidError(f"initialisation {digest[:12]} lacks '{missing[0]}': it is for another network")
    fitting = {name: tensor for name, tensor in tensors.items() if name in parameters}
    for name, tensor in fitting.items():
        _refuse_misfit(name, tensor, parameters[name])
    with torch.no_grad():
        for name, tensor in fitting.items():
            parameters[name].copy_(tensor)
    return tuple(fitting)


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` for every safetensors file in ``folder`` (the format of ``sha256sum``)."""
    files = sorted(folder.glob("*.safetensors"))
    lines = [f"{sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def _described(digest: str, file_name: str) -> PublicInitialisation:
    network, dimensions, width = file_name.removesuffix(".safetensors").split("-")
    return PublicInitialisation(
        file_name, digest, network, int(dimensions.removesuffix("d")), int(width.removeprefix("width"))
    )


def _read(digest: str, folder: Path) -> dict[str, Tensor]:
    known = {entry.digest: entry.file_name for entry in available(folder)}
    if digest not in known:
        raise WeightsInvalidError(
            f"no public initialisation with digest {json.dumps(digest[:64])}; this version has: {', '.join(known)}"
        )
    content = read_bounded(folder / known[digest], MAX_BYTES)
    if sha256(content).hexdigest() != digest:
        raise WeightsInvalidError(f"{known[digest]} does not have its digest {digest}; install this version anew")
    return load_tensors(content)


def _refuse_misfit(name: str, tensor: Tensor, parameter: Tensor) -> None:
    if tensor.shape != parameter.shape or tensor.dtype != torch.float32:
        raise WeightsInvalidError(
            f"'{name}' is {tensor.dtype} {tuple(tensor.shape)} in the initialisation, "
            f"float32 {tuple(parameter.shape)} in the network: it is for another width or dimension"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise WeightsInvalidError(f"'{name}' of the initialisation holds a value that is not finite")
