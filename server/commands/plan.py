"""fedward-server plan: make, check and sign the study plan."""

import stat
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from common.encoders.showing import card_rows
from common.errors import FedwardError
from common.files import replace_atomically, write_new
from common.plan.combinations import check_combinations
from common.plan.errors import PlanInvalidError, PlanWeakPrivacyError
from common.plan.figure_file import figures_in, own_folder
from common.plan.fitting import check_fit, require_range
from common.plan.guarantee import check_guarantee
from common.plan.lights_table import lights_table
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan
from common.plan.reply_slot import check_reply_slot
from common.plan.selection import check_selection
from common.plan.settings_read import check_settings_are_read
from common.plan.shape import phase_layouts
from common.plan.signing import PlanSignature, sign_plan, signature_path, verify_plan
from common.plan.summary import summarise
from common.plan.task import TaskKind
from common.terminal import JsonOption, errors, output, print_json
from common.trust.identity import read_public_key, read_signing_key
from common.trust.roster import read_roster
from server.commands.anyway import AnywayOption, ReasonOption, require_no_red
from server.commands.plan_encoder import shelf_near, show_encoder
from server.commands.question_options import (
    DEFAULT_CLASSES,
    DEFAULT_MODALITY,
    Asked,
    ChannelsOption,
    ClassesOption,
    EncoderOption,
    EpsilonOption,
    MaskShareOption,
    ModalityOption,
    RecipeOption,
    RoundsOption,
    SizeOption,
    SpacingOption,
    TaskOption,
    WindowOption,
    recipe_facts,
    tell_recipe,
    wanted,
)
from server.drafting.fixing import changes, fixed
from server.drafting.plan_text import plan_toml
from server.drafting.recipes import Recipe
from server.study.new_plan import COMMENTS, new_plan

MOST_KEPT = 10_000  # files as they were
FIXED_HEAD = "# Written by `fedward-server plan fix`; after another change of yours, run it again.\n"

plan_app = typer.Typer(name="plan", help="Make, check and sign a study plan.", no_args_is_help=True)
PlanFile = Annotated[Path, typer.Argument(help="The study plan (TOML).")]


