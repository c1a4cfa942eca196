"""Public image collections as numpy archives: MedMNIST files, and the same idea with other names.

Understood (``.npz``, never pickled): ``train_images``, ``train_labels``, optionally ``val_*`` and ``test_*``; or
``images`` and ``labels`` without a division, of which a fixed share is held out as the test set. Images are (N, H, W),
(N, H, W, 3) or volumes (N, D, H, W) of bytes; labels are one class for each image, (N,) or (N, 1), or a segmentation,
one class number for each pixel. An archive is a stranger's file: every size is checked before anything is unpacked.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from common.errors import FileTooLargeError, FileUnreadableError

MAX_ARCHIVE_BYTES = 4 << 30
MAX_MEMBERS = 64
MAX_HEADER_BYTES = 4096
TEST_SHARE = 0.2  # of an archive that comes undivided
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PublicArrays:
    """A collection, divided: what hospitals may hold, and the test set that no hospital sees.

    Shapes: images (N, [D,] H, W), or (N, H, W, 3) where colour was asked for, uint8; labels (N,) indices of
    ``class_names`` (for segmentations: 1 when anything is segmented); segmentations (N, [D,] H, W) or None. The
    ``test_`` arrays are the same for the test set (N may be 0).
    """

    class_names: tuple[str, ...]
    images: Bytes
    labels: NDArray[np.int64]
    test_images: Bytes
    test_labels: NDArray[np.int64]
    segmentations: Bytes | None = None
    test_segmentations: Bytes | None = None


def load_public_arrays(path: Path, *, colour: bool = False) -> PublicArrays:
    """Read an archive; see the module for the names and shapes that are understood.

    ``colour``: pictures (N, H, W, 3) keep their colours, and others are refused; without it they become luminance.

    Raises: FileUnreadableError when it is not such an archive, FileTooLargeError before unpacking more than
    ``MAX_ARCHIVE_BYTES``.
    """
    arrays = read_archive(path)
    if "train_images" in arrays:
        parts = [part for part in ("train", "val") if f"{part}_images" in arrays]
        images = np.concatenate([pictures(arrays, f"{part}_images", colour=colour) for part in parts])
        labels = np.concatenate([need(arrays, f"{part}_labels") for part in parts])
        has_test = "test_images" in arrays
        test_images = pictures(arrays, "test_images", colour=colour) if has_test else images[:0]
        test_labels = need(arrays, "test_labels") if has_test else labels[:0]
    else:
        undivided = pictures(arrays, "images", colour=colour)
        images, labels, test_images, test_labels = divide(undivided, need(arrays, "labels"))
    if len(images) != len(labels) or len(test_images) != len(test_labels) or not len(images):
        raise FileUnreadableError(f"the archive has {len(images)} images and {len(labels)} labels: they must pair up")
    if labels.shape == (images.shape[:3] if colour else images.shape):
        return segmented(images, labels, test_images, test_labels)
    classes, test_classes = one_class_each(labels), one_class_each(test_labels)
    return PublicArrays(class_names(arrays, classes), images, classes, test_images, test_classes)


def read_archive(path: Path) -> dict[str, NDArray[np.generic]]:
    """Unpack all arrays of a ``.npz`` whose sizes, types and names pass; no pickle is ever read."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS or any(not member.filename.endswith(".npy") for member in members):
                raise FileUnreadableError(f"an archive of arrays holds at most {MAX_MEMBERS} .npy members and no other")
            total = sum(member.file_size for member in members)
            if total > MAX_ARCHIVE_BYTES:
                raise FileTooLargeError(f"the arrays take {total} bytes unpacked, the limit is {MAX_ARCHIVE_BYTES}")
            for member in members:
                with archive.open(member) as file:
                    check_header(file, member.file_size)
        with np.load(path, allow_pickle=False, max_header_size=MAX_HEADER_BYTES) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        raise FileUnreadableError(f"this is not a readable .npz archive ({type(error).__name__})") from None


