"""From a TOML file to a scenario, or to one sentence that says what is wrong and what to write instead."""

import difflib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from common.errors import NotTomlError
from common.files import read_text, toml_document
from simulation.errors import ScenarioInvalidError
from simulation.study.scenario import Scenario

MAX_SCENARIO_BYTES = 256 * 1024
MAX_SHOWN_CHARACTERS = 60
SHIPPED = Path(str(files("simulation") / "scenarios"))


def find_scenario(name: str) -> Path:
    """Return the file of a scenario: a path, or the bare name of one that is shipped.

    Raises: ScenarioInvalidError with the nearest shipped name.
    """
    path = Path(name)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    shipped = {file.stem: file for file in sorted(SHIPPED.glob("*.toml"))}
    if name in shipped:
        return shipped[name]
    close = difflib.get_close_matches(name, shipped, n=1)
    advice = f"did you mean {close[0]}?" if close else f"shipped are: {', '.join(shipped)}"
    raise ScenarioInvalidError(f"{name[:MAX_SHOWN_CHARACTERS]}: no such file and no such scenario; {advice}")


def read_scenario(path: Path) -> Scenario:
    """Read and check a scenario.

    Raises: ScenarioInvalidError (place, value, limit), NotTomlError, FileUnreadableError, FileTooLargeError,
    NotUtf8Error.
    """
    text = read_text(path, MAX_SCENARIO_BYTES)
    try:
        document = toml_document(text)
    except (ValueError, RecursionError) as error:
        raise NotTomlError(f"{path}: not TOML: {str(error)[:200]}") from None
    return parse_scenario(document, str(path))


def parse_scenario(document: dict[str, Any], source: str) -> Scenario:
    """Turn plain values into a checked scenario; ``source`` names them in messages. Raises: ScenarioInvalidError."""
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        raise ScenarioInvalidError(f"{source}: {_sentence(error.errors(include_url=False))}") from None


def _sentence(problems: Sequence[ErrorDetails]) -> str:
    """The most helpful problem first (an unknown key explains a missing one), and how many more there are."""
    problem = min(problems, key=lambda found: found["type"] != "extra_forbidden")
    more = f" ({len(problems) - 1} more problems after this one)" if len(problems) > 1 else ""
    place = ".".join(str(part)[:MAX_SHOWN_CHARACTERS] for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{place} is not a key of a scenario{_nearest(problem['loc'])}{more}"
    if problem["type"] == "missing":
        return f"{place} is missing; add it{more}"
    if problem["type"] == "value_error":
        return f"{place + ': ' if place else ''}{problem['ctx']['error']}{more}"
    shown = repr(problem["input"])[:MAX_SHOWN_CHARACTERS]
    return f"{place} is {shown}, {problem['msg'][0].lower() + problem['msg'][1:]}{more}"


def _nearest(location: tuple[int | str, ...]) -> str:
    """Name the valid key that looks most like the unknown one, and else all of them."""
    model: type[BaseModel] = Scenario
    for part in location[:-1]:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation)
    names = sorted(model.model_fields)
    close = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; valid here: {', '.join(names)}"


def _model_in(annotation: Any) -> type[BaseModel]:
    """The section inside an annotation: itself, the element of a tuple, or the first of a union."""
    while not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        annotation = annotation.__args__[0]
    return annotation
