"""The tables of ``stages`` and ``refusals`` as Markdown, for ``docs/protocol.md`` (a test compares).

python -m common.secagg.diagram
"""

import sys

from common.secagg.refusals import TABLE
from common.secagg.stages import SERVER_TRANSITIONS, SITE_TRANSITIONS, Kind, SiteStage


def stage_diagram() -> str:
    """Return both diagrams as Markdown: the site's stages, then the server's."""
    return f"```mermaid\n{_site_diagram()}\n```\n\n```mermaid\n{_server_diagram()}\n```\n"


def check_table() -> str:
    """Return every check with its code and what it stops, as a Markdown table."""
    rows = [f"| `{check}` | {row.code} | {row.stops} |" for check, row in TABLE.items()]
    return "\n".join(["| check | code | stops |", "|---|---|---|", *rows]) + "\n"


def _site_diagram() -> str:
    lines = ["stateDiagram-v2", "    [*] --> idle"]
    for (stage, kind), step in SITE_TRANSITIONS.items():
        if kind is not Kind.ORDER or stage is SiteStage.IDLE:
            lines.append(f"    {stage} --> {step.goes_to}: {kind.upper()} / {step.answer.upper()}")
    lines.append("    dead --> keyed: ORDER / KEYS")
    lines.append("    note left of keyed: an ORDER wipes any stage and starts again")
    lines.append("    note right of dead: whatever is refused, in any stage, ends here / REFUSAL")
    return "\n".join(lines)


def _server_diagram() -> str:
    first = next(iter(SERVER_TRANSITIONS))
    lines = ["stateDiagram-v2", f"    [*] --> {first}: send ORDER"]
    for stage, step in SERVER_TRANSITIONS.items():
        action = f"send {step.sends.upper()}" if step.sends else "open the sum"
        lines.append(f"    {stage} --> {step.goes_to}: collected {step.collects.upper()}, {action}")
        lines.append(f"    {stage} --> aborted: too few")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{stage_diagram()}\n{check_table()}")
