"""What a patient's record must look like to be trained on; one that does not is worked with as an empty one.

A label outside of the plan's classes would raise, or on a GPU end the process that trains: visible, and so forbidden.
"""

import torch

from client.learning.patients import ROW_AXES, UNKNOWN, PatientScans
from client.learning.training_settings import Task, TrainingSettings


def has_form(scans: PatientScans, settings: TrainingSettings, shape: tuple[int, ...] | None) -> bool:
    """Tell whether images and labels have the shapes of ``PatientScans`` and labels name classes of the plan.

    ``shape``: of an image, (channels, height, width) or (channels, depth, height, width), or (rows, features) of an
    encoder; None where nobody knows it (an image of one channel then).
    """
    images, labels = scans.images, scans.labels
    if labels.dtype != torch.int64 or scans.are_features != (shape is not None and len(shape) == ROW_AXES):
        return False
    if shape is None and (images.ndim != 2 + settings.dimensions or images.shape[1] != 1):
        return False
    if shape is not None and tuple(images.shape[1:]) != shape:
        return False
    shapes: dict[Task, tuple[int, ...]] = {
        Task.CLASSIFICATION: (),
        Task.MULTI_LABEL: (settings.classes,),
        Task.SEGMENTATION: tuple(images.shape[2:]),
    }
    if tuple(labels.shape) != (len(images), *shapes[settings.task]):
        return False
    classes = 2 if settings.task is Task.MULTI_LABEL else settings.classes
    return bool(((labels >= UNKNOWN) & (labels < classes)).all())
