"""Computing features while a person watches: after a plan was approved, and after scans were read."""

from contextlib import suppress
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from client.dicom.caches import cache_of, caches
from client.dicom.errors import CacheInvalidError
from client.features.counting import amount_of_time, count_features
from client.installation.audit_log import standing_approvals
from client.installation.folder import SiteFolder
from client.trainer.feature_computing import compute_features
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan
from common.terminal import NowAndThen, errors


def compute_shown(folder: SiteFolder, plan: StudyPlan, *, quiet: bool) -> int | None:
    """Compute the features that a study lacks here, with a bar on standard error; None for a plan without an encoder.

    Returns for how many scans it was done. Ctrl-C loses nothing: the next call goes on.
    Raises: as ``compute_features`` and ``count_features``.
    """
    lacking = count_features(folder, plan) if caches(folder) else None
    if lacking is None or lacking.missing == 0:
        return None if lacking is None else 0
    if not quiet:
        known = f", about {amount_of_time(lacking.missing * lacking.scan_s)}" if lacking.scan_s else ""
        errors.print(
            f"computing features of {lacking.missing} scans{known}; it may be stopped at any time and goes on with the "
            "next `fedward-site approve` or `ingest`",
            markup=False,
        )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=quiet or not errors.is_terminal) as bar:
        task = bar.add_task("computing features", total=lacking.missing)
        lines = NowAndThen(quiet=quiet)

        def told(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)
            lines.tell(f"features of {done} of {of} scans")

        return compute_features(folder, plan, told)


def compute_for_approved(folder: SiteFolder, cache: Path, *, quiet: bool) -> dict[str, int]:
    """Compute what the approved plans of one cache lack of their encoders' features; return scans by plan digest.

    Raises: ChainBrokenError; as ``compute_shown``.
    """
    if not folder.audit.exists():
        return {}
    mine: dict[str, StudyPlan] = {}
    for digest in sorted(standing_approvals(folder)):
        if not folder.plan(digest).exists():
            continue
        plan = read_plan(folder.plan(digest))
        with suppress(CacheInvalidError):
            if cache_of(folder, plan) == cache:
                mine[digest] = plan
    computed = {digest: compute_shown(folder, plan, quiet=quiet) for digest, plan in mine.items()}
    return {digest: count for digest, count in computed.items() if count is not None}
