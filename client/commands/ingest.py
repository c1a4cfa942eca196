"""fedward-site ingest: from a read-only folder of scans to the encrypted cache."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from client.commands.computing import compute_for_approved
from client.commands.ingest_options import (
    DecidedByOption,
    EncodingOption,
    EraseMissingOption,
    LabelsOption,
    MapOption,
    PersonFromOption,
    PlaceholderOption,
    PlanOption,
    SamePersonsOption,
    WholeUltrasoundOption,
)
from client.commands.site_options import (
    CacheOption,
    SecretFileOption,
    SiteFolderOption,
    secret_and_cache,
    settings_from,
)
from client.consent.continuity.losses import require_opt_outs
from client.consent.continuity.opting_out import keep_opt_outs
from client.dicom.cache_folder import HEADER, open_folder, open_or_create
from client.dicom.errors import LabelsInvalidError, NothingUsableError
from client.dicom.ingest import ingest as run_ingest
from client.dicom.label_words import is_of_segments
from client.dicom.person_decisions import decided, load_rules
from client.dicom.person_rules import PersonRules
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.report import IngestReport, Progress
from client.dicom.settings import IngestSettings
from client.features.leaving import forget_features
from client.installation.audit_log import audit
from client.installation.config import read_site_config
from client.installation.folder import SiteFolder
from common.plan.errors import PlanInvalidError
from common.terminal import JsonOption, errors, output, print_json


def ingest(
    source: Annotated[Path, typer.Argument(help="Folder with scans; it is only read.")],
    *,
    plan: PlanOption = None,
    labels: LabelsOption = None,
    label_encoding: EncodingOption = "utf-8",
    meanings: MapOption = None,
    site_folder: SiteFolderOption = None,
    secret_file: SecretFileOption = None,
    cache: CacheOption = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes that read scans.")] = 1,
    erase_missing: EraseMissingOption = False,
    person_from: PersonFromOption = None,
    placeholder: PlaceholderOption = None,
    whole_ultrasound: WholeUltrasoundOption = False,
    decided_by: DecidedByOption = "",
    same_persons: SamePersonsOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count and report only; write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read scans into the encrypted cache: only what is new, bad files counted by code, identifiers left behind.

    Example: `fedward-site ingest /srv/dicom --plan study.toml --labels labels.csv --site-folder site/`
    """
    secret, cache_path = secret_and_cache(site_folder, secret_file, cache)
    settings = _settings(plan, cache_path, secret)
    rules = decided(
        former=_former_rules(cache_path, secret),
        person_from=person_from,
        placeholders=placeholder or [],
        decided_by=decided_by,
        whole_ultrasound=whole_ultrasound,
        same_persons=same_persons,
        names=Pseudonyms.of_site(secret),
    )
    written = SiteFolder(site_folder) if site_folder and not dry_run else None
    _keep_opt_outs(written, cache_path, secret, settings)
    with watching(hidden=not errors.is_terminal or as_json) as show:
        report = run_ingest(
            source,
            cache_path,
            settings=settings,
            secret=secret,
            labels=labels,
            workers=workers,
            progress=show,
            dry_run=dry_run,
            label_encoding=label_encoding,
            erase_missing=erase_missing,
            rules=rules,
            label_meanings=_meanings(site_folder, labels, meanings),
        )
    _note_decision(site_folder if decided_by and not dry_run else None, rules)
    _finish(report, written, as_json=as_json)


def _keep_opt_outs(folder: SiteFolder | None, cache: Path, secret: bytes, settings: IngestSettings) -> None:
    """Bring the site's list of who opted out and the cache's up to each other; nobody is read without the list."""
    if folder is not None:
        require_opt_outs(folder)
        keep_opt_outs(folder, open_or_create(cache, secret, settings))


