"""Public initialisation: weights pre-trained on generated pictures, kept in the package, named by digest in the plan.

The largest single gain under privacy costs nothing: the pictures belong to nobody. ``python -m simulation.pretraining``
reproduces the files; ``common/data/SHA256SUMS`` is the list of those we ship.
"""

from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from common.networks.errors import WeightsInvalidError
from common.networks.shipped_weights import (
    DATA_FOLDER,
    MAX_BYTES,
    SUMS_FILE,
    PublicInitialisation,
    available,
    refuse_missing,
    shipped_content,
)

__all__ = ["DATA_FOLDER", "MAX_BYTES", "PublicInitialisation", "available", "load_initialisation", "write_sums"]


def load_initialisation(network: nn.Module, digest: str, *, folder: Path = DATA_FOLDER) -> tuple[str, ...]:
    """Write the start weights named by ``digest`` into ``network``; return the names of the parameters written.

    Every parameter under ``encoder.`` must be in the file; tensors of the file that the network lacks (a decoder, when
    an autoencoder takes a classifier's encoder) are left out; the head keeps its start value.
    Guarantee: nothing is written unless the SHA-256 of the file, every shape and every value is right.
    Raises: WeightsInvalidError if no file has this digest, the file was changed, or it does not fit the network.
    """
    tensors = load_tensors(shipped_content(digest, folder))
    parameters = dict(network.named_parameters())
    refuse_missing(parameters, tensors, digest)
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


def _refuse_misfit(name: str, tensor: Tensor, parameter: Tensor) -> None:
    if tensor.shape != parameter.shape or tensor.dtype != torch.float32:
        raise WeightsInvalidError(
            f"'{name}' is {tensor.dtype} {tuple(tensor.shape)} in the initialisation, "
            f"float32 {tuple(parameter.shape)} in the network: it is for another width, dimension or number of channels"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise WeightsInvalidError(f"'{name}' of the initialisation holds a value that is not finite")
