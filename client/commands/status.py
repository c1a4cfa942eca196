"""fedward-site status: what the site does at the moment."""

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from client.agent.control_client import ControlClient
from client.agent.site_status import RUNNING, SiteStatus, site_status, step_name
from client.commands.site_folder import SiteFolderHere
from client.installation.folder import SiteFolder
from common.terminal import JsonOption, output, print_json

MEASURING: Final = "measuring"


def status(
    *,
    site_folder: SiteFolderHere = Path(),
    watch: Annotated[bool, typer.Option("--watch", help="Show each step as it happens, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show whether the site runs, whether the coordinator can reach it, and what it is doing.

    Example: `fedward-site status --site-folder site/`
    """
    folder = SiteFolder(site_folder)
    now = site_status(folder)
    print_json(now.document()) if as_json else _show(now)
    if watch:
        _watch(folder)


def _show(now: SiteStatus) -> None:
    lines = [f"{now.site}: {_summary(now)}"]
    if now.agent == RUNNING:
        where = _where(now.plan, now.round_number, now.code) + _left(now.step, now.plan, now.left_s)
        lines.append(f"  last step: {now.step}{where}, {_clock(now.since_s)}")
        lines.append(f"  tasks: {now.tasks} since the agent started, {now.rejected} rejected before any work")
    for digest, name in now.studies.items():
        lines.append(
            f"  approved: {name or 'plan'} {digest[:12]}…" + ("" if now.agent == RUNNING else " (not checked now)")
        )
    lines += [f"  WORSE MODEL, {digest[:12]}…: {sentence}" for digest, sentence in now.worse_models.items()]
    lines += [f"  LOST: {text}; `fedward-site check` says what to do" for text in now.lost]
    lines += [f"  process {name} does not work: {why}; logs/{name}.log says more" for name, why in now.failing.items()]
    lines += [f"  process {name}: {pid}" for name, pid in now.processes.items()]
    output.print("\n".join(lines), markup=False)


def _summary(now: SiteStatus) -> str:
    if now.agent != RUNNING:
        words = "not running; start it with `fedward-site up`"
    elif now.connection != "up":
        words = f"running, but its SuperNode is {now.connection}"
    else:
        words = "running"
    if now.lacking:
        words += f", but it cannot work: {now.lacking}"
    return words + ("; PAUSED: it takes part in nothing" if now.paused else "")


def _where(plan: str, round_number: int, code: int) -> str:
    words = f", round {round_number} of {plan[:12]}…" if round_number else ""
    return words + (f", code {code}" if code else "")


def _left(step: str, plan: str, left_s: int) -> str:
    """Return what measuring is for, and what it may still take."""
    if step != MEASURING:
        return ""
    return f" engines for {plan[:12]}… on made-up patients, at most {left_s} s of processor time left"


def _clock(time_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s))


def _watch(folder: SiteFolder) -> None:
    with ControlClient(folder.control_socket) as control:
        for event in control.watch():
            where = _where(event.plan_digest, event.round_number, event.code)
            step = step_name(event.step)
            where += _left(step, event.plan_digest, event.left_s)
            output.print(f"{_clock(event.time_s)}  {step}{where}", markup=False)
