"""A set of images as frozen features of its three parts, computed once and kept in a folder that the user names.

Features: layer norm of each image's, of ``small_cnn`` with its public start (whose scale and shift follow), or of an
encoder's ONNX file with its card.
An archive without validation images gives a sixth of its training images, at least 300, the same on every run.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from client.features.encoder import Encoder
from common.encoders.card import read_card
from common.encoders.checking import check_encoder
from common.errors import FileUnreadableError
from common.networks.initialisation import available, load_initialisation
from common.networks.layers import spatial_mean
from common.networks.registry import build_network
from simulation.hospitals.public_arrays import divide, need, pictures, read_archive

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Classes = NDArray[np.int64]
Compute = Callable[[Bytes], Floats]

WIDTH: Final = 16
AT_ONCE: Final = 64
VALIDATION_SHARE, LEAST_VALIDATION, VALIDATION_SEED = 1 / 6, 300, 5
LEAST_VARIANCE: Final = 1e-5  # as in GroupNorm


@dataclass(frozen=True)
class Part:
    """Images (n, H, W) uint8 or features (n, F) float32, and a class for each."""

    values: Bytes | Floats
    classes: Classes


@dataclass(frozen=True)
class Parts:
    """Who learns, on whom settings may be chosen, and who judges at the end."""

    train: Part
    validation: Part
    test: Part

    @property
    def class_count(self) -> int:
        """Number of classes."""
        return int(max(part.classes.max() for part in (self.train, self.validation, self.test))) + 1


def read_parts(path: Path) -> Parts:
    """Read an archive of grey or colour pictures with one class each. Raises: as ``load_public_arrays``."""
    arrays = read_archive(path)
    if "train_images" not in arrays:
        everything = divide(pictures(arrays, "images", colour=False), need(arrays, "labels"))
        return _with_validation(
            Part(everything[0], _classes(everything[1])), Part(everything[2], _classes(everything[3]))
        )
    found = {
        name: Part(pictures(arrays, f"{name}_images", colour=False), _classes(need(arrays, f"{name}_labels")))
        for name in ("train", "val", "test")
        if f"{name}_images" in arrays
    }
    if "test" not in found:
        raise FileUnreadableError(f"{path}: the archive has no test_images, so nothing could judge")
    if "val" in found:
        return Parts(found["train"], found["val"], found["test"])
    return _with_validation(found["train"], found["test"])


def features_of(parts: Parts, data: Path, *, encoder: Path | None, card: Path | None, kept: Path) -> Parts:
    """Return the layer-normed features of each part, from ``kept`` where they were computed before.

    Raises: EncoderInvalidError, FileUnreadableError.
    """
    key = hashlib.sha256(data.read_bytes() + (encoder.read_bytes() if encoder else b"small_cnn")).hexdigest()[:32]
    compute: list[Compute] = []  # made when first needed

    def of(name: str, part: Part) -> Part:
        file = kept / f"{key}-{name}.npy"
        if file.is_file():
            return Part(np.load(file, allow_pickle=False), part.classes)
        if not compute:
            compute.append(_encoder(encoder, card) if encoder else _small_cnn())
        found = compute[0](np.asarray(part.values, np.uint8)).astype(np.float32)
        kept.mkdir(parents=True, exist_ok=True)
        np.save(file, found, allow_pickle=False)
        return Part(found, part.classes)

    return Parts(of("train", parts.train), of("validation", parts.validation), of("test", parts.test))


def _with_validation(train: Part, test: Part) -> Parts:
    order = np.random.default_rng(VALIDATION_SEED).permutation(len(train.classes))
    held, kept = np.split(order, [max(LEAST_VALIDATION, round(VALIDATION_SHARE * len(order)))])
    learning, judging = (Part(train.values[rows], train.classes[rows]) for rows in (kept, held))
    return Parts(learning, judging, test)


def _classes(labels: NDArray[np.generic]) -> Classes:
    return labels.reshape(len(labels), -1)[:, 0].astype(np.int64)


def _small_cnn() -> Compute:
    network = build_network("small_cnn", dimensions=2, classes=2, width=WIDTH)
    digests = {(entry.network, entry.dimensions, entry.width): entry.digest for entry in available()}
    load_initialisation(network, digests["small_cnn", 2, WIDTH])
    encoder, norm = network.get_submodule("encoder"), network.get_submodule("feature_norm")
    scale, shift = (parameter.detach().numpy() for parameter in norm.parameters())

    def compute(images: Bytes) -> Floats:
        pieces = torch.split(torch.from_numpy(images).float().unsqueeze(1) / 255, AT_ONCE)
        with torch.no_grad():
            found = torch.cat([torch.cat([spatial_mean(each) for each in encoder(piece)], 1) for piece in pieces])
        return np.asarray(scale * _normed(found.numpy()) + shift, np.float32)

    return compute


def _encoder(file: Path, card_file: Path | None) -> Compute:
    card = read_card(card_file or file.with_suffix(".toml"))
    check_encoder(file, card)
    encoder = Encoder(file, card)
    outputs = [output.name for output in card.outputs if output.kind == "vector"]

    def compute(images: Bytes) -> Floats:
        found = []
        for image in torch.from_numpy(images).float().div(255)[:, None, None]:
            sized = functional.interpolate(image, size=card.size_px, mode="bilinear", antialias=True).clamp(0, 1)
            found.append(encoder.features(sized.numpy(), outputs))
        return _normed(np.concatenate(found))

    return compute


def _normed(features: Floats) -> Floats:
    centred = features - features.mean(1, keepdims=True)
    normed: Floats = centred / np.sqrt(centred.var(1, keepdims=True) + LEAST_VARIANCE)
    return normed.astype(np.float32)
