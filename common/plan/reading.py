"""From a TOML file to a study plan, or to one sentence that says what is wrong and what to write instead."""

import difflib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from common.errors import FedwardError, NotTomlError
from common.files import read_text, toml_document
from common.plan.errors import PlanInvalidError, PlanUnknownKeyError
from common.plan.plan import StudyPlan
from common.plan.thresholds import check_thresholds

MAX_PLAN_BYTES = 256 * 1024
MAX_SHOWN_CHARACTERS = 60


def read_plan(path: Path) -> StudyPlan:
    """Read, parse and check a study plan: form, bounds, thresholds (the guarantee itself: ``guarantee.py``).

    Raises: FileUnreadableError, FileTooLargeError, NotUtf8Error, NotTomlError, PlanUnknownKeyError, PlanInvalidError,
    PlanWeakPrivacyError, PlanWeakThresholdError; each with the place in the file, the value and the limit.
    """
    text = read_text(path, MAX_PLAN_BYTES)
    try:
        document = toml_document(text)
    except (ValueError, RecursionError) as error:
        raise NotTomlError(f"{path}: not TOML: {str(error)[:200]}") from None
    return parse_plan(document, str(path))


def parse_plan(document: dict[str, Any], source: str) -> StudyPlan:
    """Turn plain values into a checked plan; ``source`` names them in messages. Raises as ``read_plan``."""
    try:
        plan = StudyPlan.model_validate(document)
    except ValidationError as error:
        raise complaint(error, source) from None
    check_thresholds(plan, source)
    return plan


def complaint(error: ValidationError, source: str) -> FedwardError:
    """Return the error of words that are no plan: the most helpful problem, and how many more there are."""
    # an unknown key explains a missing one
    ordered = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
    problem = ordered[0]
    more = f" ({len(ordered) - 1} more problems after this one)" if len(ordered) > 1 else ""
    place = _place(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return PlanUnknownKeyError(f"{source}: {place} is not a key of a plan{_nearest(problem['loc'])}{more}")
    if problem["type"] == "missing":
        return PlanInvalidError(f"{source}: {place} is missing; add it{more}")
    if problem["type"] == "value_error":
        reason = str(problem["ctx"]["error"])
        return PlanInvalidError(f"{source}: {place + ': ' if place else ''}{reason}{more}")
    shown = repr(problem["input"])[:MAX_SHOWN_CHARACTERS]
    wanted = problem["msg"][0].lower() + problem["msg"][1:]
    return PlanInvalidError(f"{source}: {place} is {shown}, {wanted}{more}")


def _place(location: tuple[int | str, ...]) -> str:
    """``("phases", 0, "rounds")`` -> ``phases[0].rounds``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"[:MAX_SHOWN_CHARACTERS]
    return text.removeprefix(".")


def _nearest(location: tuple[int | str, ...]) -> str:
    """Name the valid key that looks most like the unknown one, and else all of them."""
    names = _keys_at(StudyPlan, location[:-1])
    close = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; valid here: {', '.join(names)}"


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation)
    return sorted(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel]:
    """The plan part inside an annotation: itself, or the element of a tuple of parts."""
    while not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        annotation = annotation.__args__[0]
    return annotation
