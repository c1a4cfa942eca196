"""Which engine is fastest here: timed on one or two made-up patients, and believed only where it keeps patients apart.

Clipping bounds what a patient adds. It does not bound what a patient does to the *others'* gradients, and arithmetic
can: kernels choose their order of summation by the batch's shape, and some are plainly wrong. One patient at a time,
by the reference, has no neighbours and nothing to show: it is what stands wherever something else does not

    save enough         two side by side against two alone, on public random data
    give the right      the reference's gradient, of a network with other weights
    keep apart          the same gradient to the last bit beside others, in another place, beside an empty one, again
    keep to the bit     in each size of part in which it may be used: nobody's gradient hangs on how many were sampled
                        (with ``one_size``: in the one size of all parts, in each of its places)
    end in time         ``Budget``

What is wrong only now and then may pass a trial, so what is known to be is never tried: torch 2.13 on a processor,
bfloat16, weight gradient of a 3-D convolution at 2x2x2 (different garbage at some calls, measured).
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from client.private_gradients.budget import Budget, Spending, seconds_on
from client.private_gradients.clipping import patient_norms
from client.private_gradients.compiled import COMPILED
from client.private_gradients.places import same_in_each_place
from client.private_gradients.problem import Engine, Problem
from client.private_gradients.settings import EngineName
from client.private_gradients.stacks import PatientStack, public_example
from client.private_gradients.way import Way
from common.networks.errors import NetworkUnsuitableError

REPETITIONS: Final = 3
VALUES_COMPARED: Final = 1 << 16  # of gradients of each patient, at least, before two sizes of part count as the same
MOST_EXAMPLES: Final = 8
TIMINGS: Final = 3
WORTHWHILE: Final = 0.97  # larger parts must save this much, or noise in the timing would decide
# Where one patient has other bits than two, a part holds two at least, and one who comes alone costs two. At this
# saving even one who comes alone costs no more than a tenth above what the reference takes.
WORTHWHILE_IN_PAIRS: Final = 0.55
# A patient's gradient that takes less than this is mostly overhead (a head on features): then two save little and
# sixteen nearly everything. Where company saves so much, one who comes alone may cost two.
OVERHEAD_S: Final = 3e-3
WORTHWHILE_IN_COMPANY: Final = 0.4
ODD: Final = 3
# Against the reference: rounding separates engines by 1e-4 (float32: ties in ReLU and pooling flip) or some percent
# (bfloat16); a wrong gradient is far off.
TOLERANCE: Final = 1e-2
AUTOCAST_TOLERANCE: Final = 0.25
# Against itself beside other neighbours: 0 is expected, and found on every processor measured (no GPU was). Where a
# kernel moves a neighbour by up to this much, rounding to the lattice can make sqrt(1e-6 C step sqrt(d)) of it: 1e-4 C;
# parts then have one size.
NEIGHBOUR_TOLERANCE: Final = 1e-6


def choose(
    engines: Mapping[str, Engine],
    problem: Problem,
    stack: PatientStack,
    *,
    reference: Engine,
    spending: Spending | None = None,
    one_size: bool = False,
) -> Way:
    """Return the fastest sound way; it uses bfloat16 only if ``problem`` asks for it and that keeps patients apart.

    Of ``stack`` the shape is used: the rows of a patient, and the most patients side by side. Inputs are public random
    numbers, targets zero, and the network is a copy with perturbed weights (a zero head would hide an encoder's
    gradient), so the choice depends on no patient. Once the budget of ``spending`` is spent the reference stands, one
    patient at a time. ``one_size``: every part holds as many places, empty ones too, and a gradient must have the same
    bits in each place; where few numbers are trained, agreement of two sizes on examples proves too little.
    Raises: NetworkUnsuitableError if no engine is sound, for example because a layer mixes the rows of a batch.
    """
    alone = Way(EngineName.LOOP, reference, 1, autocast=False)
    if list(engines.values()) == [reference] and not problem.autocast:
        return alone
    trial = _Trial(problem, stack, reference, spending or Spending(Budget()), one_size=one_size)
    for autocast in (True, False) if problem.autocast and not _known_to_be_wrong(problem) else (False,):
        way = trial.best(engines, alone, autocast=autocast)
        if way is not None:
            return way
    if trial.ended or one_size or reference in engines.values():
        return alone
    raise NetworkUnsuitableError(
        f"no way of computing gradients ({', '.join(engines)}) keeps patients apart in this network; "
        "take a network without batch statistics"
    )


class _Trial:
    """Public random data, a perturbed copy of the network, and the right answer. ``ended``: the budget is spent."""

    def __init__(
        self, problem: Problem, stack: PatientStack, reference: Engine, spending: Spending, *, one_size: bool
    ) -> None:
        self._problem = replace(problem, network=_perturbed(problem), autocast=False)
        self._stack, self._reference, self._one_size = stack, reference, one_size
        self._budget, self._planned, self.ended = spending.budget, spending.planned_patients, False
        self._known: dict[int, tuple[PatientStack, Tensor]] = {}
        self._patient_s = 0.0  # of the reference

    def best(self, engines: Mapping[str, Engine], alone: Way, *, autocast: bool) -> Way | None:
        """Return the fastest sound way with or without bfloat16; None where there is none, or no time to find it."""
        timed = []
        for name, engine in engines.items():
            way = Way(str(name), engine, self._first_size(name, engine, alone), autocast)
            seconds = self._seconds_if_right(way)
            if seconds is not None:
                timed.append((seconds / way.patients, way))
        for seconds, way in sorted(timed, key=_turn):
            if self.ended:
                return None
            rival = min((each for each, other in timed if other.patients == 1), default=float("inf"))
            if way.patients == 1 or (way.name == COMPILED and self._keeps_apart(way) is not None):
                return way
            found = None if way.name == COMPILED else self._grown(way, seconds, rival)
            if found is not None:
                return found
        return None

    def _first_size(self, name: str, engine: Engine, alone: Way) -> int:
        """Return how many patients an engine is tried on: two, to see what company saves; compiled shapes are fixed."""
        if engine is alone.engine:
            return 1
        return self._stack.patients if name == COMPILED else min(2, self._stack.patients)

    def _seconds_if_right(self, way: Way) -> float | None:
        """Return the least time of some runs; None if the way cannot do this network, is wrong, or time is up."""
        known = self._example(way.patients)
        if known is None:
            return None
        example, expected = known
        try:
            found, first_s = self._run(way, example)
        except RuntimeError:  # a layer that this engine cannot do
            return None
        if _differ(found, expected, AUTOCAST_TOLERANCE if way.autocast else TOLERANCE):
            return None
        return self._least_s(way, example, first_s)

    def _grown(self, way: Way, patient_s: float, rival_s: float) -> Way | None:
        """Return the way with as many side by side as are faster and to the bit the same; None if company saves little.

        ``patient_s``: time for each of two; ``rival_s``: of one who is alone, by the fastest way for one.
        """
        moved = self._keeps_apart(way)
        if moved is None:
            return None
        exact = moved == 0 and not self._one_size
        if exact and self._same(way, replace(way, patients=1), way.patients):
            way = replace(way, smaller=(1,))
        odd = exact and way.smaller == () and self._stack.patients >= ODD and self._odd_too(way)
        pays = patient_s <= rival_s * (WORTHWHILE if 1 in way.smaller else WORTHWHILE_IN_PAIRS)
        if not pays and rival_s > OVERHEAD_S:
            return None
        while 2 * way.patients <= self._stack.patients and self._allows(8 * way.patients * patient_s):
            sizes = (way.patients, *way.smaller) if exact else ()
            larger = replace(way, patients=2 * way.patients, smaller=sizes)
            example = public_example(self._stack, patients=larger.patients)
            if not self._same(larger, way, larger.patients, exact=exact):
                break
            larger_s = self._least_s(replace(larger, smaller=()), example) / larger.patients
            if larger_s > WORTHWHILE * patient_s:
                break
            way, patient_s = larger, larger_s
        if not pays and patient_s > WORTHWHILE_IN_COMPANY * rival_s:
            return None
        if odd:
            patients, *smaller = sorted({way.patients, *way.smaller, ODD}, reverse=True)
            way = replace(way, patients=patients, smaller=tuple(smaller))
        if self._one_size:
            return self._same_in_each_place(way)
        return way if way.patients <= 2 or self._keeps_apart(way) is not None else None

    def _same_in_each_place(self, way: Way) -> Way | None:
        """Return the way in parts of the largest size whose places are alike; None where even two differ."""
        for patients in (size for size in (way.patients, 8, 4, 2) if size <= way.patients):
            sized = replace(way, patients=patients, smaller=())
            example = public_example(self._stack, patients=patients)
            if same_in_each_place(partial(self._whole, sized), example):
                return sized
        return None

    def _odd_too(self, pairs: Way) -> bool:
        """Say whether three together have the bits of two: then no number but one leaves a place empty."""
        return self._same(replace(pairs, patients=ODD), pairs, ODD)

    def _keeps_apart(self, way: Way) -> float | None:
        """Return how far a patient's gradient moves beside others, in another place, or again; None: too far."""
        whole = replace(way, smaller=())
        example = public_example(self._stack, patients=way.patients)
        found, run_s = self._run(whole, example)
        if not self._allows((2 * REPETITIONS + 1) * run_s):
            return None
        moved = 0.0
        for seed in range(REPETITIONS):
            others = public_example(self._stack, patients=way.patients, seed=seed + 1)
            others.inputs[-1] = example.inputs[0]
            if seed == 0:
                others.inputs[0], others.weights[0] = float("nan"), 0.0  # an empty place: silenced like any
            beside = torch.cat([self._whole(whole, others)[-1:], self._whole(whole, example)])
            moved = max(moved, _movement(beside, torch.cat([found[:1], found])))
        return moved if moved <= NEIGHBOUR_TOLERANCE else None

    def _same(self, one: Way, other: Way, patients: int, *, exact: bool = True) -> bool:
        """Say whether both sizes of part give the same gradients of ``patients``, to the bit or nearly."""
        for seed in range(self._examples):
            example = public_example(self._stack, patients=patients, seed=seed)
            found, expected = (self._run(replace(way, smaller=()), example)[0] for way in (one, other))
            if _movement(found, expected) > (0.0 if exact else NEIGHBOUR_TOLERANCE):
                return False
        return True

    @property
    def _examples(self) -> int:
        """How many examples must agree: of few values two sizes of part may have the same bits once by chance."""
        return max(1, min(MOST_EXAMPLES, VALUES_COMPARED // self._problem.order.num_parameters))

    def _example(self, patients: int) -> tuple[PatientStack, Tensor] | None:
        """Return random data and the reference's gradients of them; None once there is no time for either."""
        if not self._patient_s:
            first = public_example(self._stack, patients=1)
            start = seconds_on(self._problem.device)
            self._reference(self._problem, first)  # takes longer than any later one: kernels are prepared
            self._patient_s = seconds_on(self._problem.device) - start
            self._budget.spent_s += self._patient_s
            self._budget.plan(self._patient_s * self._planned)
        if patients not in self._known:
            if not self._allows(patients * self._patient_s):
                return None
            example = public_example(self._stack, patients=patients)
            self._known[patients] = (example, self._run(Way("", self._reference, 1, autocast=False), example)[0])
        return self._known[patients]

    def _least_s(self, way: Way, example: PatientStack, first_s: float = float("inf")) -> float:
        """Return the least time of some runs, as many as there is time for; one was ``first_s``."""
        for _ in range(TIMINGS):
            if first_s < float("inf") and not self._allows(first_s):
                break
            first_s = min(first_s, self._run(way, example)[1])
        return first_s

    def _run(self, way: Way, example: PatientStack) -> tuple[Tensor, float]:
        """Return the gradients of a full stack, and the time that they took; it is spent."""
        start = seconds_on(self._problem.device)
        found = torch.cat(list(way.gradients(self._problem, example)))
        seconds = seconds_on(self._problem.device) - start
        self._budget.spent_s += seconds
        return found, seconds

    def _whole(self, way: Way, stack: PatientStack) -> Tensor:
        """Return the gradients of all places, empty ones too, in one part."""
        start = seconds_on(self._problem.device)
        found = way.engine(self._problem.with_autocast(way.autocast), stack.silenced())
        self._budget.spent_s += seconds_on(self._problem.device) - start
        return found

    def _allows(self, seconds: float) -> bool:
        self.ended = self.ended or not self._budget.allows(seconds)
        return not self.ended


def _turn(timed: tuple[float, Way]) -> tuple[bool, float]:
    """Return when a way is looked at: the fastest first, but what is mostly overhead is looked at in company first."""
    seconds, way = timed
    return way.patients == 1 and seconds <= OVERHEAD_S, seconds


def _known_to_be_wrong(problem: Problem) -> bool:
    """Say whether bfloat16 is known to give other gradients of this network at some calls; see the module's words."""
    trained_in_3d = any(isinstance(layer, nn.Conv3d | nn.ConvTranspose3d) for layer in problem.trained_layers)
    return trained_in_3d and problem.device.type == "cpu"


def _differ(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Say whether any patient's gradient differs by more than ``tolerance`` of its norm; NaN differs."""
    return not bool((patient_norms(found - expected) <= tolerance * patient_norms(expected)).all())


def _movement(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference of a patient's gradient, over its norm: exactly 0 for the same bits; NaN is inf."""
    moved = patient_norms(found - expected)
    shares = torch.where(moved == 0, moved, moved / patient_norms(expected))
    return float(shares.nan_to_num(nan=float("inf")).max())


def _perturbed(problem: Problem) -> nn.Module:
    """Return a copy of the network whose trained weights are moved by small public random numbers."""
    network = copy.deepcopy(problem.network)
    named = dict(network.named_parameters())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for entry in problem.order.entries:
            noise = torch.randn(entry.shape, generator=generator, dtype=torch.float64)
            named[entry.name].add_(noise.to(named[entry.name]), alpha=0.05)
    return network
