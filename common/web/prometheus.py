"""Metrics as Prometheus reads them: text format 0.0.4, names ``fedward_*``. Counts and states; no person, path or text.

Source: prometheus.io, "Exposition formats", version 0.0.4.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_NAME: Final = re.compile(r"fedward_[a-z][a-z0-9_]*")
_LABEL: Final = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Metric:
    """One metric: its samples as (labels, value). A counter's name ends in ``_total``."""

    name: str
    meaning: str
    kind: Literal["counter", "gauge"]
    samples: Sequence[tuple[Mapping[str, str], float]]


def exposition(metrics: Sequence[Metric]) -> str:
    """Return the metrics as text; those without a sample are left out.

    Raises: ValueError for a name or label that is not allowed, or a counter that is not called ``_total``.
    """
    lines = []
    for metric in metrics:
        _check(metric)
        if metric.samples:
            lines += [f"# HELP {metric.name} {_escaped(metric.meaning)}", f"# TYPE {metric.name} {metric.kind}"]
            lines += [f"{metric.name}{_labels(labels)} {_number(value)}" for labels, value in metric.samples]
    return "".join(line + "\n" for line in lines)


def _check(metric: Metric) -> None:
    names = [name for labels, _ in metric.samples for name in labels]
    if not _NAME.fullmatch(metric.name) or not all(_LABEL.fullmatch(name) for name in names):
        raise ValueError(f"{metric.name}: metric or label with a name that is not allowed")
    if (metric.kind == "counter") is not metric.name.endswith("_total"):
        raise ValueError(f"{metric.name}: counters, and only they, end in _total")


def _labels(labels: Mapping[str, str]) -> str:
    shown = ",".join(f'{name}="{_escaped(value, quote=True)}"' for name, value in labels.items())
    return f"{{{shown}}}" if shown else ""


def _escaped(text: str, *, quote: bool = False) -> str:
    plain = text.replace("\\", r"\\").replace("\n", r"\n")
    return plain.replace('"', r"\"") if quote else plain


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value)) if value != int(value) else str(int(value))
