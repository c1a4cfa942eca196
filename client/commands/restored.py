"""fedward-site restored: after a backup was played back, forbid every attempt that may have been made since."""

import getpass
import time
from pathlib import Path
from typing import Annotated

import typer

from client.commands.site_folder import SiteFolderHere
from client.consent.continuity.restoring import tell_journal
from client.installation.audit_log import audit, standing_approvals
from client.installation.errors import NotEnrolledError
from client.installation.folder import SiteFolder
from common.terminal import JsonOption, output, print_json


def restored(
    plan: Annotated[str, typer.Argument(metavar="DIGEST", help="Digest of the approved plan.")],
    *,
    last_attempt: Annotated[
        int, typer.Option(min=1, max=1 << 31, help="The study's last attempt, as the coordinator tells it.")
    ],
    by: Annotated[str, typer.Option("--by", help="Who restored the site, for the audit log; default: you.")] = "",
    site_folder: SiteFolderHere = Path(),
    as_json: JsonOption = False,
) -> None:
    """Never again take part in an attempt up to the given one: a restored journal has forgotten the newest.

    Run it for each approved plan before the site starts again. The number comes from `fedward-server status STUDY`; a
    number that is too high costs nothing but the attempts below it. A study that promises no privacy ends here: which
    of its models were opened before cannot be told any more.

    Example: `fedward-site restored 5dc4…1f --last-attempt 41 --by "Dr North" --site-folder site/`
    """
    folder = SiteFolder(site_folder)
    folder.require()
    if plan not in standing_approvals(folder):
        raise NotEnrolledError("no such plan is approved here; `fedward-site audit` lists the digests")
    reached = tell_journal(folder, plan, last_attempt)
    person = by or getpass.getuser()
    audit(
        folder, {"what": "restored", "plan": plan, "person": person, "attempt": last_attempt, "time": int(time.time())}
    )
    if as_json:
        print_json({"plan": plan, "refused_up_to": reached})
    else:
        output.print(f"attempts up to {reached} of plan {plan[:12]}… are refused from now on", markup=False)
