"""Reading a settings file of one party: TOML, small, checked as a whole, refused with the place of the mistake."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from common.errors import FedwardError, NotTomlError
from common.files import read_text, toml_document

Settings = TypeVar("Settings", bound=BaseModel)


def read_settings(
    path: Path, kind: type[Settings], *, max_bytes: int, refusal: type[FedwardError], advice: str
) -> Settings:
    """Read a settings file of ``kind``; unknown keys and bad values are refused, never ignored.

    ``refusal``: raised for them, with file, place, what is wrong, and ``advice`` (what to do).
    Raises: ``refusal``, NotTomlError, FileUnreadableError, FileTooLargeError, NotUtf8Error.
    """
    try:
        return kind.model_validate(toml_document(read_text(path, max_bytes)))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise refusal(f"{path}: {place}: {problem['msg'].lower()}; {advice}") from None
    except (ValueError, RecursionError) as error:  # also of a number with thousands of digits
        raise NotTomlError(f"{path}: not TOML: {str(error)[:200]}") from None
