"""The federation beside its studies: which programs run, which hospitals are there, how long the certificate lasts."""

from pathlib import Path
from typing import Final

from common.errors import FedwardError
from common.web.markup import Child, Markup, element, join
from common.web.prometheus import Metric
from common.web.shell import facts, paragraph, pill, section, table
from common.web.words import plural
from server.deployment.federation_status import process_of, sites_online
from server.federation.admission import admitted, current_roster
from server.federation.certificates import days_left
from server.federation.folder import FederationFolder

PROGRAMS: Final = {
    "superlink": "SuperLink: messages, on this machine only",
    "executor": "executor: starts studies, registers hospitals' nodes",
    "gateway": "gateway: the only door to the network",
}
FEW_DAYS: Final = 30


def federation_section(path: Path) -> Markup | None:
    """Return hospitals and programs; None for a folder that is no federation's."""
    folder = FederationFolder(path)
    try:
        folder.require()
        return join(_hospitals(folder), _programs(folder))
    except FedwardError as error:
        return section("Needs attention", paragraph(str(error))) if folder.config.exists() else None


def federation_metrics(path: Path) -> list[Metric]:
    """Return programs that run and days that the certificate lasts; nothing for a folder that is no federation's."""
    folder = FederationFolder(path)
    if not folder.config.exists():
        return []
    running = [({"program": name}, float(process_of(folder, name) is not None)) for name in PROGRAMS]
    found = [Metric("fedward_program_running", "1 while the program runs.", "gauge", running)]
    try:
        days = days_left(folder.server_certificate)
    except (FedwardError, OSError, ValueError):
        return found
    meaning = "Days until the gateway's certificate ends."
    return [*found, Metric("fedward_gateway_certificate_days", meaning, "gauge", [({}, round(days, 1))])]


def _hospitals(folder: FederationFolder) -> Markup:
    roster, online = current_roster(folder), sites_online(folder)
    names = sorted({*admitted(folder), *(roster.sites if roster else ())})
    rows: list[list[Child]] = [
        [name, _there(online.get(name)), "yes" if roster and name in roster.sites else "no: sign a new one"]
        for name in names
    ]
    epoch = f"Roster of epoch {roster.epoch}." if roster else "No roster is signed yet."
    return section("Hospitals", table(["hospital", "now", "in the roster"], rows), paragraph(epoch, small=True))


def _there(online: bool | None) -> Markup:
    if online is None:
        return pill("unknown", "soft")
    return pill("there", "good") if online else pill("away", "warn")


def _programs(folder: FederationFolder) -> Markup:
    entries: dict[str, Child] = {}
    for name, words in PROGRAMS.items():
        runs = process_of(folder, name) is not None
        entries[words] = pill("runs", "good") if runs else pill("does not run", "bad")
    days = round(days_left(folder.server_certificate))
    soon = days < FEW_DAYS
    left = f"{plural(days, 'day')} left" + ("; `fedward-server certificate --renew`" if soon else "")
    entries["the gateway's certificate"] = element("span", left, class_="bad" if soon else None)
    return section("Programs on this machine", facts(entries))
