"""One 2-D image file: bytes -> records (facts and levels). Runs in a worker."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from pydicom.dataset import Dataset

from client.dicom.decode import check_stream
from client.dicom.describe import describe, pixel_spacing_mm
from client.dicom.facts import Facts
from client.dicom.header import read_header
from client.dicom.image_module import ImageModule, check_has_pixels, check_image_module, check_kind
from client.dicom.intensity import Levels, Values, level_bytes, to_levels, window_of
from client.dicom.limits import MAX_FILE_RECORD_BYTES, MAX_RECORDS_PER_FILE
from client.dicom.presentation import check_presentation
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.reject import RejectCode, Rejected
from client.dicom.resize import Axis, centred, resample
from client.dicom.settings import IngestSettings
from client.dicom.study_frame import read_study_frame
from client.dicom.text_pages import check_ultrasound_region


def read_images(content: bytes, settings: IngestSettings, pseudonyms: Pseudonyms) -> Iterator[tuple[Facts, Levels]]:
    """Yield each record of an image file: one, or one for each chosen frame of an enhanced multi-frame object.

    Order of the checks: file, kind, owner, pixel description, compressed stream; only then is anything decoded.
    Raises: Rejected; anything else a parser may throw is turned into a code by ``verdict``.
    """
    dataset = read_header(content)
    modality = check_kind(dataset, settings.modalities)
    check_presentation(dataset, modality, settings.presentation)
    check_ultrasound_region(dataset, modality, accepted=pseudonyms.rules.whole_ultrasound)
    facts = describe(dataset, modality, pseudonyms)
    check_has_pixels(dataset)
    module = check_image_module(dataset, modality)
    check_colour(module, settings)
    chosen = module.chosen_frames(records_per_file(settings))
    check_stream(dataset, module, chosen)
    for index in chosen:
        frame = read_study_frame(dataset, module, index, settings)
        low, high = window_of(frame.values, frame.valid, frame.grey_scale, settings)
        rows, columns, spacing_mm = picture_axes(module, dataset, settings, index)
        planes = [frame.values] if frame.values.ndim == 2 else np.moveaxis(frame.values, 2, 0)
        levels = [picture_levels(plane, (rows, columns), (low, high), settings) for plane in planes]
        yield (
            replace(facts, frame_index=index, intensity_low=low, intensity_high=high, spacing_mm=spacing_mm),
            np.broadcast_to(levels if settings.channels == 3 else levels[0], settings.record_shape),
        )


def picture_levels(
    plane: Values, axes: tuple[Axis, Axis], window: tuple[float, float], settings: IngestSettings
) -> Levels:
    """Bring one channel of a picture to the study's size and its levels."""
    return centred(to_levels(resample(plane, *axes), *window), settings.size_px, 0)


def check_colour(module: ImageModule, settings: IngestSettings) -> None:
    """Refuse a grey picture in a study of colours, but for ultrasound: its grey is what the screen shows in colour.

    Of a fundus or a skin a grey picture is another kind of picture (red-free, fluorescence), not a colour lost.
    Raises: Rejected(no_colour).
    """
    if settings.channels == 3 and not module.in_colour and module.modality != "US":
        raise Rejected(RejectCode.NO_COLOUR)


def records_per_file(settings: IngestSettings) -> int:
    """Return how many frames of one file become records: what parent and worker hold at a time stays bounded."""
    return max(1, min(MAX_RECORDS_PER_FILE, MAX_FILE_RECORD_BYTES // level_bytes(settings.record_shape)))


def picture_axes(
    module: ImageModule, dataset: Dataset, settings: IngestSettings, frame_index: int = 0
) -> tuple[Axis, Axis, tuple[float, float]]:
    """Return how rows and columns are resampled, and the spacing of the result (0 = unknown).

    Raises: Rejected(missing_attribute) when the study asks for a spacing and the picture has none.
    """
    return axes_of((module.rows, module.columns), pixel_spacing_mm(dataset, frame_index), settings)


def axes_of(
    shape: tuple[int, int], spacing_mm: tuple[float, float] | None, settings: IngestSettings
) -> tuple[Axis, Axis, tuple[float, float]]:
    """Return what ``picture_axes`` does, for a picture of ``shape`` (rows, columns); spacing None: unknown."""
    if settings.spacing_mm:
        if spacing_mm is None:
            raise Rejected(RejectCode.MISSING_ATTRIBUTE)
        wanted = settings.spacing_mm
        steps = (wanted[0] / spacing_mm[0], wanted[1] / spacing_mm[1])
        return Axis.with_step(shape[0], steps[0]), Axis.with_step(shape[1], steps[1]), (wanted[0], wanted[1])
    known = spacing_mm or (0.0, 0.0)
    mm = spacing_mm or (1.0, 1.0)
    # The larger of the two ratios decides, so that the whole picture fits and proportions stay.
    step_mm = max(shape[0] * mm[0] / settings.size_px[0], shape[1] * mm[1] / settings.size_px[1])
    rows = Axis(0.0, shape[0], max(1, round(shape[0] * mm[0] / step_mm)))
    columns = Axis(0.0, shape[1], max(1, round(shape[1] * mm[1] / step_mm)))
    return rows, columns, (known[0] * shape[0] / rows.count, known[1] * shape[1] / columns.count)


def verdict(work: Callable[[], None]) -> RejectCode | None:
    """Run ``work`` and return why it failed, or None: the one net around everything that touches a file.

    pydicom converts values lazily, so ``.get()`` may raise NotImplementedError or BytesLengthException long after
    parsing; Rust code panics as BaseException. No text of any exception is kept.
    """
    try:
        with np.errstate(all="ignore"):
            work()
    except Rejected as rejected:
        return rejected.code
    except MemoryError:
        return RejectCode.MEMORY
    except RecursionError:
        return RejectCode.NESTING
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001
        return RejectCode.PARSE
    return None
