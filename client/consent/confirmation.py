"""Which hospitals are real: a person here spoke with each of them and compared its fingerprint, one at a time.

No signature can prove that the keys of a roster belong to the hospitals named in it: whoever signs a roster can invent
hospitals. A confirmation is a line of the audit log, about a name *and* a key: under a new key the hospital must be
confirmed again, under a new roster with the same key it need not.

Guarantee: a round of this site holds so many confirmed hospitals as the policy demands, at every stage; hospitals that
nobody confirmed are counted with those who help the coordinator (docs/decisions/0025-fakes-add-nothing.md).
"""

import time
from dataclasses import dataclass
from typing import Any

from client.consent.errors import NotConfirmedError
from client.consent.policy import SitePolicyFile
from client.installation.audit_log import audit, audit_links
from client.installation.errors import NotEnrolledError
from client.installation.folder import SiteFolder
from client.installation.joining import own_name
from common.plan.errors import PlanInvalidError
from common.plan.plan import StudyPlan
from common.trust.canonical import encode_base64
from common.trust.identity import fingerprint, public_bytes, same_fingerprint
from common.trust.roster import Roster, read_roster

MAX_PERSON_CHARACTERS = 100


@dataclass(frozen=True)
class Confirmation:
    """Who compared the fingerprint of ``site`` with that hospital itself, and when (seconds since 1970)."""

    site: str
    fingerprint: str
    person: str
    unix_s: int


def confirm(folder: SiteFolder, site: str, heard: str, *, person: str) -> Confirmation:
    """Write down that ``person`` heard the fingerprint ``heard`` from the hospital ``site`` itself.

    Raises: NotEnrolledError for a hospital that is not in the roster, or is this one; NotConfirmedError for another
    fingerprint; PlanInvalidError for a person's name that is none; ChainBrokenError.
    """
    require_person(person)
    roster = _roster_with(folder, site)
    wanted = fingerprint(roster.sites[site])
    if not same_fingerprint(heard, wanted):
        raise NotConfirmedError(
            f"the roster's {site} has another fingerprint than the one given; nothing was confirmed. Call the hospital "
            "again, have all six groups read out and type what you hear: the coordinator may have invented it"
        )
    made = Confirmation(site, wanted, person.strip(), int(time.time()))
    _record(folder, roster, "confirmed", made)
    return made


def take_back(folder: SiteFolder, site: str, *, person: str) -> None:
    """Write down that ``site`` counts as unconfirmed again. Raises: as ``confirm``, and where it is not confirmed."""
    require_person(person)
    roster = _roster_with(folder, site)
    if site not in confirmations(folder, roster):
        raise NotEnrolledError(f"{site} is not confirmed here; `fedward-site audit` shows who is")
    lost = Confirmation(site, fingerprint(roster.sites[site]), person.strip(), int(time.time()))
    _record(folder, roster, "confirmation taken back", lost)


def confirmations(folder: SiteFolder, roster: Roster) -> dict[str, Confirmation]:
    """Return the standing confirmations of hospitals of ``roster``, under the keys it has. Raises: ChainBrokenError."""
    keys = {name: encode_base64(public_bytes(key)) for name, key in roster.sites.items()}
    found: dict[str, Confirmation] = {}
    for link in audit_links(folder):
        entry = link.entry
        if entry["what"] not in {"confirmed", "confirmation taken back"}:
            continue
        site = str(entry["site"])
        if keys.get(site) != entry["key"]:
            continue
        if entry["what"] == "confirmed":
            print_of_key = fingerprint(roster.sites[site])
            found[site] = Confirmation(site, print_of_key, str(entry["person"]), int(entry["time"]))
        else:
            found.pop(site, None)
    return found


def confirmed_sites(folder: SiteFolder, roster: Roster, own: str) -> frozenset[str]:
    """Return the confirmed hospitals, this one (``own``) included. Raises: ChainBrokenError."""
    return frozenset({own, *confirmations(folder, roster)})


def least_confirmed(policy: SitePolicyFile, plan: StudyPlan) -> int:
    """Return how many confirmed hospitals, this one included, every stage of a round must hold.

    The policy's number; where it has none, all that the least sum needs.
    """
    if policy.minimum_confirmed is not None:
        return policy.minimum_confirmed
    return max(plan.secure_aggregation.minimum_survivors, policy.minimum_survivors)


def least_confirmed_in_study(policy: SitePolicyFile, plan: StudyPlan) -> int:
    """Return how many of a plan's hospitals must be confirmed so that this site can take an order of a full cohort.

    Besides ``least_confirmed``: 2t > n + c must hold with everybody unconfirmed counted as a colluder. Where a plan
    draws groups, so few may be unconfirmed that the smallest group passes with all of them.
    """
    rules = plan.secure_aggregation
    n, t, c = rules.cohort_size, rules.threshold, max(rules.assumed_colluders, policy.assumed_colluders)
    most_unconfirmed = 2 * t - n - c - 1
    if plan.aggregation.takes_median:
        spare = rules.least_cohort - least_confirmed(policy, plan)
        return len(plan.sites) - max(0, min(most_unconfirmed, spare))
    return max(least_confirmed(policy, plan), n - most_unconfirmed)


def require_confirmed(needed: int, confirmed: frozenset[str], listed: set[str]) -> None:
    """Refuse where too few of the hospitals ``listed`` in a plan are confirmed. Raises: NotConfirmedError."""
    count = len(confirmed & listed)
    if count < needed:
        missing = ", ".join(sorted(listed - confirmed))
        raise NotConfirmedError(
            f"nothing was approved: confirmed hospitals of this plan: {count} (this one included), needed: {needed}. "
            f"Call {missing}; for each: `fedward-site confirm NAME --fingerprint … --by PERSON`. A coordinator that "
            "could invent hospitals could read the updates of the real ones"
        )


def require_person(person: str) -> None:
    """Refuse a name that is empty, overlong, or could disturb a terminal or a log. Raises: PlanInvalidError."""
    if not 1 <= len(person.strip()) <= MAX_PERSON_CHARACTERS or not person.isprintable():
        raise PlanInvalidError(f"a person's name (--by) must have 1 to {MAX_PERSON_CHARACTERS} printable characters")


def _roster_with(folder: SiteFolder, site: str) -> Roster:
    folder.require()
    roster = read_roster(folder.roster)
    own = own_name(folder, roster)
    if site == own or site not in roster.sites:
        others = ", ".join(sorted(set(roster.sites) - {own}))
        raise NotEnrolledError(f"no other hospital of this name is in the roster; the others are {others}")
    return roster


def _record(folder: SiteFolder, roster: Roster, what: str, made: Confirmation) -> None:
    entry: dict[str, Any] = {
        "what": what,
        "site": made.site,
        "key": encode_base64(public_bytes(roster.sites[made.site])),
        "fingerprint": made.fingerprint,
        "roster": roster.digest(),
        "person": made.person,
        "time": made.unix_s,
    }
    audit(folder, entry)
