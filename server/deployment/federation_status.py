"""Where a federation stands, as plain values: processes, sites, studies. Reads files only, so it works at any time."""

import os
from pathlib import Path
from typing import Any, Final

from common.errors import FedwardError
from common.files import parsed_json, read_bounded
from common.processes.failing import failing
from common.processes.room import lack_of
from server.deployment.endings import read_ending
from server.federation.admission import admitted, current_roster
from server.federation.certificates import days_left
from server.federation.config import CoordinatorConfig
from server.federation.folder import FederationFolder
from server.study.folder import open_study
from server.study.live_status import is_running, waiting_of
from server.study.status import read_journal, study_status

PROCESSES: Final = ("supervisor", "superlink", "executor", "gateway", "page")
MAX_FACTS_BYTES: Final = 1 << 20


def federation_status(folder: FederationFolder, config: CoordinatorConfig) -> dict[str, Any]:
    """Return the facts of a federation. Raises: what a damaged roster or enrolment raises."""
    roster = current_roster(folder)
    online = sites_online(folder)
    broken = failing(folder.state)
    return {
        "federation": config.federation,
        "address": config.gateway.public_address,
        "up": process_of(folder, "supervisor") is not None,
        "processes": {name: None if name in broken else process_of(folder, name) for name in PROCESSES},
        "failing": broken,
        "lacking": lack_of(folder.path),
        "alarm_failure": str(_executor_facts(folder).get("alarm_failure", "")),
        "roster": {"epoch": roster.epoch, "digest": roster.digest()} if roster else None,
        "sites": {
            name: {"in_roster": bool(roster and name in roster.sites), "online": online.get(name)}
            for name in sorted({*admitted(folder), *(roster.sites if roster else ())})
        },
        "studies": {name: _short(folder.study(name)) for name in folder.study_names()},
        "certificate_days": round(days_left(folder.server_certificate)),
    }


def sites_online(folder: FederationFolder) -> dict[str, bool]:
    """Return whether each site's node is there, by the executor's last look; empty while it does not run."""
    online = _executor_facts(folder).get("online")
    return {str(site): bool(there) for site, there in online.items()} if isinstance(online, dict) else {}


def keeping(study_folder: Path) -> dict[str, Any]:
    """Return what becomes of a study: is it wanted, does it run, how did its last run end?"""
    ending, is_wanted = read_ending(study_folder), (study_folder / "wanted").exists()
    running = is_running(study_folder)
    waiting = machine_waits(study_folder) if is_wanted or running else None
    waiting = waiting or (waiting_of(study_folder) if running else None)
    kept = {
        "wanted": is_wanted,
        "running": running,
        "ended": None if ending is None else {"state": ending.state and ending.state.value, "why": ending.sentence},
        "waiting": waiting,
    }
    return kept | ({"state": "waiting"} if waiting else {})


def machine_waits(study_folder: Path) -> dict[str, Any] | None:
    """Return what keeps this machine from working on any study, in the form of ``waiting_of``; None: nothing."""
    folder = FederationFolder(study_folder.resolve().parent.parent)
    away_s = _executor_facts(folder).get("superlink_away_since_unix_s")
    if lacking := lack_of(study_folder):
        why, since = lacking, None
    elif isinstance(away_s, int | float):
        why, since = "the SuperLink does not answer; `up` starts it again, and logs/superlink.log says why", away_s
    else:
        return None
    place = {"hospitals": None, "needed": None, "until_unix_s": None}
    return {"since_unix_s": since, **place, "for": [{"site": "", "why": "this machine", "sentence": why}]}


def process_of(folder: FederationFolder, name: str) -> int | None:
    """Return the id of one of ``up``'s processes, None where it does not run."""
    try:
        number = int(read_bounded(folder.state / f"{name}.pid", 64))
        os.kill(number, 0)
    except (FedwardError, ValueError, OverflowError, ProcessLookupError):
        return None
    except PermissionError:
        return number
    return number


def _short(study_folder: Path) -> dict[str, Any]:
    try:
        study = open_study(study_folder)
        journal = read_journal(study)
        facts = study_status(study, journal)
        if journal:
            journal.close()
    except FedwardError as error:
        return {"state": "not signed or damaged", "why": str(error), **keeping(study_folder)}
    kept = ("state", "plan", "rounds_applied", "rounds_planned", "attempts", "attempts_allowed")
    return {name: facts[name] for name in kept} | keeping(study_folder)


def _executor_facts(folder: FederationFolder) -> dict[str, Any]:
    """Return what the executor wrote last; nothing while it does not run."""
    if process_of(folder, "executor") is None:
        return {}
    try:
        facts = parsed_json(read_bounded(folder.state / "executor.json", MAX_FACTS_BYTES))
    except (FedwardError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
