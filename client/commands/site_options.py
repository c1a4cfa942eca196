"""Options that several site commands share: where secret and cache lie, and what a cache is made for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from client.dicom.caches import Preparation, cache_for, caches, preparation
from client.dicom.settings import IngestSettings, settings_for
from client.installation.folder import SiteFolder
from common.errors import FileUnreadableError, NotTomlError
from common.files import read_text, toml_document
from common.plan.errors import PlanInvalidError
from common.plan.task import Image, Task
from common.trust.identity import read_secret_file

MAX_PLAN_BYTES = 1 << 20

SiteFolderOption = Annotated[
    Path | None,
    typer.Option("--site-folder", envvar="FEDWARD_SITE", help="The site folder, with site.secret and all caches."),
]
SecretFileOption = Annotated[Path | None, typer.Option("--secret-file", help="The site secret (32 bytes, mode 0600).")]
CacheOption = Annotated[Path | None, typer.Option("--cache", help="A cache folder elsewhere; the site finds its own.")]


def secret_and_caches(
    site_folder: Path | None, secret_file: Path | None, cache: Path | None
) -> tuple[bytes, list[Path]]:
    """Return the site secret and the caches that are meant; single options win over the site folder.

    Of a site folder all caches, or the place of its first where there is none yet.
    Raises: FileUnreadableError when neither says where, KeyExposedError, KeyInvalidError.
    """
    secret_path = secret_file or (SiteFolder(site_folder).secret if site_folder else None)
    if secret_path is None or (cache is None and site_folder is None):
        raise FileUnreadableError("where are secret and cache? give --site-folder, or --secret-file and --cache")
    secret = read_secret_file(secret_path)
    if cache is not None or site_folder is None:
        return secret, [cache] if cache is not None else []
    folder = SiteFolder(site_folder)
    return secret, caches(folder) or [folder.cache]


def cache_to_read_into(
    site_folder: Path | None, secret_file: Path | None, cache: Path | None, settings: IngestSettings | None
) -> tuple[bytes, Path]:
    """Return the site secret and the one cache that scans are read into. ``settings``: of the plan, if one is given.

    Raises: as ``secret_and_caches``; PlanInvalidError where several caches are here and nothing says which.
    """
    secret, paths = secret_and_caches(site_folder, secret_file, cache)
    if cache is None and site_folder is not None and settings is not None:
        return secret, cache_for(SiteFolder(site_folder), settings)
    if len(paths) > 1 and site_folder is not None:
        known = "; ".join(f"{each.name}: {each.words}" for each in preparations(site_folder, paths))
        raise PlanInvalidError(
            f"images are prepared in {len(paths)} ways here ({known}), each for its own studies and with its own "
            "labels: say for which study with --plan, once for each"
        )
    return secret, paths[0]


def preparations(site_folder: Path | None, paths: Sequence[Path]) -> list[Preparation]:
    """Describe caches; by their whole path where they belong to no site folder."""
    return [preparation(SiteFolder(site_folder or Path()), path) for path in paths]


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


def study_name(plan: Path | None) -> str:
    """Return the study's name of a plan, "" of a draft without one, or of no plan."""
    named = parsed_toml(plan).get("study", {}) if plan is not None else {}
    name = named.get("name", "") if isinstance(named, dict) else ""
    return name if isinstance(name, str) else ""


def parsed_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file as plain values. Raises: NotTomlError, and what reading raises."""
    text = read_text(path, MAX_PLAN_BYTES)
    try:
        return toml_document(text)
    except (ValueError, RecursionError) as error:  # also of a number with thousands of digits
        raise NotTomlError(f"{path}: not valid TOML ({str(error)[:200]})") from None
