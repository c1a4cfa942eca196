"""fedward-server study: make and sign the studies of a federation."""

from dataclasses import asdict
from typing import Annotated

import typer

from common.encoders.shelf import EncoderShelf
from common.plan.reading import read_plan
from common.plan.signing import signature_path
from common.plan.task import TaskKind
from common.terminal import JsonOption, errors, output, print_json
from server.commands.anyway import AnywayOption, ReasonOption, require_no_red
from server.commands.federation_options import HERE, FolderOption, StudyArgument, federation_at, study_at
from server.commands.go_on import go_on
from server.commands.plan import checked_summary, print_summary
from server.commands.plan_encoder import show_encoder
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
from server.drafting.recipes import Recipe
from server.study.disk import disk_for
from server.study.folder import StudyFolder, open_study
from server.study.making import new_study, sign_study

study_app = typer.Typer(name="study", help="Make and sign the studies of a federation.", no_args_is_help=True)


study_app.command("go-on")(go_on)


@study_app.command("new")
def new(
    study: StudyArgument,
    *,
    patients: Annotated[list[str], typer.Option(help="Declared counts, SITE=LABELLED,UNLABELLED; once for each site.")],
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
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Make a study for the current roster: an order key, and a plan by the recipe that measured best for its task.

    Example: `fedward-server study new lungs-2026 --classes normal,pneumonia --modality CR,DX --size 64
    --patients north=100,900 --patients south=50,500 …`
    """
    federation, _ = federation_at(folder)
    words = (classes, modality, size, spacing, window)
    asked = Asked(recipe, task, *words, channels, mask_share, encoder, epsilon, rounds)
    sought = wanted(asked, EncoderShelf(federation.encoders))
    if not as_json:
        errors.print("computing noise, rounds and range; up to half a minute", markup=False)
    made, new = new_study(federation, study, patients, sought)
    plan = read_plan(made.plan)
    disk = disk_for(plan, made.path)
    if as_json:
        print_json(
            {
                **asdict(disk),
                "study": study,
                "plan": str(made.plan),
                "order_key": plan.study.order_key,
                "roster_digest": plan.study.roster_digest,
                **recipe_facts(new),
            }
        )
        return
    tell_recipe(new)
    output.print(disk.sentence, markup=False)
    output.print(f"wrote {made.plan}: read it, change it, check it with", markup=False)
    output.print(
        f"`fedward-server plan check {made.plan} --draft`, then `fedward-server study sign {study}`", markup=False
    )


@study_app.command("sign")
def sign(
    study: StudyArgument,
    *,
    anyway: AnywayOption = False,
    reason: ReasonOption = "",
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Check a study's plan and sign it; then send study.toml and study.toml.sig to every hospital for approval.

    A plan with a red light (`plan check`) is not signed without `--anyway --reason TEXT`.

    Example: `fedward-server study sign lungs-2026`
    """
    federation, _ = federation_at(folder)
    place = StudyFolder(federation.existing_study(study))
    plan = read_plan(place.plan)
    summary = checked_summary(plan, str(place.plan))
    show_encoder(summary, plan, place.plan, None)
    require_no_red(summary, str(place.plan), anyway=anyway, reason=reason)
    before = signature_path(place.plan).exists()
    signed = sign_study(federation, study, reason=reason.strip())
    if as_json:
        signature = str(signature_path(place.plan))
        facts = {"study": study, "digest": signed.digest(), "plan": str(place.plan), "signature": signature}
        print_json({**facts, "signed_before": before})
        return
    print_summary({**summary, "signed_by": "the coordinator"})
    output.print(f"signed; send {place.plan} and {signature_path(place.plan).name} to every hospital", markup=False)
    if before:
        output.print(
            f"it was signed before: if the plan changed since, it is another study now ({signed.digest()[:12]}), and "
            "every hospital must approve it again",
            markup=False,
        )


@study_app.command("heads")
def heads(
    study: StudyArgument,
    *,
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show the last head of each site's privacy ledger: what a site that restored a backup compares its copy with.

    Each site signs the head with its keys in every attempt; it says nothing about patients.

    Example: `fedward-server study heads lungs-2026`
    """
    from server.study.status import read_journal, require_started  # noqa: PLC0415 (PyTorch; signing needs none)

    opened = open_study(study_at(study, folder))
    journal = require_started(read_journal(opened), opened)
    last, digest = journal.last_heads(), opened.plan.digest()
    attempt = journal.last_attempt()
    journal.close()
    if as_json:
        sites = {site: {"attempt": row.attempt, "head": row.head.hex()} for site, row in last.items()}
        print_json({"study": opened.plan.study.name, "plan": digest, "last_attempt": attempt, "sites": sites})
        return
    output.print(f"{opened.plan.study.name}: last attempt {attempt}", markup=False)
    for site, row in sorted(last.items()):
        output.print(f"{site}, attempt {row.attempt}: `fedward-site ledger --anchor", markup=False)
        output.print(f"{digest}:{row.head.hex()}`", markup=False, soft_wrap=True)
