"""What a network must not contain if each patient's gradient is to be bounded on its own."""

from torch import nn

from common.networks.errors import NetworkUnsuitableError
from common.networks.unet import Prior

# The layers with parameters that every engine of client/private_gradients knows, and one that no gradient trains.
_KNOWN_WITH_PARAMETERS = (nn.Conv2d, nn.Conv3d, nn.Linear, nn.GroupNorm, Prior)
_BATCH_NORM = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 (the only common base of all BatchNorms)
_DROPOUT = nn.modules.dropout._DropoutNd  # noqa: SLF001 (likewise)


def refuse_unsuitable(network: nn.Module) -> None:
    """Raise unless every layer of ``network`` is fit for private training.

    Refused: layers that keep or use statistics of a batch (BatchNorm, running buffers), dropout (its draws differ
    between engines), in-place operations (they overwrite what a per-patient gradient still needs), padding other than
    zeros (Opacus 1.6 gives wrong gradients there, so it could not serve as an oracle), layers with parameters that our
    engines do not know.
    Raises: NetworkUnsuitableError naming the layer and what to use instead.
    """
    for name, layer in network.named_modules():
        complaint = _complaint(layer)
        if complaint:
            raise NetworkUnsuitableError(f"layer '{name}' ({type(layer).__name__}) {complaint}")


def _complaint(layer: nn.Module) -> str:
    complaints = (
        (isinstance(layer, _BATCH_NORM), "mixes patients through batch statistics; use GroupNorm"),
        (isinstance(layer, _DROPOUT), "draws at random while training; leave dropout out"),
        (getattr(layer, "inplace", False), "works in place; set inplace=False"),
        (getattr(layer, "padding_mode", "zeros") != "zeros", "pads with other values than zeros; use 'zeros'"),
        (any(True for _ in layer.buffers(recurse=False)), "keeps a buffer; only parameters may hold state"),
        (
            any(True for _ in layer.parameters(recurse=False)) and not isinstance(layer, _KNOWN_WITH_PARAMETERS),
            "has parameters the private engines do not know; use convolution, linear or GroupNorm layers",
        ),
    )
    return next((sentence for wrong, sentence in complaints if wrong), "")
