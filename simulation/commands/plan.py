"""``fedward-sim plan``: the plan of a scenario for real hospitals."""

from pathlib import Path
from typing import Annotated

import typer

from common.encoders.card import read_card
from common.files import replace_atomically
from common.plan.reading import read_plan
from common.plan.signing import signature_path
from common.terminal import JsonOption, errors, output, print_json
from server.drafting.plan_text import plan_toml
from simulation.errors import ScenarioInvalidError
from simulation.study.deployed_plan import deployed_plan
from simulation.study.scenario_reading import find_scenario, read_scenario

MODE = 0o644  # a plan is read by everybody


def plan(
    scenario: Annotated[str, typer.Argument(help="A scenario file (TOML), or the name of a shipped one.")],
    draft: Annotated[Path, typer.Argument(help="study.toml that `fedward-server study new` wrote; not signed yet.")],
    *,
    card: Annotated[
        Path | None, typer.Option(help="The card (TOML) of the scenario's encoder.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the plan of a simulated study for the hospitals of a draft: what you tried is what they are asked.

    What is learnt and how comes from the scenario; name, hospitals, their counts, promise, thresholds and deadlines
    stay the draft's; noise, layouts, range and reply slot are computed. The draft as it was stays beside it (.before).

    Example: `fedward-sim plan pneumonia-4-hospitals federation/studies/lungs-2026/study.toml`
    """
    if signature_path(draft).exists():
        raise ScenarioInvalidError(f"{draft} is signed; make another study with `fedward-server study new`")
    file = find_scenario(scenario)
    if not as_json:
        errors.print("computing noise, layouts and range; a few seconds", markup=False)
    made = deployed_plan(read_scenario(file), read_plan(draft), read_card(card) if card else None)
    before = draft.with_name(f"{draft.name}.before")
    replace_atomically(before, draft.read_bytes(), MODE)
    head = (
        f"# The plan of the scenario {file.stem}, by `fedward-sim plan`. After a change of it or of counts write\n"
        f"# it again from {before.name}; then: fedward-server plan check {draft.name} --draft\n"
    )
    replace_atomically(draft, (head + plan_toml(made)).encode(), MODE)
    if as_json:
        print_json({"plan": str(draft), "before": str(before), "scenario": str(file), "study": made.study.name})
        return
    output.print(f"wrote {draft} (before: {before.name}); check it with", markup=False)
    output.print(
        f"`fedward-server plan check {draft} --draft`, then `fedward-server study sign {made.study.name}`", markup=False
    )
