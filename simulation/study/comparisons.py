"""What the federation is compared with: the same plan, trained another way, judged on the same test images.

alone      one hospital, its own patients, the whole noise on its own sum: the same privacy for its patients
supervised all hospitals, labelled patients only
no-noise   all hospitals, clipped as before, no noise
pooled     all patients in one place, the noise once: what no law allows, as the ceiling
atlas      the hospitals' mean label map, for a segmentation: no scan is looked at, so a model must be better
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from client.final_model.atlas import mean_label_map
from client.installation.folder import SiteFolder
from client.learning.cached_patients import CachedPatients
from client.learning.patients import Patients
from common.plan.phases import Method, Phase
from common.plan.plan import Site, StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.reading import read_plan
from common.plan.task import TaskKind
from simulation.report.facts import Compared, Estimate, Role
from simulation.study.plain_training import RememberedPatients, UnitedPatients, train_in_the_clear
from simulation.study.run_folder import RunFolder, read_json, write_json
from simulation.study.scenario import Comparisons, Running
from simulation.study.test_set import load_test_set

POOLED_NAME = "pooled"
ATLAS = "atlas"
Done = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Task:
    """One model to train: ``key`` names it, ``site`` is the hospital that is alone."""

    key: str
    label: str
    role: Role
    note: str
    site: str = ""


def tasks(plan: StudyPlan, wanted: Comparisons) -> list[Task]:
    """Return the models to train for a plan, those asked for; a hospital that cannot train alone is left out."""
    found: list[Task] = []
    if wanted.alone:
        found += [_alone(plan, site) for site in plan.sites if _can_train(plan, site)]
    if wanted.supervised_only and any(phase.unlabelled_sampling_rate > 0 for phase in plan.phases):
        note = "all hospitals, the same rounds and noise, patients with a diagnosis only"
        found.append(Task("supervised", "Without unlabelled scans", Role.VARIANT, note))
    if wanted.without_privacy and plan.privacy.noise is not NoisePlacement.NONE:
        note = "all hospitals, the same rounds, contributions clipped as before, but no noise: no privacy"
        found.append(Task("no-noise", "Without privacy noise", Role.VARIANT, note))
    if wanted.pooled:
        note = "all patients in one place, the same rounds, the noise added once: the same privacy for each patient"
        found.append(Task("pooled", "All scans in one place", Role.CEILING, note))
    if plan.task.kind is TaskKind.SEGMENTATION:
        note = "the mean of all hospitals' training label maps, without noise; the scan is not looked at"
        found.append(Task(ATLAS, "Mean label map, no scan looked at", Role.VARIANT, note))
    return found


def run_comparisons(folder: RunFolder, plan: StudyPlan, wanted: Comparisons, running: Running, done: Done) -> None:
    """Train and judge every model that is asked for and not there yet, in processes of their own.

    ``done`` is called with each model's label. Safe to interrupt: each result is written when it is complete.
    """
    folder.comparisons.mkdir(exist_ok=True)
    left = [task for task in tasks(plan, wanted) if not _file(folder, task).exists()]
    if not left:
        return
    processes = min(running.comparison_processes, len(left))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        futures = {pool.submit(train_one, folder.path, task, running.patients_at_once): task for task in left}
        for future in as_completed(futures):
            future.result()
            done(futures[future].label)


def read_comparisons(folder: RunFolder, plan: StudyPlan, wanted: Comparisons) -> tuple[Compared, ...]:
    """Return the results that are there, in the order of ``tasks``."""
    return tuple(_results(folder, tasks(plan, wanted)))


def train_one(path: Path, task: Task, patients_at_once: int) -> None:
    """Train one model, judge it, and write the result. Runs in a process of its own."""
    folder = RunFolder(path)
    plan = read_plan(folder.study.plan)
    patients = {site.name: site_patients(folder.site(site.name), plan) for site in plan.sites if _takes(task, site)}
    if task.key == ATLAS:
        _judge_atlas(folder, plan, task, patients)
        return
    chosen, held = variant(plan, task, patients)
    network = train_in_the_clear(chosen, held, with_noise=task.key != "no-noise", patients_at_once=patients_at_once)
    score = load_test_set(folder.test_set, plan).judge(network)
    write_json(_file(folder, task), {"estimate": asdict(score.estimate)})


def _judge_atlas(folder: RunFolder, plan: StudyPlan, task: Task, patients: Mapping[str, Patients]) -> None:
    atlas = mean_label_map(patients, classes=len(plan.task.classes))
    if atlas is not None:
        tests = load_test_set(folder.test_set, plan)
        score = tests.judge_label_maps(atlas.expand(len(tests.images), *atlas.shape))
        write_json(_file(folder, task), {"estimate": asdict(score.estimate)})


def site_patients(site_folder: Path, plan: StudyPlan) -> RememberedPatients:
    """Return a simulated site's training patients, decrypted into memory."""
    return RememberedPatients(CachedPatients.of_site(SiteFolder(site_folder), plan))


