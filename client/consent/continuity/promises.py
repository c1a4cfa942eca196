"""What a study promised its patients, found again when the ledger is lost: in the audit log, or in the plan."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from client.consent.continuity.traces import AuditTraces
from client.installation.folder import SiteFolder
from client.ledger.budget import Charge, read_charges
from client.ledger.study_charges import planned_events
from client.ledger.terms import promised
from common.errors import FedwardError
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan

Promise = tuple[list[Charge], float]


def plan_known_here(folder: SiteFolder, study: str) -> StudyPlan | None:
    """Return the plan with that digest, approved here or taken back; None where its file is gone or another's."""
    for file in (folder.plan(study), folder.withdrawn_plan(study)):
        try:
            plan = read_plan(file)
        except FedwardError:
            continue
        if plan.digest() == study:
            return plan
    return None


def is_private(folder: SiteFolder, study: str, audit: AuditTraces | None) -> bool:
    """Say whether a study promises its patients privacy; yes, where nothing is known of it."""
    known = (audit.promises if audit else {}).get(study)
    if known is not None:
        return bool(known["promise"])
    plan = plan_known_here(folder, study)
    return plan is None or plan.privacy.delta is not None


def promises_of(
    folder: SiteFolder, studies: Iterable[str], audit: AuditTraces, plan_files: Iterable[Path]
) -> tuple[dict[str, Promise], list[str]]:
    """Return what each study promised, and the studies that nobody knows the promise of.

    ``plan_files``: plans that somebody brought back, for studies whose file is gone. Studies without privacy are left
    out. Raises: what reading a plan raises.
    """
    brought = {plan.digest(): plan for plan in map(read_plan, plan_files)}
    found: dict[str, Promise] = {}
    missing = []
    for study in sorted(studies):
        plan = brought.get(study) or plan_known_here(folder, study)
        if study in audit.promises:
            promise = _written(audit.promises[study])
        elif plan is not None:
            promise = (promised(planned_events(plan)), plan.privacy.delta or 0.0)
        else:
            missing.append(study)
            continue
        if promise[0]:
            found[study] = promise
    return found, missing


def _written(line: Mapping[str, object]) -> Promise:
    delta = line["delta"]
    return read_charges(line["promise"]), float(delta) if isinstance(delta, int | float) else 0.0
