"""A public encoder at work: prepared images in, feature vectors out. For the fenced process alone."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from client.features.quiet_runtime import onnxruntime
from common.encoders.card import EncoderCard
from common.encoders.checking import LARGEST_AT_ONCE_BYTES, open_encoder
from common.encoders.errors import EncoderFault, EncoderInvalidError

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
NOTHING_LOGGED: Final = 4  # onnxruntime's words quote names from the file
TIMES_THE_FILE: Final = 3  # its bytes, what onnxruntime makes of them, and room between
ROOM_BYTES: Final = 1 << 30

_log = logging.getLogger("fedward.encoder")


def memory_of(card: EncoderCard) -> int:
    """Return the bytes that a process with an encoder of a checked file may take, whatever the file does."""
    return TIMES_THE_FILE * card.bytes + LARGEST_AT_ONCE_BYTES + ROOM_BYTES


class Encoder:
    """An encoder whose file was checked (``common.encoders.checking``), loaded once.

    Guarantee: the features of an image are bit for bit the same whatever else is computed before, after or with it:
    each image goes through alone, as a batch of one. ``threads``: of one image. ``device``: as in ``site.toml``.
    Raises: EncoderInvalidError when the file is another one than the card's, cannot be loaded, or gives something else
    than the card says for a made-up image; FileUnreadableError.
    """

    def __init__(self, path: Path, card: EncoderCard, *, threads: int = 1, device: str = "cpu") -> None:
        self.card = card
        shape = (len(card.mapping.scale), *(1 for _ in card.size_px))
        self._scale = np.asarray(card.mapping.scale, np.float32).reshape(shape)
        self._offset = np.asarray(card.mapping.offset, np.float32).reshape(shape)
        self._session = _session(path, card, threads, device)
        self._run(_made_up_image(card), [output.name for output in card.outputs])

    def features(self, images: NDArray[np.float32], outputs: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors ``outputs`` of each image, joined in this order.

        Shapes: images (n, channels, *size_px) float32 in [0, 1], where one channel stands for three equal ones ->
        (n, card.features_of(outputs)) float32.
        Raises: EncoderInvalidError for outputs that are not finite (``not_finite``), and as ``card.features_of``;
        ValueError for images of another shape or type.
        """
        found = np.empty((len(images), self.card.features_of(outputs)), np.float32)
        wanted = self.card.input_shape
        if images.dtype != np.float32 or images.shape[1:] not in {wanted, (1, *wanted[1:])}:
            raise ValueError(f"images are {images.dtype} {images.shape[1:]}, the encoder takes float32 {wanted}")
        for row, image in zip(found, images, strict=True):
            np.concatenate(self._run(image, outputs), out=row)
        return found

    def works(self) -> bool:
        """Say whether a made-up image goes through: then what failed before was of that image, not of this machine."""
        try:
            self._run(_made_up_image(self.card), [output.name for output in self.card.outputs])
        except EncoderInvalidError:
            return False
        return True

    def _run(self, image: NDArray[np.float32], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        mapped = image * self._scale + self._offset  # one channel becomes three here
        try:
            found = self._session.run(list(outputs), {self.card.input_name: mapped[np.newaxis]})
        except Exception:  # noqa: BLE001 (onnxruntime has an exception of its own for each fault, and quotes the file)
            raise EncoderInvalidError(
                f"the encoder {self.card.name} failed on an image: is there enough memory?", EncoderFault.RUN
            ) from None
        for name, values in zip(outputs, found, strict=True):
            self._check(name, values)
        return [values[0] for values in found]

    def _check(self, name: str, values: NDArray[Any]) -> None:
        if values.shape != (1, *self.card.output(name).shape) or values.dtype != np.float32:
            raise EncoderInvalidError(
                f"the encoder {self.card.name} gave another shape than its card says for {name!r}", EncoderFault.OUTPUT
            )
        if not np.isfinite(values).all():
            raise EncoderInvalidError(
                f"the encoder {self.card.name} gave values that are not finite for {name!r}", EncoderFault.NOT_FINITE
            )


def _made_up_image(card: EncoderCard) -> NDArray[np.float32]:
    """Return a ramp from black to white."""
    return np.linspace(0, 1, int(np.prod(card.input_shape)), dtype=np.float32).reshape(card.input_shape)


def _session(path: Path, card: EncoderCard, threads: int, device: str) -> Any:
    """Load the very bytes that were compared with the card: given as bytes, a file has no folder to read from."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = NOTHING_LOGGED
    options.use_deterministic_compute = True
    options.enable_cpu_mem_arena = False  # it would keep what the largest image took
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with open_encoder(path, card) as file:
        content = file.read(card.bytes)
    try:
        return onnxruntime.InferenceSession(content, options, providers=_providers(device))
    except Exception:  # noqa: BLE001 (as above)
        raise EncoderInvalidError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot load it; is there enough memory?", EncoderFault.RUN
        ) from None


def _providers(device: str) -> list[Any]:
    if not device.startswith("cuda"):
        return [CPU]
    if CUDA not in onnxruntime.get_available_providers():
        _log.warning("this build of onnxruntime has no CUDA: the encoder runs on the processor")
        return [CPU]
    return [(CUDA, {"device_id": int(device.partition(":")[2] or 0), "cudnn_conv_algo_search": "HEURISTIC"}), CPU]
