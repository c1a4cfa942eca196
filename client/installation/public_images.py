"""Images that belong to nobody: the only ones on which a gate may judge the teacher without a budget.

A plan names their file by SHA-256; the site gets it out of band, like the roster, and keeps it in its folder:
``public/DIGEST.npz`` with ``images`` (n, *size), in colour (n, *size, 3), uint8 or float32 in [0, 1], and ``classes``
(n,) whole numbers.
"""

import hashlib
import io
import zipfile
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client.installation.errors import NotEnrolledError
from client.installation.folder import SiteFolder
from common.files import read_bounded
from common.plan.errors import PlanInvalidError
from common.plan.plan import StudyPlan

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_UNPACKED_BYTES: Final = 1 << 30  # a file that is nothing but a name in a plan must not fill the memory
MOST_IMAGES: Final = 10_000

# images (n, *size) or (n, *size, 3) float32 in [0, 1], classes (n,) int64
PublicArrays = tuple[NDArray[np.float32], NDArray[np.int64]]


def read_public_images(folder: SiteFolder, plan: StudyPlan) -> PublicArrays | None:
    """Read the public images that a plan names; None when it names none.

    Raises: NotEnrolledError when the file is not here or is another one; PlanInvalidError when it does not fit;
    FileTooLargeError.
    """
    digest = plan.image.public_images
    if not digest:
        return None
    path = folder.public_images(digest)
    if not path.exists():
        raise NotEnrolledError(
            f"{path}: the plan judges its teacher on these public images; ask the coordinator for them"
        )
    content = read_bounded(path, MAX_BYTES)
    if hashlib.sha256(content).hexdigest() != digest:
        raise NotEnrolledError(f"{path}: not the file that the plan names; ask the coordinator for it again")
    try:
        return _parsed(content, plan)
    except Exception:  # noqa: BLE001 (zip, its decoders and numpy each throw their own; a MemoryError too)
        raise PlanInvalidError(
            f"{path}: needs `images` (n, {', '.join(map(str, _image_shape(plan)))}) and `classes` (n,), "
            f"n from 1 to {MOST_IMAGES}, {MAX_UNPACKED_BYTES} bytes at most when unpacked"
        ) from None


def _parsed(content: bytes, plan: StudyPlan) -> PublicArrays:
    with zipfile.ZipFile(io.BytesIO(content)) as packed:  # no entry gives more than it says here
        if sum(entry.file_size for entry in packed.infolist()) > MAX_UNPACKED_BYTES:
            raise ValueError("size")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        images, classes = archive["images"], archive["classes"]
    if (
        not 1 <= len(images) <= MOST_IMAGES
        or images.shape[1:] != _image_shape(plan)
        or classes.shape != images.shape[:1]
    ):
        raise ValueError("shapes")
    if images.dtype not in (np.uint8, np.float32) or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError("types")
    if classes.min() < 0 or classes.max() >= len(plan.task.classes):
        raise ValueError("classes")
    scaled = images.astype(np.float32) / np.float32(255 if images.dtype == np.uint8 else 1)
    return scaled, classes.astype(np.int64)


def _image_shape(plan: StudyPlan) -> tuple[int, ...]:
    """Return the shape of one image as picture files have it: colours last."""
    return plan.image.size_px if plan.image.channels == 1 else (*plan.image.size_px, plan.image.channels)
