"""Options that several site commands share: where secret and cache lie, and what a cache is made for."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from client.dicom.settings import IngestSettings, settings_for
from client.installation.folder import SiteFolder
from common.errors import FileUnreadableError, NotTomlError
from common.files import read_text, toml_document
from common.plan.errors import PlanInvalidError
from common.plan.task import Image, Task
from common.trust.identity import read_secret_file

MAX_PLAN_BYTES = 1 << 20

SiteFolderOption = Annotated[
    Path | None, typer.Option("--site-folder", help="The site folder, with site.secret and cache/.")
]
SecretFileOption = Annotated[Path | None, typer.Option("--secret-file", help="The site secret (32 bytes, mode 0600).")]
CacheOption = Annotated[Path | None, typer.Option("--cache", help="The cache folder.")]


def secret_and_cache(site_folder: Path | None, secret_file: Path | None, cache: Path | None) -> tuple[bytes, Path]:
    """Return the site secret and the cache folder; single options win over the site folder.

    Raises: FileUnreadableError when neither says where, KeyExposedError, KeyInvalidError.
    """
    secret_path = secret_file or (SiteFolder(site_folder).secret if site_folder else None)
    cache_path = cache or (SiteFolder(site_folder).cache if site_folder else None)
    if secret_path is None or cache_path is None:
        raise FileUnreadableError("where are secret and cache? give --site-folder, or --secret-file and --cache")
    return read_secret_file(secret_path), cache_path


def settings_from(plan: Path) -> IngestSettings:
    """Read [task] and [image] of a study plan; the rest of the file may still be missing.

    Raises: NotTomlError, PlanInvalidError, FileUnreadableError, FileTooLargeError, NotUtf8Error.
    """
    try:
        document = parsed_toml(plan)
        return settings_for(Task.model_validate(document["task"]), Image.model_validate(document["image"]))
    except (KeyError, TypeError) as error:
        raise PlanInvalidError(f"{plan}: has no section {error.args[0]!s:.60}; [task] and [image] are needed") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise PlanInvalidError(f"{plan}: {place}: {first['msg']}") from None


def parsed_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file as plain values. Raises: NotTomlError, and what reading raises."""
    text = read_text(path, MAX_PLAN_BYTES)
    try:
        return toml_document(text)
    except (ValueError, RecursionError) as error:  # also of a number with thousands of digits
        raise NotTomlError(f"{path}: not valid TOML ({str(error)[:200]})") from None
