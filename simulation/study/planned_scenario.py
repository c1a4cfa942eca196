"""From a plan for real hospitals to a scenario that tries it first: the same study, on scans that nobody must protect.

    plan        task, image, network, phases with their noise, thresholds, promise: as they are
    hospitals   as many, together with as many patients, labelled and not; all of one size, where the plan's differ
    scans       drawn (radiographs, CT, MR), with other findings under the plan's names of classes; or an archive

What it scores is of those scans. Drawn findings are easier or harder than real ones: it says whether the plan learns.
"""

from pathlib import Path
from typing import Any, Final

from common.networks.shipped_weights import available
from common.plan.plan import Site, StudyPlan
from common.plan.task import SEEDED, Modality, TaskKind
from server.drafting.plan_text import toml_text
from simulation.errors import ScenarioInvalidError
from simulation.hospitals.phantom_hospitals import MODALITIES
from simulation.hospitals.phantoms import CLASSES, PhantomKind
from simulation.study.scenario import FORMAT

LONGEST_NAME: Final = 48
LEAST_SITES: Final = 3
PLAIN_PARTS: Final = ("image", "privacy", "secure_aggregation", "aggregation", "evaluation", "timing")


def write_scenario(plan: StudyPlan, file: Path, *, archive: Path | None, encoder: tuple[Path, Path] | None) -> None:
    """Write the scenario that tries ``plan``, for ``fedward-sim run`` to read. Raises: as ``scenario_values``."""
    values = scenario_values(plan, archive=archive, encoder=encoder)
    head = f"# Made by `fedward-sim run --from`: the plan {plan.digest()} on scans that nobody must protect.\n"
    file.write_text(head + toml_text(values), encoding="utf-8")


def scenario_values(plan: StudyPlan, *, archive: Path | None, encoder: tuple[Path, Path] | None) -> dict[str, Any]:
    """Return the scenario that tries ``plan``, as plain values. ``encoder``: ONNX file and card of the plan's.

    Raises: ScenarioInvalidError where nothing can be drawn for such a plan.
    """
    hospitals = _drawn(plan) if archive is None else _imported(plan, archive)
    classes = _drawn_classes(plan) if archive is None else plan.task.classes
    task = plan.task.model_dump(mode="json") | {"classes": list(classes)}
    if archive is None:  # drawn classes: the normal one is the first, what is found the others
        task |= {"normal_class": "", "lesions": list(classes[1:]) if plan.task.lesions else []}
    phases = [phase.model_dump(mode="json", exclude={"layout_hash"}) for phase in plan.phases]
    parts = {name: getattr(plan, name).model_dump(mode="json") for name in PLAIN_PARTS}
    return {
        "format": FORMAT,
        "name": plan.study.name[:LONGEST_NAME],
        "title": f"Tried before it is signed: {plan.study.title}"[:200],
        "hospitals": hospitals | _patients(plan.sites, drawn=archive is None),
        "study": {"task": task, "network": _network(plan, encoder), **parts, "phases": phases},
    }


def _patients(sites: tuple[Site, ...], *, drawn: bool) -> dict[str, Any]:
    """Return how many patients the hospitals have together: with a label, and in all."""
    if len(sites) < LEAST_SITES:
        raise ScenarioInvalidError(f"the plan has {len(sites)} hospitals; fewer than {LEAST_SITES} cannot be simulated")
    totals = [site.labelled_patients + site.unlabelled_patients for site in sites]
    labelled = sum(site.labelled_patients for site in sites)
    among = sum(total for site, total in zip(sites, totals, strict=True) if site.labelled_patients)
    shared = {
        "sites": len(sites),
        "labelled_share": labelled / among if among else 0.0,
        "unlabelled_sites": sum(site.labelled_patients == 0 for site in sites) % len(sites),
    }
    return shared | ({"patients": max(1, round(sum(totals) / len(sites)))} if drawn else {"limit": sum(totals)})


def _kind(plan: StudyPlan) -> PhantomKind:
    for kind, modality in MODALITIES.items():
        if Modality(modality) in plan.task.modalities:
            return kind
    raise ScenarioInvalidError(
        f"{', '.join(plan.task.modalities)} cannot be drawn, only {', '.join(MODALITIES.values())}; give images with "
        "--data FILE.npz"
    )


def _drawn(plan: StudyPlan) -> dict[str, Any]:
    kind, size = _kind(plan), plan.image.size_px
    if plan.task.kind is TaskKind.MULTI_LABEL or plan.image.channels == 3:
        what = "several labels at once" if plan.task.kind is TaskKind.MULTI_LABEL else "pictures in colour"
        raise ScenarioInvalidError(f"{what} cannot be drawn; give images with --data FILE.npz")
    return {
        "source": "phantoms",
        "kind": kind.value,
        "size_px": max(size[-2:]),
        "depth": size[0] if len(size) == 3 else 0,
        "lesions": len(_drawn_classes(plan)) - 1,
        "segmented": plan.task.kind is TaskKind.SEGMENTATION,
    }


def _drawn_classes(plan: StudyPlan) -> tuple[str, ...]:
    """Return the drawn findings that stand for the plan's classes, the normal one first."""
    wanted = len(plan.task.classes)
    if plan.task.kind is TaskKind.SEGMENTATION:
        known: tuple[str, ...] = ("background", "lesion")
    else:
        known = CLASSES[_kind(plan)]
    if wanted > len(known):
        raise ScenarioInvalidError(
            f"the plan has {wanted} classes, {len(known)} can be drawn; give images with --data FILE.npz"
        )
    return known[:wanted]


def _imported(plan: StudyPlan, archive: Path) -> dict[str, Any]:
    modality = plan.task.modalities[0].value
    hospitals: dict[str, Any] = {"source": "archive", "archive": str(archive.resolve()), "modality": modality}
    return hospitals | {"classes": list(plan.task.classes)}


def _network(plan: StudyPlan, encoder: tuple[Path, Path] | None) -> dict[str, Any]:
    network = plan.network
    values = network.model_dump(mode="json", exclude={"encoder", "initialisation"})
    if network.encoder is None:
        shipped = any(entry.digest == network.initialisation for entry in available())
        if network.initialisation != SEEDED and not shipped:
            raise ScenarioInvalidError("network.initialisation: start weights of the plan are not shipped, so not here")
        return values | {"initialisation": "public" if shipped else SEEDED}
    if encoder is None:
        raise ScenarioInvalidError(
            "the plan's public encoder is not in a federation folder here or above the plan: give --encoder and --card"
        )
    file, card = (str(path.resolve()) for path in encoder)
    named = {"file": file, "card": card, "outputs": list(network.encoder.outputs), "views": network.encoder.views}
    return {key: value for key, value in values.items() if key != "width"} | {"encoder": named}
