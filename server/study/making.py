"""A study in a federation folder: drafted for the current roster, then signed, laid out as the server needs it.

```
study new    studies/NAME/ with orders.key, the roster, and a commented draft of study.toml
(people)     read and change the draft; `plan check --draft`
study sign   every check of `plan sign`, then study.toml.sig; from here on the plan is fixed
```
"""

import shutil

from common.errors import OutputExistsError
from common.files import read_bounded, replace_atomically, write_new
from common.plan.fitting import check_fit, require_range
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan
from common.plan.reply_slot import check_reply_slot
from common.plan.shape import phase_layouts
from common.plan.signing import sign_plan
from common.trust.canonical import decode_base64, encode_base64
from common.trust.identity import create_signing_key, public_bytes, read_signing_key
from common.trust.roster import MAX_ROSTER_BYTES, read_roster
from server.errors import StudyFolderInvalidError
from server.federation.admission import audit, current_roster
from server.federation.errors import FederationInvalidError
from server.federation.folder import FederationFolder
from server.study.folder import StudyFolder, open_papers
from server.study.new_plan import NewPlan, Wanted, new_plan


def new_study(folder: FederationFolder, name: str, patients: list[str], wanted: Wanted) -> tuple[StudyFolder, NewPlan]:
    """Make a study's folder with its order key and a commented draft of the plan.

    ``patients``: SITE=LABELLED,UNLABELLED for each site of the roster (``server.study.plan_template``).
    Raises: OutputExistsError, FederationInvalidError without a roster, PlanInvalidError, AccountingError.
    """
    study = StudyFolder(folder.study(name))
    if study.path.exists():
        raise OutputExistsError(f"{study.path}: exists already and was left alone; choose another name")
    growing = StudyFolder(study.path.with_name(f".{name}"))  # no name of a study: a crash leaves no half of one
    shutil.rmtree(growing.path, ignore_errors=True)
    growing.path.mkdir(mode=0o700, parents=True)
    try:
        made = _filled(folder, growing, name, patients, wanted)
        growing.path.rename(study.path)
    except BaseException:  # Ctrl-C too
        shutil.rmtree(growing.path, ignore_errors=True)
        raise
    return study, made


def _filled(folder: FederationFolder, growing: StudyFolder, name: str, patients: list[str], wanted: Wanted) -> NewPlan:
    """Write order key, roster and plan of a new study. Raises: as ``new_study``."""
    roster = current_roster(folder)
    if roster is None:
        raise FederationInvalidError(f"{folder.path}: no roster yet; admit sites, then `fedward-server roster sign`")
    order_key = create_signing_key(growing.order_key).public_key()
    write_new(growing.roster, read_bounded(folder.roster, MAX_ROSTER_BYTES))
    made = new_plan(name, roster, patients, order_key=order_key, wanted=wanted)
    write_new(growing.plan, made.text.encode())
    return made


def sign_study(folder: FederationFolder, name: str, *, reason: str = "") -> StudyPlan:
    """Check the plan of a study as the server will, sign it with the coordinator's key, and return it.

    The roster laid beside it is the one that the plan names, of whatever epoch. ``reason``: why it is signed although a
    light is red; it goes into the audit log.
    Raises: StudyFolderInvalidError once the study has begun, or for another order key; FederationInvalidError; what the
    checks of plan and roster raise.
    """
    study = StudyFolder(folder.existing_study(name))
    if study.journal.exists():
        raise StudyFolderInvalidError(
            f"{study.path}: this study has begun, so its plan stays as it is; make a new study for a changed plan"
        )
    plan = read_plan(study.plan)
    require_range(plan, str(study.plan))
    check_fit(plan, phase_layouts(plan), str(study.plan))
    check_reply_slot(plan, str(study.plan))
    order_key = read_signing_key(study.order_key).public_key()
    if public_bytes(order_key) != decode_base64(plan.study.order_key):
        raise StudyFolderInvalidError(f"{study.plan}: study.order_key must be {encode_base64(public_bytes(order_key))}")
    replace_atomically(study.roster, _roster_of(folder, plan))
    sign_plan(plan, study.plan, read_signing_key(folder.key))
    signed, _ = open_papers(study.path)
    audit(folder, "plan signed", study=name, plan=signed.digest(), **({"anyway": reason} if reason else {}))
    return signed


def _roster_of(folder: FederationFolder, plan: StudyPlan) -> bytes:
    for file in sorted(folder.rosters.glob("epoch-*.json")):
        if read_roster(file).digest() == plan.study.roster_digest:
            return read_bounded(file, MAX_ROSTER_BYTES)
    raise FederationInvalidError(
        f"{folder.rosters}: no roster has the digest {plan.study.roster_digest[:12]}… that the plan names; "
        "`fedward-server roster show roster.json` shows the current one"
    )
