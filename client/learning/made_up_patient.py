"""A patient who does not exist, for whatever is tried before the first real one: scans of the right form, no more."""

import torch

from client.dicom.record import Stratum
from client.learning.patients import ROW_AXES, UNKNOWN, PatientScans
from client.learning.training_settings import Task, TrainingSettings


def made_up_scans(settings: TrainingSettings, input_shape: tuple[int, ...], stratum: Stratum) -> PatientScans:
    """Return one scan, public random numbers in [0, 1), with a label in the labelled stratum.

    ``input_shape``: (channels, *size) of an image, or (rows, features) of what an encoder made of it.
    """
    image = torch.rand(1, *input_shape, generator=torch.Generator().manual_seed(0))
    label = 0 if stratum is Stratum.LABELLED else UNKNOWN
    shape: tuple[int, ...] = (1,)
    if settings.task is Task.SEGMENTATION:
        shape = (1, *input_shape[1:])
    elif settings.task is Task.MULTI_LABEL:
        shape = (1, settings.classes)
    return PatientScans(image, torch.full(shape, label, dtype=torch.int64), are_features=len(input_shape) == ROW_AXES)
