"""A study trained without the protocol: the sites' noised sums are added in the clear, in one process.

Training (``client.learning.training``), noise (``client.learning.mechanism``) and the server's step
(``server.model.state``) are the production code; only keys, masks and ledger are left out. For comparisons on
simulated hospitals, never with anybody's scans.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.dicom.record import Stratum
from client.learning.mechanism import WIDEST, LatticeNoise
from client.learning.noise import PrivacyRandomness
from client.learning.patients import Patients, PatientScans, Scans
from client.learning.phase_settings import phase_settings
from client.learning.private_training import PrivateTraining
from common.networks.parameters import load
from common.plan.fitting import lattice_limit, lattice_step
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.protocol import site_weight
from common.plan.start import start_network
from common.secagg.accumulator import SummedVector
from server.model.phase_facts import StudyNetwork, study_network
from server.model.state import ModelState, apply_sum, start_state

Progress = Callable[[int], None]


class NoNoise:
    """Takes the place of noise where a comparison asks what the noise costs; clipping stays."""

    def integers(self, length: int, stddev: float) -> NDArray[np.int64]:
        """Return zeros: (length,) int64."""
        del stddev
        return np.zeros(length, np.int64)


class RememberedPatients:
    """Patients of a cache, decrypted once and kept in memory."""

    def __init__(self, patients: Patients) -> None:
        self._keys = {stratum: list(patients.keys(stratum)) for stratum in Stratum}
        self._scans = {key: patients.read(key).whole() for keys in self._keys.values() for key in keys}

    def keys(self, stratum: Stratum) -> Sequence[str]:
        """Return the patients of a stratum."""
        return self._keys[stratum]

    def read(self, patient_key: str) -> PatientScans:
        """Return one patient's scans."""
        return self._scans[patient_key]


class UnitedPatients:
    """The patients of several sites as if one hospital had them all; keys carry the site's name."""

    def __init__(self, sites: Mapping[str, Patients]) -> None:
        self._sites = dict(sites)

    def keys(self, stratum: Stratum) -> Sequence[str]:
        """Return the patients of a stratum, site by site."""
        return [f"{name}/{key}" for name, site in self._sites.items() for key in site.keys(stratum)]

    def read(self, patient_key: str) -> Scans:
        """Return one patient's scans."""
        name, _, key = patient_key.partition("/")
        return self._sites[name].read(key)


def train_in_the_clear(
    plan: StudyPlan,
    patients: Mapping[str, Patients],
    *,
    with_noise: bool = True,
    patients_at_once: int = 16,
    progress: Progress = lambda _: None,
) -> nn.Module:
    """Run every round of ``plan`` with the sites in ``patients`` (names of the plan) and return the final network.

    ``progress`` gets the rounds done so far. The closing round, which only scores, is left out.
    """
    plan = plan.model_copy(update={"evaluation": plan.evaluation.model_copy(update={"held_out": False})})
    network = study_network(plan)
    state, attempt = start_state(network), 0
    for phase in plan.phases:
        trainings = _trainings(plan, network, state, patients, patients_at_once, with_noise=with_noise)
        for _ in range(phase.rounds):
            attempt += 1
            state = _one_round(plan, network, state, attempt, trainings)
            progress(attempt)
    return _network_of(plan, network, state)


def _network_of(plan: StudyPlan, network: StudyNetwork, state: ModelState) -> nn.Module:
    """Return the plan's network with the state's weights."""
    built = start_network(plan)
    load(built, network.everything, torch.from_numpy(state.parameters.copy()))
    return built


def _trainings(
    plan: StudyPlan,
    network: StudyNetwork,
    state: ModelState,
    patients: Mapping[str, Patients],
    patients_at_once: int,
    *,
    with_noise: bool,
) -> dict[str, PrivateTraining]:
    """Begin the state's phase at each site, each with a network of its own that holds the present model."""
    noise: LatticeNoise | None = PrivacyRandomness() if with_noise else NoNoise()
    local = plan.privacy.noise is NoisePlacement.LOCAL
    sites = {site.name: site for site in plan.sites}
    return {
        name: PrivateTraining(
            _network_of(plan, network, state),
            held,
            phase_settings(plan, plan.phases[state.phase], sites[name]),
            noise=None if plan.privacy.noise is NoisePlacement.NONE else noise,
            lattice_step=None if local else lattice_step(plan),
            lattice_limit=WIDEST if local else lattice_limit(plan),
            patients_at_once=patients_at_once,
            input_shape=plan.scan_shape,
        )
        for name, held in patients.items()
    }


def _one_round(
    plan: StudyPlan, network: StudyNetwork, state: ModelState, attempt: int, trainings: Mapping[str, PrivateTraining]
) -> ModelState:
    facts = network.phases[state.phase]
    released = torch.from_numpy(state.parameters[facts.trained])
    lattice, total = facts.vector.lattice, np.zeros(facts.vector.body_length, np.int64)
    weights = {site.name: site_weight(plan, facts.phase, site) for site in plan.sites}
    for name, training in trainings.items():
        update = training.train_round(state.round_number, released)
        if plan.privacy.noise is NoisePlacement.LOCAL:
            total += np.rint(update.vector * weights[name] / lattice.step).astype(np.int64)
        else:
            total += np.clip(update.values, -lattice.limit, lattice.limit)
    meta = np.zeros(facts.vector.meta_words, np.uint64)
    summed = SummedVector(meta, total.astype(np.int32), len(trainings), lattice)
    applied = apply_sum(plan, network, state, attempt=attempt, participants=tuple(sorted(trainings)), total=summed)
    return replace(applied.state, attempt=attempt)