def _finish(report: IngestReport, folder: SiteFolder | None, *, as_json: bool) -> None:
    """Bring features up to what is here now, print the report, and refuse one of which nothing can be used."""
    computed = _features(folder, quiet=as_json)
    print_json(report.to_json() | computed) if as_json else _print(report)
    _refuse_useless(report)


def _features(folder: SiteFolder | None, *, quiet: bool) -> dict[str, Any]:
    """Let features of scans that are gone go, and compute those that approved plans lack; return what to report."""
    if folder is None:
        return {}
    forget_features(folder)
    computed = compute_for_approved(folder, quiet=quiet)
    return {"features_computed": computed} if computed else {}


def _note_decision(site_folder: Path | None, rules: PersonRules) -> None:
    if site_folder is None:
        return
    entry = {"what": "persons decided", "person_from": rules.person_from.value, "person": rules.decided_by}
    audit(SiteFolder(site_folder), entry | {"time": int(time.time())})


def _refuse_useless(report: IngestReport) -> None:
    if report.no_label_fits:
        raise LabelsInvalidError(
            f"none of {report.label_rows['rows']} rows of the label table names a scan that is here, so no label was "
            "changed; is it the table of these scans, and the right column?"
        )
    if not report.is_usable:
        raise NothingUsableError(
            f"none of {report.files_found} files can be used; see the codes above and docs/scans.md"
        )


SHOWN = (
    "files_found",
    "files_read",
    "accepted",
    "records",
    "records_without_file",
    "records_out_of_sight",
    "patients",
    "labelled_patients",
)


def _former_rules(cache: Path, secret: bytes) -> PersonRules:
    if not (cache / HEADER).is_file():
        return PersonRules()
    folder = open_folder(cache, secret)
    return load_rules(folder.path, folder.vault)


def _meanings(site_folder: Path | None, labels: Path | None, given: list[str] | None) -> tuple[str, ...]:
    """Return what the hospital's headers and words mean: as given now, else as site.toml says."""
    if given:
        if labels is None and not all(map(is_of_segments, given)):
            raise LabelsInvalidError("--map explains a label table; give it with --labels")
        return tuple(given)
    if site_folder is None or not SiteFolder(site_folder).config.is_file():
        return ()
    known = read_site_config(SiteFolder(site_folder).config).labels.map
    return known if labels is not None else tuple(filter(is_of_segments, known))


def _settings(plan: Path | None, cache: Path, secret: bytes) -> IngestSettings:
    """Take the settings from the plan, or else from the cache that exists already."""
    if plan is not None:
        return settings_from(plan)
    if (cache / HEADER).is_file():
        return open_folder(cache, secret).settings
    raise PlanInvalidError("a new cache needs to know task and image size: give --plan study.toml")


@contextmanager
def watching(*, hidden: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Show a progress bar on standard error while a person watches; yields what is to be told about progress."""
    if hidden:
        yield None
        return
    counts = TextColumn("[green]{task.fields[accepted]} taken[/] [yellow]{task.fields[rejected]} not[/]")
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), counts, TimeRemainingColumn())
    with ProgressBar(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("reading scans", total=None, accepted=0, rejected=0)

        def show(now: Progress) -> None:
            bar.update(task, total=now.total, completed=now.done, accepted=now.accepted, rejected=now.rejected)

        yield show


def _print(report: IngestReport) -> None:
    table = Table("what", "count", title="ingest, dry run" if report.dry_run else "ingest", title_justify="left")
    facts: dict[str, Any] = report.to_json()
    for name in SHOWN:
        table.add_row(name.replace("_", " "), str(facts[name]))
    for code, count in facts["rejected"].items():
        table.add_row(f"not taken: {code}", str(count))
    for code, count in facts["masks_refused"].items():
        table.add_row(f"masks not taken: {code}", str(count))
    for name, count in facts["persons"].items():
        table.add_row(f"persons: {name.replace('_', ' ')}", str(count))
    for name, count in facts["label_rows"].items():
        table.add_row(f"label rows: {name}", str(count))
    output.print(table)
