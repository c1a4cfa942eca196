"""fedward-site ingest: from a read-only folder of scans to the encrypted cache."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
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
    cache_to_read_into,
    preparations,
    settings_from,
    study_name,
)
from client.consent.continuity.losses import require_opt_outs
from client.consent.continuity.opting_out import keep_opt_outs
from client.consent.decided_persons import rules_for, share_rules
from client.dicom.cache_folder import HEADER, open_folder, open_or_create
from client.dicom.errors import LabelsInvalidError, NothingUsableError
from client.dicom.ingest import ingest as run_ingest
from client.dicom.label_words import is_of_segments, of_study
from client.dicom.person_decisions import decided
from client.dicom.person_rules import PersonRules
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.report import IngestReport, Progress
from client.dicom.settings import IngestSettings
from client.features.leaving import forget_features
from client.installation.audit_log import audit
from client.installation.config import read_site_config
from client.installation.folder import SiteFolder
from common.plan.errors import PlanInvalidError
from common.plan.task import TaskKind
from common.terminal import JsonOption, errors, output, print_json, printable


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

    Studies that prepare images in another way (size, window, modality, classes) have a cache each in the site folder,
    which is found, or made, by the plan; once there are several, every ingest names one with --plan.

    Example: `fedward-site ingest /srv/dicom --plan study.toml --labels labels.csv --site-folder site/`
    """
    secret, cache_path, settings = _place(plan, site_folder, secret_file, cache)
    rules = decided(
        former=rules_for(SiteFolder(site_folder) if site_folder else None, cache_path, secret),
        person_from=person_from,
        placeholders=placeholder or [],
        decided_by=decided_by,
        whole_ultrasound=whole_ultrasound,
        same_persons=same_persons,
        names=Pseudonyms.of_site(secret),
    )
    written = SiteFolder(site_folder) if site_folder and not dry_run else None
    is_decision = bool(person_from or placeholder or whole_ultrasound or same_persons)
    _make_ready(written, cache_path, secret, settings, rules if is_decision else None)
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
            label_meanings=_meanings(site_folder, labels, meanings, settings),
        )
    computed = _finish(written, cache_path, rules if decided_by else None, quiet=as_json)
    _show(report, computed | _kept(plan, site_folder, cache_path, settings), as_json=as_json)


def _place(
    plan: Path | None, site_folder: Path | None, secret_file: Path | None, cache: Path | None
) -> tuple[bytes, Path, IngestSettings]:
    """Return the site secret, the cache to read into, and what it is for: as the plan says, or as it was made."""
    wanted = settings_from(plan) if plan is not None else None
    secret, path = cache_to_read_into(site_folder, secret_file, cache, wanted)
    return secret, path, wanted or _settings_of(path, secret)


def _make_ready(
    folder: SiteFolder | None, cache: Path, secret: bytes, settings: IngestSettings, decision: PersonRules | None
) -> None:
    """Bring the site's list of who opted out and that of each cache up to each other; nobody is read without the list.

    ``decision``: about persons, which every other cache is told too.
    """
    if folder is None:
        return
    require_opt_outs(folder)
    open_or_create(cache, secret, settings)
    untold = share_rules(folder, decision, secret, but=cache) if decision else {}
    spread = keep_opt_outs(folder, open_folder(cache, secret))
    spread.require(cache)
    for path, error in (untold | spread.failed).items():
        name = preparations(folder.path, [path])[0].name
        errors.print(f"note: {name} was left as it is: {error}", markup=False)


def _finish(folder: SiteFolder | None, cache: Path, decision: PersonRules | None, *, quiet: bool) -> dict[str, Any]:
    """Note who decided about persons, let go of whom the scans show to have opted out, and bring features up to date.

    Features of scans that are gone go too; those that approved plans lack are computed.
    """
    if folder is None:
        return {}
    if decision is not None:
        entry = {"what": "persons decided", "person_from": decision.person_from.value, "person": decision.decided_by}
        audit(folder, entry | {"time": int(time.time())})
    keep_opt_outs(folder)
    forget_features(folder)
    computed = compute_for_approved(folder, cache, quiet=quiet)
    return {"features_computed": computed} if computed else {}


def _kept(plan: Path | None, site_folder: Path | None, cache: Path, settings: IngestSettings) -> dict[str, Any]:
    """Return where the records are kept, for which images and studies, and what room that takes."""
    [known] = preparations(site_folder, [cache])
    return {"study": study_name(plan), **replace(known, settings=settings).facts()}


def _show(report: IngestReport, kept: dict[str, Any], *, as_json: bool) -> None:
    """Print the report, and refuse one of which nothing can be used."""
    print_json(report.to_json() | kept) if as_json else _print(report, kept)
    _refuse_useless(report)


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


def _meanings(
    site_folder: Path | None, labels: Path | None, given: list[str] | None, settings: IngestSettings
) -> tuple[str, ...]:
    """Return what the hospital's headers and words mean: as given now, else as site.toml says of the table it names.

    A second study has a table of its own, which ``--map`` explains.
    """
    if given:
        if labels is None and not all(map(is_of_segments, given)):
            raise LabelsInvalidError("--map explains a label table; give it with --labels")
        return tuple(given)
    if site_folder is None or not SiteFolder(site_folder).config.is_file():
        return ()
    config = read_site_config(SiteFolder(site_folder).config)
    own = config.data.labels
    is_own = labels is not None and (not own or labels.resolve() == Path(own).resolve())
    known = config.labels.map if is_own else tuple(filter(is_of_segments, config.labels.map))
    return of_study(known, settings.classes, has_segments=settings.kind is TaskKind.SEGMENTATION)


def _settings_of(cache: Path, secret: bytes) -> IngestSettings:
    """Take the settings from the cache that exists already, where no plan was given."""
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


def _print(report: IngestReport, kept: dict[str, Any]) -> None:
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
    study = f"study {kept['study']}: " if kept["study"] else ""
    place = "would lie" if report.dry_run else f"{kept['cache_bytes'] / 1e6:.1f} MB lie"
    output.print(printable(f"{study}{place} in {kept['cache']}, which is for {kept['images']}"))
