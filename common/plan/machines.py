"""What a plan asks of a hospital's machine: memory of the process that trains, and time of a round; without PyTorch.

    one patient   = 4 bytes x rows x (outputs that layers keep + WORKING x the largest layer's)  + one gradient
                    + the rows of another patient, who is prepared meanwhile
    the process   = PyTorch itself + network, teacher and received model + the sum

Outputs are those of the plan's network at the plan's size, or a patch's (``common.networks.outputs``); beside patches
the process has one whole scan. A hospital that has measured knows better (``client.trainer.measuring``); this is for
whoever has no machine at hand yet, and errs upwards.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

from common.networks.outputs import layer_outputs
from common.plan.phases import Method, Phase
from common.plan.plan import StudyPlan
from common.plan.shape import longest_sum, network_settings
from common.plan.task import TaskKind

WORKING: Final = 4  # a layer's gradient in and out, a kernel's reordered copies of both
MOMENTS: Final = 4  # products of features, their two factors and a gradient, of each scan; two places, shared by all
PROCESS_BYTES: Final = 450e6  # Python and PyTorch before a model (an agent: 400 to 430 MB), with some room
VALUE_BYTES: Final = 4
MAP_BYTES: Final = 8  # of a class at each voxel
PASSES: Final = 3  # forward once; backward to the inputs and to the weights, as much again each
USUAL_AT_ONCE: Final = 16  # ``patients_at_once`` of site.toml
ASK_A_TEACHER: Final = (Method.TEACHER_STUDENT, Method.FIXMATCH, Method.MEAN_TEACHER)
LYING_BYTES: Final = 3  # of a voxel in the cache: 16 bits of level, 8 of class
SCORED_BYTES: Final = 5  # of a voxel that is scored: the answered class, and four comparisons of it with the experts'
SHARE: Final = 0.8  # of a machine's memory: the rest is the agent's, the SuperNode's and the system's


@dataclass(frozen=True)
class Machine:
    """``products_per_s``: multiply-adds that training reaches; estimated for a GPU, where none was measured."""

    name: str
    memory_bytes: float
    products_per_s: float


STATED: Final = (Machine("8 GB processor", 8e9, 1.2e10), Machine("24 GB GPU", 24e9, 2e12))


@dataclass(frozen=True)
class Need:
    """``patient_bytes``: of one patient with as many rows as the plan allows; ``process_bytes``: beside all patients.

    ``products``: of one expected round at the hospital that expects most.
    """

    patient_bytes: float
    process_bytes: float
    products: float

    @property
    def least_bytes(self) -> float:
        """Without so much nothing can be trained: one patient at a time."""
        return self.process_bytes + self.patient_bytes

    def at_once(self, memory_bytes: float) -> int:
        """Return how many patients fit side by side into so much memory for training; 0: not even one."""
        return max(0, math.floor((memory_bytes - self.process_bytes) / self.patient_bytes))


def need_of(plan: StudyPlan) -> Need:
    """Return what the most demanding phase needs. Raises: NetworkUnsuitableError."""
    voxelwise = plan.task.kind is TaskKind.SEGMENTATION
    outputs = layer_outputs(network_settings(plan), size=plan.image.seen_px, voxelwise=voxelwise)
    parameters = longest_sum(plan)
    rows = max(plan.image.taken_of_a_patient * phase.views_per_scan for phase in plan.phases)
    values = rows * (outputs.kept + WORKING * outputs.largest)
    if any(phase.method is Method.RIDGE for phase in plan.phases):
        values += MOMENTS * (rows + 1) * parameters
    vectors = 4 + any(phase.method in ASK_A_TEACHER for phase in plan.phases)  # network, received, sum of 64 bits
    return Need(
        patient_bytes=VALUE_BYTES * (values + 2 * parameters) + ahead_bytes(plan),
        process_bytes=PROCESS_BYTES + VALUE_BYTES * vectors * parameters + whole_scan_bytes(plan),
        products=max(_scans_a_round(plan, phase) for phase in plan.phases) * PASSES * outputs.products,
    )


def whole_scan_bytes(plan: StudyPlan) -> float:
    """Return what one whole scan takes beside the patches of patients; 0 without patches, where a row is the scan.

    The larger of: levels and classes that patches are cut of, and with the answer and comparisons for scoring, beside
    one window's thickness of logits (``client.learning.sliding_window``: its buffer, what is added, what is given out).
    """
    if not plan.image.patch_px:
        return 0.0
    voxels = math.prod(plan.image.size_px)
    slab = voxels * plan.image.patch_px[0] / plan.image.size_px[0]
    answering = plan.evaluation.held_out * (SCORED_BYTES * voxels + 3 * VALUE_BYTES * len(plan.task.classes) * slab)
    return LYING_BYTES * voxels + answering


def ahead_bytes(plan: StudyPlan) -> int:
    """Return the bytes of one patient's rows with their targets: as many are prepared ahead as are being worked on."""
    rows = max(plan.image.taken_of_a_patient * phase.views_per_scan for phase in plan.phases)
    maps = math.prod(plan.image.seen_px) if plan.task.kind is TaskKind.SEGMENTATION else 0
    return rows * (VALUE_BYTES * math.prod(plan.scan_shape) + MAP_BYTES * maps)


def stated_machines(plan: StudyPlan) -> list[dict[str, Any]]:
    """Return, for each of ``STATED``, what the plan needs there and how long a round takes, as plain values."""
    need = need_of(plan)
    return [
        {
            "machine": machine.name,
            "least_mb": round(need.least_bytes / 1e6),
            "patient_mb": round(need.patient_bytes / 1e6),
            "fits": need.at_once(SHARE * machine.memory_bytes) > 0,
            "patients_at_once": min(USUAL_AT_ONCE, need.at_once(SHARE * machine.memory_bytes)),
            "round_s": round(need.products / machine.products_per_s, 1),
        }
        for machine in STATED
    ]


def _scans_a_round(plan: StudyPlan, phase: Phase) -> float:
    """Return the expected passes of a round at the hospital that expects most patients."""
    patients = max(
        phase.labelled_sampling_rate * site.labelled_patients
        + phase.unlabelled_sampling_rate * site.unlabelled_patients
        for site in plan.sites
    )
    return patients * plan.image.taken_of_a_patient * phase.views_per_scan * phase.local_steps
