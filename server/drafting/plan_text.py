"""A plan as TOML for people, which reads back as the same plan."""

import json
from collections.abc import Mapping
from typing import Any

from common.plan.plan import StudyPlan


def plan_toml(plan: StudyPlan, comments: Mapping[str, str] | None = None) -> str:
    """Return a plan as TOML that reads back as the same plan. ``comments``: by place, as ``phases.clipping_norm``.

    A comment stands where its place comes first.
    """
    return toml_text(plan.model_dump(mode="json"), comments)


def toml_text(values: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """Return plain values as TOML; None is left out. ``comments``: as for a plan."""
    return "\n".join(_toml_lines(values, "", dict(comments or {}))) + "\n"


def _toml_lines(values: Mapping[str, Any], place: str, comments: dict[str, str]) -> list[str]:
    """Return the lines of one table: plain values first, then tables, then lists of tables."""
    known = {key: value for key, value in values.items() if value is not None}
    lines = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}{_comment(comments, place + key)}"
        for key, value in known.items()
        if not _is_table(value)
    ]
    for key, value in known.items():
        name = f"{place}{key}"
        if isinstance(value, dict):
            lines += ["", f"[{name}]", *_toml_lines(value, f"{name}.", comments)]
        elif _is_table(value):
            for row in value:
                lines += ["", f"[[{name}]]", *_toml_lines(row, f"{name}.", comments)]
    return lines


def _comment(comments: dict[str, str], place: str) -> str:
    text = comments.pop(place, "")
    return f"  # {text}" if text else ""


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))
