"""The whole examination, in the order in which a site is set up: folder, federation, data, machine, network."""

from collections.abc import Callable, Iterator

from client.doctor import connection, data, lost_files, machine, membership, own_folder
from client.doctor.counts import counts
from client.doctor.findings import Finding, Level, examined
from client.installation.config import SiteConfig, read_site_config
from client.installation.errors import NotEnrolledError
from client.installation.folder import SiteFolder
from common.errors import FedwardError
from common.trust.kit import Kit, read_kit


def examine(folder: SiteFolder, *, with_network: bool = True) -> Iterator[Finding]:
    """Yield every finding as soon as it is known; what needs a broken part is left out, never raised.

    Raises: NotEnrolledError when there is no site here at all.
    """
    if not folder.config.exists():
        raise NotEnrolledError(f"{folder.path}: no site here; set one up with `fedward-site init`")
    config, kit = _config(folder), _kit(folder)
    for name, look in _looks(folder, config, kit, with_network=with_network):
        yield from examined(name, look)


def stopping(findings: list[Finding]) -> list[Finding]:
    """Return the findings that keep the site from taking part."""
    return [finding for finding in findings if finding.level is Level.STOP]


Look = Callable[[], Finding | Iterator[Finding]]


def _looks(
    folder: SiteFolder, config: SiteConfig | None, kit: Kit | None, *, with_network: bool
) -> Iterator[tuple[str, Look]]:
    yield "folder", lambda: own_folder.rights(folder)
    yield "socket", lambda: own_folder.socket_name(folder)
    yield "settings", lambda: own_folder.settings(folder)
    yield "policy", lambda: own_folder.policy(folder)
    yield "keys", lambda: own_folder.keys(folder)
    yield "ledger", lambda: own_folder.ledger(folder)
    yield "records", lambda: own_folder.records(folder)
    yield lost_files.NAME, lambda: lost_files.lost_files(folder)
    yield "pause", lambda: own_folder.pause_mark(folder)
    yield "kit", lambda: membership.kit(folder)
    if kit:
        yield "versions", lambda: membership.versions(kit)
        yield "roster", lambda: membership.roster(folder, kit)
    yield "plans", lambda: membership.plans(folder)
    if config:
        yield "scans", lambda: data.scans(folder, config.data)
        yield "labels", lambda: data.labels(folder, config.data, config.labels.map)
    yield "cache", lambda: data.cache(folder)
    yield "counts", lambda: counts(folder)
    yield "trainings", lambda: data.trainings(folder)
    yield "disk", lambda: own_folder.disk(folder)
    if config:
        yield "device", lambda: machine.device(config.speed)
        yield "memory", lambda: machine.memory(folder, config.speed)
        yield "fence", machine.fence
        yield "port", lambda: machine.ports(folder, config)
    yield "processes", lambda: machine.processes(folder)
    yield "agent", lambda: machine.agent(folder)
    if config and kit and with_network:
        yield "proxy", lambda: connection.proxy(kit, config.network.https_proxy)
        yield "coordinator", lambda: connection.coordinator(kit, config.network.https_proxy)


def _config(folder: SiteFolder) -> SiteConfig | None:
    try:
        return read_site_config(folder.config)
    except FedwardError:
        return None  # a finding of its own


def _kit(folder: SiteFolder) -> Kit | None:
    try:
        return read_kit(folder.kit)
    except FedwardError:
        return None  # a finding of its own
