"""A plan as the hospital's staff read it before they approve: what is asked, what leaves, what it costs, who else."""

import math
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from client.consent.approval import ProposedPlan
from client.consent.confirmation import confirmations, least_confirmed_in_study
from client.consent.forecast import Forecast, forecast
from client.consent.machine import memory_for_training, training_device
from client.consent.policy import SitePolicyFile, read_policy
from client.consent.true_counts import count_notes
from client.dicom.cache import Cache
from client.dicom.caches import HOW, cache_of
from client.dicom.census import SMALL_CELL, take_census
from client.dicom.errors import CacheInvalidError
from client.dicom.settings import PIPELINE_VERSION
from client.features.site_encoder import site_encoder
from client.installation.folder import SiteFolder
from common.encoders.showing import card_rows, encoder_facts
from common.plan.fitting import check_fit
from common.plan.guarantee import epsilon_if_real
from common.plan.lights_table import lights_table
from common.plan.machines import need_of
from common.plan.phases import Method
from common.plan.plan import StudyPlan
from common.plan.summary import network_words, summarise
from common.terminal import printable
from common.trust.identity import fingerprint, read_secret_file

OBSERVERS: Final = {
    "outsider": "somebody who sees the model and all published sums",
    "guarantee": "the same, together with the assumed colluders: what the plan promises, and your ceiling counts",
    "hospital": "another hospital in the study, which knows its own noise",
    "hospital_with_colluders": "such a hospital together with the assumed colluders",
    "all_others": "a coordinator to whom every other hospital belonged: your hospital's share of the noise alone hides "
    "your patients then, and the more hospitals a sum must hold, the smaller is a share",
}


def plan_facts(folder: SiteFolder, checked: ProposedPlan, *, source: str) -> dict[str, Any]:
    """Return everything the page shows, as plain values (also the JSON form).

    ``source``: the plan's file, for errors. Raises: CacheInvalidError when no scans were read for such a plan,
    LedgerInvalidError, PolicyInvalidError, EncoderInvalidError when the plan's public encoder is not here.
    """
    plan = checked.plan
    encoder = site_encoder(folder, plan)
    path, secret = cache_of(folder, plan), read_secret_file(folder.secret)
    cache = _fresh_cache(path, secret, plan)
    policy = read_policy(folder.policy)
    seen = forecast(folder, plan, ceiling=policy.epsilon_ceiling)
    others = {name: text for name, text in checked.roster.fingerprints().items() if name != checked.site_id}
    return {
        **summarise(plan, checked.guarantee, check_fit(plan, checked.shapes, source)),
        "encoder": None if encoder is None else encoder_facts(encoder[1]),
        "site": checked.site_id,
        "coordinator": fingerprint(checked.roster.coordinator),
        "roster_digest": checked.roster.digest(),
        "epoch": checked.roster.epoch,
        "machine_here": _machine_here(folder, plan),
        "others": {site.name: others[site.name] for site in plan.sites if site.name in others},
        "confirmed": _confirmed(folder, checked, policy),
        "counts": count_notes(cache, plan, checked.site_id),
        "patients_here": take_census(path, secret)["patients_by_stratum"],
        "ledger": None if seen is None else _ledger(seen),
    }


def print_plan(facts: dict[str, Any], console: Console) -> None:
    """Print the page."""
    console.print(f"\n[bold]{printable(facts['title'])}[/]  (study {facts['study']}, plan {facts['digest']})")
    for title, rows in _sections(facts).items():
        table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
        table.add_column(min_width=24)
        for name, text in rows:
            table.add_row(printable(name), printable(text))
        console.print(table)
    console.print(lights_table(facts["lights"]))
    for warning in (*facts["warnings"], *facts["counts"]):
        console.print(f"[yellow]note[/] {printable(warning)}")
    if facts["ledger"] and not facts["ledger"]["fits"]:
        console.print("[yellow]note[/] the ledger will stop this study before its end: the ceiling would be passed")


def _confirmed(folder: SiteFolder, checked: ProposedPlan, policy: SitePolicyFile) -> dict[str, Any]:
    """Return who of the plan's hospitals is confirmed, how many must be, and epsilon if the others are not real."""
    plan, made = checked.plan, confirmations(folder, checked.roster)
    listed = {site.name for site in plan.sites}
    real = checked.confirmed & listed
    value = epsilon_if_real(plan, len(real))
    return {
        "needed": least_confirmed_in_study(policy, plan),
        "count": len(real),
        "by": {name: made[name].person for name in sorted(listed & made.keys())},
        "not_confirmed": sorted(listed - real),
        # JSON knows no infinity
        "epsilon_if_not_real": value if value is None or math.isfinite(value) else None,
        "promises_nothing_if_not_real": value is None or not math.isfinite(value),
    }


def _machine_here(folder: SiteFolder, plan: StudyPlan) -> dict[str, Any]:
    """Return the memory that the plan needs, estimated, and what there is for training; None where nobody says."""
    device = training_device(folder)
    there = memory_for_training(device)
    return {
        "device": device,
        "least_mb": round(need_of(plan).least_bytes / 1e6),
        "there_mb": None if there is None else round(there / 1e6),
    }


