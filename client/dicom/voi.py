"""The file's own look at its grey values: window, sigmoid or table (VOI LUT), for ``intensity = "voi_lut"``.

The result lies in [0, 1]. With any other intensity the plan's rule takes the place of the file's window.
Source: PS3.3 section C.11.2.
"""

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from client.dicom.attributes import number, value_of, word
from client.dicom.image_module import ImageModule
from client.dicom.lookup import table_of
from client.dicom.reject import RejectCode, Rejected

Values = npt.NDArray[np.float32]


def with_voi_lut(dataset: Dataset, module: ImageModule, group: Dataset | None, values: Values) -> Values:
    """Apply the first VOI table, else the first window, of a frame's functional group or of the top level.

    Shapes: values (rows, columns), rescaled, not yet turned; the result the same, in [0, 1].
    Raises: Rejected(voi_lut) when the image has none, or one of no width.
    """
    source = group or dataset
    tables = value_of(source, "VOILUTSequence")
    if tables:
        return _looked_up(tables[0], values, signed=module.signed, little=dataset.original_encoding[1] is not False)
    centre, width = _first(source, "WindowCenter"), _first(source, "WindowWidth")
    function = word(source, "VOILUTFunction") or "LINEAR"
    if centre is None or width is None or function not in FUNCTIONS or not width > (function == "LINEAR"):
        raise Rejected(RejectCode.VOI_LUT)
    return _unit(FUNCTIONS[function](values, centre, width))


def _looked_up(item: Dataset, values: Values, *, signed: bool, little: bool) -> Values:
    try:
        table = table_of(value_of(item, "LUTDescriptor"), value_of(item, "LUTData"), signed=signed, little=little)
    except Rejected:
        raise Rejected(RejectCode.VOI_LUT) from None
    entries = table.looked_up(np.rint(values).astype(np.int64))
    return _unit(entries.astype(np.float32) / np.float32((1 << table.bits) - 1))


def _first(source: Dataset, keyword: str) -> float | None:
    """Return the first of several windows (a reader's default), or None."""
    value = value_of(source, keyword)
    if isinstance(value, MultiValue):
        single = Dataset()
        setattr(single, keyword, value[0] if value else None)
        source = single
    return None if value_of(source, keyword) in (None, "") else number(source, keyword, 0.0)


def _linear(values: Values, centre: float, width: float) -> Values:
    return (values - np.float32(centre - 0.5)) / np.float32(width - 1) + np.float32(0.5)


def _linear_exact(values: Values, centre: float, width: float) -> Values:
    return (values - np.float32(centre)) / np.float32(width) + np.float32(0.5)


def _sigmoid(values: Values, centre: float, width: float) -> Values:
    turned: Values = np.exp(np.float32(-4) * (values - np.float32(centre)) / np.float32(width))
    return np.float32(1) / (np.float32(1) + turned)


def _unit(values: Values) -> Values:
    cut: Values = np.clip(values, 0, 1).astype(np.float32, copy=False)
    return cut


FUNCTIONS = {"LINEAR": _linear, "LINEAR_EXACT": _linear_exact, "SIGMOID": _sigmoid}
