"""onnxruntime without its telemetry. To be imported in the fenced process only (``client.features.encoder``).

Release 1.31 creates a database and a device identifier under ``~/.cache/Microsoft`` and starts an uploader *while it is
imported*; ``disable_telemetry_events()`` comes too late for that. The environment variable prevents all three.
"""

import os
from typing import Final

TELEMETRY_OFF: Final = {"ORT_DISABLE_TELEMETRY": "1"}

os.environ.update(TELEMETRY_OFF)

import onnxruntime  # noqa: E402 (after the variable that it reads while it is imported)

onnxruntime.disable_telemetry_events()  # whatever a build that does not know the variable would report later

__all__ = ["onnxruntime"]
