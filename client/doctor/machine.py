"""The machine: device of the training and its fence, ports on loopback."""

import os
import socket
from collections.abc import Iterator
from typing import Final

import torch

from client.consent.machine import memory_for_training, too_small
from client.doctor.findings import Finding, advice, fine, stop
from client.installation.audit_log import standing_approvals
from client.installation.config import SiteConfig, SpeedSection
from client.installation.folder import SiteFolder
from client.trainer.fence import can_refuse_calls, landlock_version
from common.plan.machines import STATED, need_of
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan
from common.processes.failing import failing, is_supervised
from common.processes.ports import is_free

PRODUCTS_PER_S: Final = STATED[0].products_per_s
FULL_FENCE: Final = 6  # version of Landlock (``client.trainer.fence``)


def device(section: SpeedSection) -> Finding:
    """The device named in ``site.toml`` computes."""
    try:
        square = torch.ones(8, 8, device=section.device)
        works = float((square @ square).sum()) == 512.0
    except (RuntimeError, AssertionError):
        works = False
    if not works:
        return stop("device", f"{section.device} cannot compute", 'set device = "cpu", or mend driver and CUDA')
    if section.device == "cpu" and torch.cuda.is_available():
        return advice("device", "cpu, though there is a GPU", 'set device = "cuda" in site.toml')
    return fine("device", section.device if section.device == "cpu" else torch.cuda.get_device_name(section.device))


def memory(folder: SiteFolder, section: SpeedSection) -> Iterator[Finding]:
    """Each approved plan can be trained in this machine's memory, or the GPU's: one patient at a time at least."""
    there = memory_for_training(section.device)
    if there is None:
        yield advice("memory", "the system does not say how much there is", "compare the plan's need yourself")
        return
    yield fine("memory", f"{there / 1e6:.0f} MB for training on {section.device}")
    for digest in sorted(standing_approvals(folder)):
        if folder.plan(digest).exists():
            yield _fits(digest, read_plan(folder.plan(digest)), section, there)


def _fits(digest: str, plan: StudyPlan, section: SpeedSection, there: float) -> Finding:
    need = need_of(plan)
    at_once = min(section.patients_at_once, need.at_once(there))
    if at_once < 1:
        words = too_small(plan, need, there, section.device)
        return stop("memory", f"plan {digest[:12]}: {words}", "add memory, or withdraw the plan")
    return fine(
        "memory",
        f"plan {digest[:12]}: about {need.least_bytes / 1e6:.0f} MB for one patient at a time, {at_once} fit side by "
        f"side; about {need.products / PRODUCTS_PER_S:.0f} s of one processor in a round",
    )


def fence() -> Finding:
    """The kernel can keep the process that trains away from keys, records and the network."""
    version = landlock_version()
    if version >= FULL_FENCE and can_refuse_calls():
        return fine("fence", "the process that trains opens no key, no record and no connection")
    remedy = "Linux 6.12 or newer with Landlock, on x86-64 or aarch64 with seccomp, keeps it away from all of them"
    if version == 0:
        return advice("fence", "this kernel has no Landlock: only its own code keeps training from keys", remedy)
    lack = "sockets" if version >= FULL_FENCE else "other processes"
    return advice("fence", f"Landlock {version}: training opens no key or record; {lack} are not fenced off", remedy)


def ports(folder: SiteFolder, config: SiteConfig) -> Iterator[Finding]:
    """Each port on loopback is free, or in use by this very site."""
    wanted = {"SuperNode": config.network.runtime_port, "status page": config.status_page.port}
    running = is_running(folder) or is_supervised(folder.state)  # it holds its ports before its agent is ready
    for what, port in wanted.items():
        if port == 0:
            continue
        if is_free("127.0.0.1", port):
            text = f"{port} on 127.0.0.1 is free for the {what}"
            yield fine("port", text)
        elif running:
            yield fine("port", f"{port} on 127.0.0.1 is in use while this site runs ({what})")
        else:
            key = "runtime_port in [network]" if what == "SuperNode" else "port in [status_page]"
            yield stop("port", f"{port} on 127.0.0.1 is taken by another program", f"choose another {key} of site.toml")


def processes(folder: SiteFolder) -> Finding:
    """No process of the site is started again and again without doing its work."""
    broken = failing(folder.state)
    if not broken:
        return fine("processes", "none keeps ending")
    name, why = next(iter(broken.items()))
    return stop(
        "processes", f"{name} keeps ending: {why}", f"see logs/{name}.log, mend that; it is tried again by itself"
    )


def agent(folder: SiteFolder) -> Finding:
    """Whether the site runs now."""
    if is_running(folder):
        return fine("agent", "the site is up")
    if is_supervised(folder.state):
        return advice("agent", "the site is starting: its agent is not ready yet", "wait a minute, then look again")
    return advice("agent", "the site is not up", "`fedward-site up` when everything else is in order")


def is_running(folder: SiteFolder) -> bool:
    """Tell whether an agent listens on this site's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(2.0)
        try:
            connection.connect(os.fspath(folder.control_socket))
        except OSError:  # also for a path that is too long, which is a finding of its own
            return False
    return True