def _ledger(seen: Forecast) -> dict[str, Any]:
    return {"ceiling": seen.ceiling, "before": seen.before, "after": seen.after, "fits": seen.fits}


def _fresh_cache(path: Path, secret: bytes, plan: StudyPlan) -> Cache:
    """Open the plan's cache; a new study does not begin with what an older program read."""
    cache = Cache.open(path, secret)
    older = cache.settings.pipeline_version
    if older != PIPELINE_VERSION and cache.manifest(plan.digest()) is None:
        raise CacheInvalidError(
            f"the scans of this plan were read by pipeline {older}, this program is {PIPELINE_VERSION} and may give "
            f"other values for the same file: {HOW} reads them into a cache of their own; what is here stays as it is"
        )
    return cache


def _sections(facts: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    card = {"The public encoder, by its card": card_rows(facts["encoder"])} if facts["encoder"] else {}
    return {
        "What is asked": _asked(facts),
        **card,
        "What leaves this hospital": list(facts["leaves_a_site"].items()),
        "What it costs a patient": _costs(facts),
        "Who else takes part (`fedward-site confirm` each, after a call)": _others(facts),
    }


def _asked(facts: dict[str, Any]) -> list[tuple[str, str]]:
    task, rules = facts["task"], facts["secure_aggregation"]
    size, in_colour = " x ".join(map(str, task["input_px"])), ", in colour" if task["channels"] == 3 else ""
    if task["patch_px"]:
        in_colour += f", in patches of {' x '.join(map(str, task['patch_px']))}"
    here = ", ".join(f"{_count(count)} {name}" for name, count in facts["patients_here"].items())
    rows = [
        ("task", f"{task['kind']}: {', '.join(task['classes'])}"),
        ("scans", f"{', '.join(task['modalities'])}, as {size} pixels{in_colour}"),
        ("network", network_words(facts)),
        ("patients here", f"{here}; they are fixed for this study when you approve"),
    ]
    for phase in facts["phases"]:
        text = f"{phase['rounds']} rounds of {phase['method']}, {phase['trained_parameters']} parameters, "
        if phase["method"] == Method.RIDGE:
            text += f"solved from {phase['numbers_of_a_sum']} noised numbers of one release (docs/privacy.md), "
        if phase["method"] == Method.PRIOR:
            text += "where the outlines usually lie: one noised sum of label maps, "
        rows.append((f"phase {phase['name']}", text + f"{phase['bytes_per_round'] / 1e6:.1f} MB up in each"))
    least = f"{rules['minimum_survivors']} at least in every sum"
    if rules["groups"]:
        rows.append(("each round", f"random groups of at most {rules['cohort_size']} hospitals, {least}; their median"))
    else:
        rows.append(("each round", f"{rules['cohort_size']} hospitals, {least}"))
    here = facts["machine_here"]
    there = "the system does not say how much" if here["there_mb"] is None else f"{here['there_mb']} MB"
    there += "" if here["device"] == "cpu" else f" on {here['device']}"
    rows.append(("memory", f"about {here['least_mb']} MB for one patient at a time; for training there is {there}"))
    rows.append(("its model", f"{facts['result']['model']}; a phase ends {facts['result']['a_phase_ends']}"))
    return rows


def _costs(facts: dict[str, Any]) -> list[tuple[str, str]]:
    privacy, ledger = facts["privacy"], facts["ledger"]
    if privacy["bought"] is None or ledger is None:
        return [("privacy", "none: this plan promises its patients nothing")]
    seen = privacy["epsilon_seen_by"] or {}
    rows = [(_epsilon(seen.get(name)), words) for name, words in OBSERVERS.items()]
    rows.append((f"delta = {privacy['delta']:g}", "the chance that the promise fails; the same towards everybody"))
    ceiling = f"of {ledger['ceiling']:g}, this site's ceiling for a patient over all studies"
    rows.append((_epsilon(ledger["before"]), f"spent before {ceiling}"))
    rows.append((_epsilon(ledger["after"]), f"spent after this study, at most, {ceiling}"))
    return rows


def _others(facts: dict[str, Any]) -> list[tuple[str, str]]:
    known = facts["confirmed"]
    rows = [
        (text, f"{name}, confirmed by {known['by'][name]}" if name in known["by"] else f"{name}, NOT CONFIRMED")
        for name, text in facts["others"].items()
    ]
    if known["not_confirmed"]:
        value = known["epsilon_if_not_real"]
        names = ", ".join(known["not_confirmed"])
        rows.append((_epsilon(value), f"what this study costs a patient here if these are not real: {names}"))
    rows.append((f"{known['count']} of {known['needed']}", "hospitals confirmed of those needed, this one included"))
    if facts["contact"]:
        rows.append((facts["contact"], "whom to ask about this study, as the plan says"))
    return [*rows, (facts["coordinator"], "the coordinator, which you compared when you joined")]


def _epsilon(value: float | None) -> str:
    return "epsilon unlimited" if value is None else f"epsilon = {value:.3f}"


def _count(count: int | None) -> str:
    return f"<{SMALL_CELL} or suppressed" if count is None else str(count)