def variant(plan: StudyPlan, task: Task, patients: Mapping[str, Patients]) -> tuple[StudyPlan, dict[str, Patients]]:
    """Return the plan as it is changed for a comparison, and who trains.

    The changed plan is never signed or sent: with one site it would break the plan's own rules.
    """
    if task.key == "supervised":
        return plan.model_copy(update={"phases": tuple(_labelled_only(plan))}), dict(patients)
    if task.key == "pooled":
        whole = Site(
            name=POOLED_NAME,
            labelled_patients=sum(site.labelled_patients for site in plan.sites),
            unlabelled_patients=sum(site.unlabelled_patients for site in plan.sites),
        )
        return _one_site(plan, whole), {POOLED_NAME: UnitedPatients(patients)}
    if task.site:
        site = next(site for site in plan.sites if site.name == task.site)
        return _one_site(plan, site), {site.name: patients[site.name]}
    return plan, dict(patients)


def _one_site(plan: StudyPlan, site: Site) -> StudyPlan:
    """Return the plan for one site that carries the whole noise: h = 1."""
    rules = plan.secure_aggregation
    alone = rules.model_copy(update={"minimum_survivors": rules.assumed_colluders + 1})
    phases = tuple(phase for phase in plan.phases if _expected(phase, site) > 0)
    return plan.model_copy(update={"sites": (site,), "secure_aggregation": alone, "phases": phases})


def _labelled_only(plan: StudyPlan) -> Iterator[Phase]:
    for phase in plan.phases:
        if phase.labelled_sampling_rate > 0 and phase.method is Method.PRIOR:
            yield phase
        elif phase.labelled_sampling_rate > 0:
            yield phase.model_copy(update={"method": Method.SUPERVISED, "unlabelled_sampling_rate": 0.0})


def _alone(plan: StudyPlan, site: Site) -> Task:
    promise = "no privacy" if plan.privacy.epsilon is None else f"epsilon {plan.privacy.epsilon:g}"
    patients = f"{site.labelled_patients} labelled and {site.unlabelled_patients} unlabelled patients"
    note = f"its own {patients}, the same rounds, {promise}"
    return Task(f"alone-{site.name}", f"{site.name} alone", Role.ALONE, note, site.name)


def _can_train(plan: StudyPlan, site: Site) -> bool:
    """Whether a hospital has what the study needs: labels, unless no phase uses any."""
    needs_labels = any(phase.labelled_sampling_rate > 0 for phase in plan.phases)
    return site.labelled_patients > 0 or not needs_labels


def _expected(phase: Phase, site: Site) -> float:
    return (
        phase.labelled_sampling_rate * site.labelled_patients
        + phase.unlabelled_sampling_rate * site.unlabelled_patients
    )


def _takes(task: Task, site: Site) -> bool:
    return not task.site or task.site == site.name


def _results(folder: RunFolder, wanted: list[Task]) -> Iterator[Compared]:
    for task in wanted:
        found = read_json(_file(folder, task))
        if found:
            yield Compared(task.key, task.label, task.role, Estimate(**found["estimate"]), task.note)


def _file(folder: RunFolder, task: Task) -> Path:
    return folder.comparisons / f"{task.key}.json"


def _one_thread() -> None:
    torch.set_num_threads(1)
