"""Approval: a named person of the hospital read the plan and said yes; only such plans can ever start anything.

Approving checks everything again (signature, roster, policy, guarantee, network), freezes the patients of the study,
copies plan and signature into the site folder under the plan's digest, and writes who approved what, and what it
promises, into the audit log. A plan is taken back by withdrawing the approval; its spent privacy stays in the ledger.
"""

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client.consent.confirmation import confirmed_sites
from client.consent.encoder_size import check_encoder_size
from client.consent.machine import require_memory, training_device
from client.consent.policy import check_policy, read_policy
from client.consent.strata import freeze_study
from client.dicom.caches import caches
from client.dicom.pseudonyms import secret_check
from client.errors import TrainerFailedError
from client.features.site_encoder import site_encoder
from client.installation.audit_log import audit, standing_approvals
from client.installation.errors import NotEnrolledError
from client.installation.folder import SiteFolder
from client.installation.public_images import read_public_images
from client.ledger.study_charges import planned_events
from client.ledger.terms import packed, promised
from common.errors import FedwardError
from common.files import replace_atomically
from common.plan.combinations import check_combinations
from common.plan.errors import PlanInvalidError
from common.plan.figure_file import figures_in
from common.plan.fitting import check_fit
from common.plan.guarantee import Guarantee, check_guarantee
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan
from common.plan.reply_slot import check_reply_slot
from common.plan.selection import check_selection
from common.plan.settings_read import check_settings_are_read
from common.plan.shape import Layouts, Shapes, ShapesOf, phase_layouts
from common.plan.shapes_here import shapes_here
from common.plan.signing import signature_path, verify_plan
from common.trust.identity import public_bytes, read_secret_file, read_signing_key
from common.trust.roster import Roster, read_roster

MAX_NAME_CHARACTERS: Final = 100

_log = logging.getLogger("fedward.site")


@dataclass(frozen=True, eq=False)
class ProposedPlan:
    """A plan that passed every check of this site.

    With the roster it names, this site's name in it, its price, and what its network makes of the phases.
    ``confirmed``: the hospitals of the roster that somebody here confirmed, and this one.
    """

    plan: StudyPlan
    roster: Roster
    site_id: str
    guarantee: Guarantee | None
    shapes: Layouts
    confirmed: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class CheckedPlan(ProposedPlan):
    """An approved plan that is ready to be worked on: its start weights were built and hashed too."""

    shapes: Shapes


def check_for_site(folder: SiteFolder, plan_file: Path) -> ProposedPlan:
    """Check a plan as this site sees it; neither PyTorch nor, where every patient is in every round, an accountant.

    In order: (1) form and thresholds, (2) the coordinator's signature, and whether the plan's parts go together, (3)
    the roster it names is the one installed here, and this site is in it under its own key, (4) the guarantee,
    recomputed, (5) network and lattice, (6) policy.

    Raises: NotEnrolledError, PlanInvalidError, PolicyRefusedError, and what reading, signature and guarantee raise.
    """
    folder.require()
    plan = read_plan(plan_file)
    roster = read_roster(folder.roster)
    verify_plan(plan, plan_file, roster.coordinator)
    check_combinations(plan, str(plan_file))
    if plan.study.roster_digest != roster.digest():
        raise PlanInvalidError(
            f"{plan_file}: made for roster {plan.study.roster_digest[:12]}…, here is {roster.digest()[:12]}…; "
            "install the roster of this study after confirming its fingerprints"
        )
    own_key = public_bytes(read_signing_key(folder.key).public_key())
    names = [name for name, key in roster.sites.items() if public_bytes(key) == own_key]
    listed = {site.name for site in plan.sites}
    if not names or names[0] not in listed or not listed <= set(roster.sites):
        raise NotEnrolledError(f"{plan_file}: this site's key is not in the roster, or its name is not in the plan")
    bought = check_guarantee(plan, str(plan_file))
    layouts = phase_layouts(plan)
    check_fit(plan, layouts, str(plan_file))
    policy = read_policy(folder.policy)
    check_policy(policy, plan, bought)
    check_encoder_size(folder, policy, plan)
    confirmed = confirmed_sites(folder, roster, names[0])
    return ProposedPlan(plan, roster, names[0], bought, layouts, confirmed)


