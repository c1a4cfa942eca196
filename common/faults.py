"""What may be said of an unexpected exception: its kind and its place in our code, never its text.

Texts of exceptions hold values, and values come from scans, label tables and the network.
"""

from pathlib import Path


def fault_without_text(error: BaseException) -> str:
    """Return for example ``KeyError at training.py:120``: the innermost frame of the exception's traceback."""
    place = "an unknown place"
    trace = error.__traceback__
    while trace is not None:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {place}"