def check_header(file: IO[bytes], member_bytes: int) -> None:
    """Refuse an array whose header promises another size than its member has, or Python objects (ValueError)."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file, max_header_size=MAX_HEADER_BYTES)
    promised = int(np.prod(shape, dtype=object)) * dtype.itemsize + file.tell()
    if dtype.hasobject or promised != member_bytes:
        raise ValueError("the array's header does not describe its content")


def need(arrays: dict[str, NDArray[np.generic]], name: str) -> NDArray[np.generic]:
    """Return one array or say which one is missing."""
    if name not in arrays:
        raise FileUnreadableError(f"the archive has no array named {name!r}; names understood: see fedward-sim import")
    return arrays[name]


def pictures(arrays: dict[str, NDArray[np.generic]], name: str, *, colour: bool) -> Bytes:
    """Return images as uint8, in colour, or grey with colour turned into luminance."""
    images = need(arrays, name)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or min(images.shape[1:3], default=0) < 8:
        raise FileUnreadableError(f"{name} must hold bytes, (N, H, W), (N, H, W, 3) or (N, D, H, W), 8 pixels or more")
    in_colour = images.ndim == 4 and images.shape[-1] == 3
    if colour and not in_colour:
        raise FileUnreadableError(f"{name} has the shape {images.shape}; pictures in colour are (N, H, W, 3)")
    if in_colour and not colour:
        images = np.rint(np.asarray(images, np.uint8) @ LUMINANCE).astype(np.uint8)
    return np.asarray(images, np.uint8)


def divide(images: Bytes, labels: NDArray[np.generic]) -> tuple[Bytes, NDArray[np.generic], Bytes, NDArray[np.generic]]:
    """Hold out ``TEST_SHARE`` of an undivided collection, the same images on every run."""
    order = np.random.default_rng(20261120).permutation(min(len(images), len(labels)))
    test, train = np.split(order, [round(len(order) * TEST_SHARE)])
    return images[train], labels[train], images[test], labels[test]


def segmented(
    images: Bytes, labels: NDArray[np.generic], test_images: Bytes, test_labels: NDArray[np.generic]
) -> PublicArrays:
    """Build a collection whose labels are segmentations: class 0 is the background."""
    if labels.dtype != np.uint8:
        raise FileUnreadableError("segmentations must be bytes, one class number for each pixel")
    found = int(max(labels.max(initial=0), test_labels.max(initial=0)))
    names = ("background", *(f"structure_{number}" for number in range(1, found + 1)))
    axes = tuple(range(1, labels.ndim))
    return PublicArrays(
        names,
        images,
        np.asarray(labels.any(axis=axes), np.int64),
        test_images,
        np.asarray(test_labels.any(axis=axes), np.int64),
        labels.astype(np.uint8),
        test_labels.astype(np.uint8),
    )


def one_class_each(labels: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return labels (N,) or (N, 1) as (N,) numbers; several labels for one image are not understood yet."""
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1 or flat.dtype.kind not in "iu" or flat.min(initial=0) < 0 or flat.max(initial=0) > 255:
        raise FileUnreadableError("labels must be one class number from 0 to 255 for each image, (N,) or (N, 1)")
    return flat.astype(np.int64)


def class_names(arrays: dict[str, NDArray[np.generic]], classes: NDArray[np.int64]) -> tuple[str, ...]:
    """Take names from the archive, or call the classes class_0, class_1, ..."""
    count = int(classes.max(initial=0)) + 1
    names = arrays.get("class_names")
    if names is not None and names.dtype.kind == "U" and names.shape >= (count,):
        return tuple(plain_name(str(name), number) for number, name in enumerate(names))
    return tuple(f"class_{number}" for number in range(max(count, 2)))


def plain_name(name: str, number: int) -> str:
    """Spell a class name as study plans allow it: lower-case letters, digits, ``_``, space and ``-``."""
    plain = "".join(character if character.isalnum() else "_" for character in name.lower() if character.isascii())
    return plain[:40] if plain[:1].isalpha() else f"class_{number}"