@plan_app.command("check")
def check(
    file: PlanFile,
    *,
    draft: Annotated[bool, typer.Option("--draft", help="Accept a plan that is not signed yet.")] = False,
    public_key: Annotated[
        Path | None, typer.Option(help="The coordinator's public key; the signature must be of this key.")
    ] = None,
    card: Annotated[
        Path | None, typer.Option("--card", help="Card of the plan's public encoder; default: the federation folder's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a plan and print what it asks, what it promises, and what leaves a site.

    A plan on a public encoder is compared with the encoder's card: `--card`, or what `encoder add` took into the
    federation folder, which is looked for here and above the plan.

    Example: `fedward-server plan check study.toml --public-key coordinator.pub`
    """
    plan = read_plan(file)
    summary = checked_summary(plan, str(file))
    show_encoder(summary, plan, file, card)
    failure: FedwardError | None = None
    signature: PlanSignature | None = None
    try:
        signature = verify_plan(plan, file, read_public_key(public_key) if public_key else None)
    except FedwardError as error:
        failure = None if draft else error
    summary["signed_by"] = signature.fingerprint if signature else None
    print_json(summary) if as_json else print_summary(summary)
    if failure:
        raise failure


@plan_app.command("sign")
def sign(
    file: PlanFile,
    *,
    key: Annotated[Path, typer.Option(help="The coordinator's secret key (0600).")],
    anyway: AnywayOption = False,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Check a plan and sign its digest; the signature lies beside it as FILE.sig.

    A plan with a red light (`plan check`) is not signed without `--anyway --reason TEXT`.

    Example: `fedward-server plan sign study.toml --key coordinator.key`
    """
    plan = read_plan(file)
    require_range(plan, str(file))
    signing_key = read_signing_key(key)
    require_no_red(checked_summary(plan, str(file)), str(file), anyway=anyway, reason=reason)
    target = sign_plan(plan, file, signing_key)
    if as_json:
        print_json({"digest": plan.digest(), "signature": str(target)})
    else:
        output.print(f"signed {plan.digest()} in {target}", markup=False)


@plan_app.command("new")
def new(
    file: PlanFile,
    *,
    roster: Annotated[Path, typer.Option(help="The signed roster: the plan names its sites.")],
    patients: Annotated[list[str], typer.Option(help="Declared counts, SITE=LABELLED,UNLABELLED; once for each site.")],
    order_key: Annotated[Path, typer.Option(help="Public key that will sign the rounds (an online key).")],
    recipe: RecipeOption = Recipe.AUTO,
    task: TaskOption = TaskKind.CLASSIFICATION,
    classes: ClassesOption = DEFAULT_CLASSES,
    modality: ModalityOption = DEFAULT_MODALITY,
    size: SizeOption = "",
    spacing: SpacingOption = "",
    window: WindowOption = "",
    channels: ChannelsOption = 1,
    mask_share: MaskShareOption = None,
    encoder: EncoderOption = "",
    epsilon: EpsilonOption = 8.0,
    rounds: RoundsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a plan by the recipe that measured best for its task, with every number that follows computed.

    An encoder is looked for in the federation folder here or above the file.

    Example: `fedward-server plan new study.toml --roster roster.json --order-key orders.pub --patients north=100,900 …`
    """
    key, signed = read_public_key(order_key), read_roster(roster)
    words = (classes, modality, size, spacing, window)
    asked = wanted(Asked(recipe, task, *words, channels, mask_share, encoder, epsilon, rounds), shelf_near(file))
    if not as_json:
        errors.print("computing noise, rounds and range; up to half a minute", markup=False)
    made = new_plan(file.stem, signed, patients, order_key=key, wanted=asked)
    write_new(file, made.text.encode())
    plan = read_plan(file)
    if as_json:
        print_json({"file": str(file), "digest": plan.digest(), **recipe_facts(made)})
    else:
        tell_recipe(made)
        output.print(f"wrote {file}: read it, change it, then `fedward-server plan check {file} --draft`", markup=False)


@plan_app.command("fix")
def fix(file: PlanFile, *, as_json: JsonOption = False) -> None:
    """Compute anew what follows from what you changed in a plan: noise, layouts, range, reply slot; say each change.

    The file as it was, comments and all, stays beside it (.before, .before-2 ...). A signed plan is left alone.

    Example: `fedward-server plan fix study.toml`
    """
    if signature_path(file).exists():
        raise PlanInvalidError(f"{file} is signed, so it stays as it is; make another study for another plan")
    plan = read_plan(file)
    show_encoder({"warnings": []}, plan, file, None)
    new = fixed(plan, str(file))
    found = changes(plan, new)
    before = _beside(file.resolve())
    if found:
        mode = stat.S_IMODE(file.stat().st_mode)
        write_new(before, file.read_bytes(), mode=mode)
        replace_atomically(file.resolve(), (FIXED_HEAD + plan_toml(new, COMMENTS)).encode(), mode)
    if as_json:
        changed = [{"place": place, "before": old, "after": value} for place, old, value in found]
        print_json({"file": str(file), "changes": changed, "digest": new.digest()})
        return
    for place, old, value in found:
        output.print(f"{place}: {_short(old)} -> {_short(value)}", markup=False)
    told = f"wrote {file} (before: {before.name})" if found else f"{file}: nothing to change"
    output.print(f"{told}; check it with `fedward-server plan check {file} --draft`", markup=False)


def _beside(file: Path) -> Path:
    """Return a name beside a file that nothing has yet."""
    names = (f"{file.name}.before{'' if number == 1 else f'-{number}'}" for number in range(1, MOST_KEPT))
    return next(place for name in names if not (place := file.with_name(name)).exists())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return f"{text[:12]}…" if len(text) > 40 else text


def checked_summary(plan: StudyPlan, source: str) -> dict[str, Any]:
    """Check combinations, network, settings, guarantee and selection; return the summary. Raises what they raise.

    Where numbers do not follow from what the plan says, the sentence names `plan fix`.
    """
    check_combinations(plan, source)
    try:
        return _computed_summary(plan, source)
    except (PlanInvalidError, PlanWeakPrivacyError) as error:
        fix = "; after a change by hand `fedward-server plan fix` computes noise, layouts, range and reply slot anew"
        raise type(error)(f"{error}{fix}") from None


def _computed_summary(plan: StudyPlan, source: str) -> dict[str, Any]:
    fits = check_fit(plan, phase_layouts(plan), source)
    check_settings_are_read(plan, source)
    check_reply_slot(plan, source)
    with figures_in(own_folder()):
        bought = check_guarantee(plan, source)
        check_selection(plan, source)
        return summarise(plan, bought, fits)


def machine_line(found: dict[str, Any]) -> str:
    """Return what a plan needs on one of the stated machines, for a person."""
    if not found["fits"]:
        return f"{found['machine']}: TOO SMALL: one patient at a time takes {found['least_mb']} MB"
    return (
        f"{found['machine']}: {found['least_mb']} MB for one patient at a time, {found['patient_mb']} MB for each "
        f"more, {found['patients_at_once']} fit; about {found['round_s']:g} s of computing in a round"
    )


def print_summary(summary: dict[str, Any]) -> None:
    """Print a summary as tables for a person."""
    table = Table(title=escape(f"{summary['study']}: {summary['title']}"), show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name in ("task", "privacy", "secure_aggregation"):
        table.add_row(name.replace("_", " "), escape(_lines(summary[name])))
    if summary.get("encoder"):
        rows = "\n".join(f"{name}: {text}" for name, text in card_rows(summary["encoder"]))
        table.add_row("public encoder", escape(rows))
    if summary["contact"]:
        table.add_row("contact", escape(summary["contact"]))
    table.add_row("evaluations", str(summary["evaluations"]))
    table.add_row("result", escape(_lines(summary["result"])))
    table.add_row("sites", escape("\n".join(_site_line(site) for site in summary["sites"])))
    for phase in summary["phases"]:
        table.add_row(escape(f"phase {phase['name']}"), escape(_lines(phase)))
    machines = "\n".join(map(machine_line, summary["machines"]))
    table.add_row("a hospital's machine, estimated", escape(machines))
    table.add_row("leaves a site", escape(_lines(summary["leaves_a_site"])))
    output.print(table)
    output.print(lights_table(summary["lights"]))
    output.print(f"signed by {summary['signed_by'] or 'nobody yet'}")
    output.print(f"digest    {summary['digest']}")
    for warning in summary["warnings"]:
        output.print(f"[yellow]warning[/] {escape(warning)}")


def _lines(facts: dict[str, Any]) -> str:
    return "\n".join(f"{name.replace('_', ' ')}: {_value(value)}" for name, value in facts.items() if value is not None)


def _value(value: Any) -> str:
    if value is None:
        return "not bounded"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(str(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _site_line(site: dict[str, Any]) -> str:
    return f"{site['name']}: {site['labelled_patients']} labelled, {site['unlabelled_patients']} unlabelled patients"
