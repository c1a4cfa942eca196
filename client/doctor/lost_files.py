"""Whether a file whose loss loosens a promise is lost; whether one ever began again, which is said for ever after."""

import datetime as dt
from collections.abc import Iterator

from client.consent.continuity.decisions import decisions
from client.consent.continuity.losses import losses, read_traces
from client.doctor.findings import Finding, advice, fine, stop
from client.installation.folder import SiteFolder

NAME = "lost files"


def lost_files(folder: SiteFolder) -> Iterator[Finding]:
    """Each file is as new as the others show."""
    traces = read_traces(folder)
    found = losses(folder, traces)
    for loss in found:
        remedy = f"put the newest copy back; without one `fedward-site begin-again {loss.lost}` (docs/lost-files.md)"
        yield stop(NAME, loss.text, remedy)
    decided = decisions(traces)
    for each in decided:
        day = dt.datetime.fromtimestamp(each.time_s, tz=dt.UTC).date().isoformat()
        text = f"{each.file} began again on {day}, by decision of {each.person}: {each.reason}"
        yield advice(NAME, text, "nothing to do: this is shown for ever, with what it cost in `fedward-site ledger`")
    if not found and not decided:
        yield fine(NAME, "every record is as new as the others show, and none ever began again")