def check_for_approval(folder: SiteFolder, plan_file: Path) -> ProposedPlan:
    """Check a plan that nobody here approved yet: as ``check_for_site``, its settings, reply slot and use of scores.

    Raises: as ``check_for_site``; PlanInvalidError.
    """
    checked = check_for_site(folder, plan_file)
    check_settings_are_read(checked.plan, str(plan_file))
    check_reply_slot(checked.plan, str(plan_file))
    check_selection(checked.plan, str(plan_file))
    require_memory(checked.plan, device=training_device(folder))
    return checked


def approve(folder: SiteFolder, plan_file: Path, *, approver: str) -> ProposedPlan:
    """Record that ``approver`` (a person's name) approves the plan; the plan is checked first and copied.

    The study's patients, strata and splits are frozen as they are in the plan's cache now, or, where the study began
    here before the cache was made again, as they were then. Doing it again only adds a line to the audit log.
    Raises: as ``check_for_approval``; PlanInvalidError for an empty or overlong name; CacheInvalidError, also where no
    cache was made for the plan's task and image format; StrataChangedError; what ``read_public_images`` raises when
    the plan names images that are not here, and ``site_encoder`` when it names an encoder.
    """
    require_name(approver)
    checked = check_for_approval(folder, plan_file)
    digest = checked.plan.digest()
    read_public_images(folder, checked.plan)
    site_encoder(folder, checked.plan)
    if caches(folder):
        freeze_study(folder, checked.plan)
    target = folder.plan(digest)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if plan_file.resolve() != target.resolve():
        replace_atomically(target, plan_file.read_bytes(), 0o600)
        replace_atomically(signature_path(target), signature_path(plan_file).read_bytes(), 0o600)
    record = {"plan": digest, "approver": approver.strip(), "time": int(time.time())}
    promise = {"promise": packed(promised(planned_events(checked.plan))), "delta": checked.plan.privacy.delta}
    audit(folder, {"what": "approved", **record, **promise, "secret": secret_check(read_secret_file(folder.secret))})
    return checked


def require_name(approver: str) -> None:
    """Refuse a name that is empty, overlong, or could disturb a terminal or a log. Raises: PlanInvalidError."""
    if not 1 <= len(approver.strip()) <= MAX_NAME_CHARACTERS or not approver.isprintable():
        raise PlanInvalidError(f"the approver's name must have 1 to {MAX_NAME_CHARACTERS} printable characters")


def withdraw_approval(folder: SiteFolder, digest: str, *, approver: str) -> None:
    """Take an approval back: from the next message on the site refuses the study.

    Raises: NotEnrolledError unless the plan with exactly this digest is approved here; PlanInvalidError (name).
    """
    require_name(approver)
    target = folder.plan(digest).parent
    if digest not in standing_approvals(folder) or not target.is_dir():
        raise NotEnrolledError("no such plan is approved here; see `fedward-site status`")
    audit(folder, {"what": "withdrawn", "plan": digest, "approver": approver.strip(), "time": int(time.time())})
    kept = folder.withdrawn_plan(digest).parent
    shutil.rmtree(kept, ignore_errors=True)
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    target.rename(kept)


def approved_plans(folder: SiteFolder, shapes_of: ShapesOf = shapes_here) -> dict[str, CheckedPlan]:
    """Return every approved plan that still passes all checks, by digest.

    A plan that no longer passes (policy tightened, roster changed, file edited) is left out: the site fails closed.
    Raises: ChainBrokenError when the audit log was changed; TrainerFailedError when no process could look at a network.
    """
    standing = standing_approvals(folder)
    found: dict[str, CheckedPlan] = {}
    with figures_in(folder.figures):
        for digest in sorted(standing):
            checked = _still_checked(folder, digest, shapes_of)
            if checked is not None and checked.plan.digest() == digest:
                found[digest] = checked
    return found


def _still_checked(folder: SiteFolder, digest: str, shapes_of: ShapesOf) -> CheckedPlan | None:
    """Return an approved plan if its file is here and still passes every check. Raises: TrainerFailedError."""
    plan_file = folder.plan(digest)
    if not plan_file.exists():
        return None
    try:
        proposed = check_for_site(folder, plan_file)
        shapes = shapes_of(proposed.plan)
    except TrainerFailedError:
        raise  # nobody looked at the network, which says nothing of the plan: to be tried again
    except FedwardError as error:
        _log.warning("approved plan %s no longer passes (code %d) and is left out", digest[:12], error.exit_code)
        return None
    return CheckedPlan(proposed.plan, proposed.roster, proposed.site_id, proposed.guarantee, shapes, proposed.confirmed)
