"""``PrivateGradient``: sampled patients in, clipped sum out. The training page knows nothing else of this package."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import nn

from client.private_gradients.book_keeping import book_keeping_gradients, unsupported_layers
from client.private_gradients.budget import Budget, Spending
from client.private_gradients.choice import choose
from client.private_gradients.clipping import LatticeSum
from client.private_gradients.compiled import COMPILED, CompiledGradients
from client.private_gradients.lattice import finest_step
from client.private_gradients.layer_by_layer import LayerByLayer
from client.private_gradients.loop import loop_gradients
from client.private_gradients.problem import Criterion, Engine, Problem
from client.private_gradients.question import question_of
from client.private_gradients.settings import MOST_PATIENTS, EngineName, SpeedSettings
from client.private_gradients.stacks import PatientRows, PatientStack, rows_together, stack_patients
from client.private_gradients.vectorised import vmap_gradients
from client.private_gradients.verdict import KNOWN_HERE, RememberedVerdicts, Verdict, Verdicts
from client.private_gradients.way import Way
from common.networks.parameters import Layout, train_only

ENGINES: dict[str, Engine] = {
    EngineName.LOOP: loop_gradients,
    EngineName.VMAP: vmap_gradients,
    EngineName.BOOK_KEEPING: book_keeping_gradients,
}

# What the gradients of one stack may take, whatever the site asked for: a choice of engine holds a few such matrices.
CPU_GRADIENT_BYTES: Final = 128 << 20
GPU_GRADIENT_BYTES: Final = 8 << 30
# From here on one patient's gradient is not held whole on a processor: below, little memory would be saved, for time.
CPU_WHOLE_GRADIENT_BYTES: Final = 16 << 20
# Patients with so many rows may go side by side; with any other number, and with more, each goes alone: many rows of
# one patient are a batch by themselves, and every shape needs a trial of its own.
ROWS_IN_COMPANY: Final = (1, 2, 4)

_log = logging.getLogger("fedward.site")


class PrivateGradient:
    """Clipped sums of per-patient gradients of one network.

    ``network`` is used where it lives (processor or GPU), in the mode it is in; only the parameters of ``order`` are
    trained, the others lose ``requires_grad``. It must have no layer that mixes rows (BatchNorm) and no dropout.
    ``verdicts``: where choices of an engine are kept that were made beforehand (``measure``): what nobody measured is
    done one patient at a time, and nothing is tried at work. None: each is made where it is first needed.
    ``limit``: no more patients side by side than this machine has memory for, whatever was chosen.
    ``one_size``: all parts hold as many places, empty ones too (``choice``).
    """

    def __init__(
        self,
        network: nn.Module,
        order: Layout,
        settings: SpeedSettings | None = None,
        verdicts: Verdicts | None = None,
        *,
        limit: int = MOST_PATIENTS,
        one_size: bool = False,
    ) -> None:
        self._network, self._order, self._limit, self._one_size = network, order, limit, one_size
        self._settings = settings or SpeedSettings()
        own = RememberedVerdicts() if self._settings.compile else KNOWN_HERE  # what is compiled belongs to one training
        self._verdicts, self._tries_at_work = verdicts or own, verdicts is None
        self._chosen: dict[tuple[object, ...], Way | LayerByLayer] = {}
        self._compiled: dict[object, CompiledGradients] = {}
        train_only(network, order)

    @property
    def engine_names(self) -> list[str]:
        """Names of the engines chosen so far, for people who look at speed."""
        return list(dict.fromkeys(way.name + " bfloat16" * way.autocast for way in self._chosen.values()))

    @property
    def num_parameters(self) -> int:
        """Length of a sum."""
        return self._order.num_parameters

    def goes_one_by_one(self, criterion: Criterion, *, at_once: int) -> bool:
        """Tell whether every way chosen so far for this criterion takes one patient at a time; False before any."""
        ways = [way for key, way in self._chosen.items() if key[0] is criterion and key[-1] == at_once]
        return bool(ways) and all(way.patients == 1 for way in ways)

    def clipped_sum(
        self,
        stacks: Iterable[PatientStack],
        criterion: Criterion,
        *,
        clipping_norm: float,
        total: LatticeSum | None = None,
    ) -> LatticeSum:
        """Add all patients' gradients, each clipped to ``clipping_norm``, to ``total``, and return it.

        ``total``: a sum in the order of the layout on the network's device; None: a new one on the finest lattice.
        ``stacks`` is read one at a time; empty places cost nothing. Guarantee and errors: as ``add``.
        """
        if total is None:
            step = finest_step(clipping_norm, self._order.num_parameters)
            total = LatticeSum(self._order.num_parameters, step=step, device=self._problem(criterion).device)
        for stack in stacks:
            at_once, most_rows = stack.weights.shape
            self.add(
                list(stack.present()),
                criterion,
                clipping_norm=clipping_norm,
                total=total,
                at_once=at_once,
                most_rows=most_rows,
            )
        return total

    def add(
        self,
        patients: Sequence[PatientRows],
        criterion: Criterion,
        *,
        clipping_norm: float,
        total: LatticeSum,
        at_once: int,
        most_rows: int,
    ) -> None:
        """Add the patients' gradients, each clipped to ``clipping_norm``, to ``total``.

        ``at_once``: how many may go side by side; ``most_rows``: of one patient; both public settings. Call once for
        each stratum, with its own clipping norm and criterion, into one total. ``criterion`` should be one object for
        the whole training: which engine (``choice``) is remembered by it and by the shape.
        Guarantee: that of ``LatticeSum``, whatever the values (NaN and inf included); no patients, or rows without
        weight only, add exactly zero. Nothing else is returned or kept.
        Raises: NetworkUnsuitableError if the network mixes patients; ValueError unless 0 < clipping_norm < inf.
        """
        problem = self._problem(criterion)
        if self._settings.compile:
            at_once = min(at_once, self._limit)
            for stack in stack_patients(patients, patients_per_stack=at_once, rows_per_patient=most_rows):
                self._way(problem, stack, at_once).add_to(total, problem, stack.silenced(), clipping_norm=clipping_norm)
            return
        by_rows: dict[int, list[PatientRows]] = {}
        for patient in filter(None, (each.of_weight() for each in patients)):
            by_rows.setdefault(len(patient.weights), []).append(patient)
        for alike in by_rows.values():
            way = self._way(problem, rows_together(alike[:1]), at_once)
            for start in range(0, len(alike), way.patients):
                part = rows_together(alike[start : start + way.patients])
                way.add_to(total, problem, part, clipping_norm=clipping_norm)

    def measure(
        self,
        patient: PatientRows,
        criterion: Criterion,
        *,
        at_once: int,
        most_rows: int,
        spending: Spending,
    ) -> None:
        """Choose, before work begins, for patients of up to ``most_rows`` rows like the first one of ``patient``.

        ``patient``: made up. What is found goes to the verdicts; what they have is not tried again. ``spending``,
        errors: as ``choice.choose``.
        """
        problem = self._problem(criterion)
        repeated = torch.zeros(min(most_rows, max(ROWS_IN_COMPANY)), dtype=torch.int64)
        rows = PatientRows(
            patient.inputs[repeated], tuple(target[repeated] for target in patient.targets), patient.weights[repeated]
        )
        self._verdict(problem, rows_together([rows]), at_once, spending)

    def _problem(self, criterion: Criterion) -> Problem:
        return Problem(self._network, self._order, criterion, self._settings.autocast)

    def _way(self, problem: Problem, example: PatientStack, at_once: int) -> Way | LayerByLayer:
        """Return the way to the gradients of patients with so many rows; sees no patient."""
        key = (problem.criterion, example.inputs.shape[1:], example.inputs.dtype, at_once)
        if key in self._chosen:
            return self._chosen[key]
        way = self._decided(problem, example, at_once)
        if way is None:
            return _alone()  # not measured yet: it may be tomorrow
        self._chosen[key] = way
        return way

    def _decided(self, problem: Problem, example: PatientStack, at_once: int) -> Way | LayerByLayer | None:
        """Return the way that memory, settings or a verdict decide; None where none does and nothing may be tried."""
        if self._layer_by_layer(problem, at_once):
            return LayerByLayer()
        rows = example.weights.shape[1]
        verdict = self._verdict(problem, example, at_once, Spending(Budget()) if self._tries_at_work else None)
        if verdict is None:
            return None
        engine = self._compiled_of(problem) if verdict.engine == COMPILED else ENGINES[verdict.engine]
        if verdict.engine == COMPILED:
            self._compiled_of(problem).trusted = True
        way = Way(verdict.engine, engine, verdict.patients, verdict.autocast, verdict.smaller)
        if self._settings.compile:
            return way
        return (
            way.within(self._limit) if rows in ROWS_IN_COMPANY else replace(way, patients=1, smaller=())
        ) or _alone()

    def _layer_by_layer(self, problem: Problem, at_once: int) -> bool:
        """Say whether memory decides: one patient at a time, large gradients, a processor, and only known layers."""
        free = self._settings == SpeedSettings(EngineName.AUTO) and problem.device.type == "cpu"
        large = 4 * self._order.num_parameters >= CPU_WHOLE_GRADIENT_BYTES
        return free and large and min(at_once, self._limit) == 1 and not unsupported_layers(problem)

    def _verdict(
        self, problem: Problem, example: PatientStack, at_once: int, spending: Spending | None
    ) -> Verdict | None:
        """Return the verdict on a shape; a trial is made only for ``spending``.

        From one row upwards: where one row a patient does not profit from company, more rows do less.
        """
        engines = self._engines(at_once)
        if list(engines) == [EngineName.LOOP] and not problem.autocast and not self._settings.compile:
            return Verdict(engine="loop", patients=1, autocast=False)
        rows = example.weights.shape[1]
        verdict = None
        for count in (rows,) if self._settings.compile else [count for count in ROWS_IN_COMPANY if count <= rows]:
            shaped = example.first_rows(count)
            question = question_of(problem, shaped, at_once, self._settings, one_size=self._one_size)
            verdict = self._possible(self._verdicts.find(question), at_once)
            if verdict is None and spending is not None:
                verdict = self._tried(engines, problem, shaped.repeated(at_once), spending)
                self._verdicts.keep(question, verdict)
            if verdict is None or verdict.patients == 1:
                return verdict
        return verdict

    def _possible(self, verdict: Verdict | None, at_once: int) -> Verdict | None:
        """Return a verdict that a trial of this question may have come to; None for another, which is not believed."""
        if verdict is None:
            return None
        alone = verdict.engine == EngineName.LOOP and verdict.patients == 1
        known = alone or verdict.engine in {*self._engines(at_once), *([COMPILED] if self._settings.compile else [])}
        fits = known and verdict.patients <= at_once and not (verdict.smaller and self._one_size)
        return verdict if fits and verdict.autocast <= self._settings.autocast else None

    def _tried(self, engines: dict[str, Engine], problem: Problem, stack: PatientStack, spending: Spending) -> Verdict:
        """Make the trial of one shape."""
        candidates = dict(engines)
        if self._settings.compile:
            candidates[COMPILED] = self._compiled_of(problem)
        way = choose(candidates, problem, stack, reference=loop_gradients, spending=spending, one_size=self._one_size)
        if self._settings.compile and way.name != COMPILED:
            failure = self._compiled_of(problem).failure
            reason = f"it failed ({failure})" if failure else f"{way.name} is faster or more exact"
            _log.warning("torch.compile is not used: %s; the gradients and their clip are the same without it", reason)
        asked = self._settings.engine
        if asked not in {EngineName.AUTO, EngineName.LOOP} and way.name == EngineName.LOOP:
            _log.warning("engine %s does not keep patients apart to the bit in this network: one at a time", asked)
        return Verdict(engine=str(way.name), patients=way.patients, autocast=way.autocast, smaller=way.smaller)

    def _compiled_of(self, problem: Problem) -> CompiledGradients:
        """Return the compiled engine of a criterion: it belongs to one, so it is not shared."""
        if problem.criterion not in self._compiled:
            self._compiled[problem.criterion] = CompiledGradients(problem)
        return self._compiled[problem.criterion]

    def _engines(self, at_once: int) -> dict[str, Engine]:
        """Return the candidates; one patient at a time, where gradients are large, is what the loop is for."""
        name = self._settings.engine
        if name == EngineName.AUTO and at_once == 1:
            name = EngineName.LOOP
        return ENGINES if name == EngineName.AUTO else {name: ENGINES[name]}


def _alone() -> Way:
    """Return the way that needs no trial: the reference, one patient at a time, who has no neighbours."""
    return Way(EngineName.LOOP, loop_gradients, 1, autocast=False)


def patients_that_fit(num_parameters: int, device: torch.device) -> int:
    """Return the power of two of patients whose gradients fit into ``CPU_GRADIENT_BYTES`` (GPU: the larger limit)."""
    limit = CPU_GRADIENT_BYTES if device.type == "cpu" else GPU_GRADIENT_BYTES
    return 1 << max(0, (limit // (4 * max(1, num_parameters))).bit_length() - 1)
