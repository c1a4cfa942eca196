"""A study's models to the last bit: pinned digests; from memory, from files and in blocks of any length the same."""

import hashlib

import numpy as np
import pytest

from common.plan.network import phase_layout, plan_network
from common.plan.reading import parse_plan
from common.secagg.accumulator import SummedVector
from server.model.checkpoint import open_checkpoint, same_state, write_checkpoint
from server.model.phase_facts import study_network
from server.model.state import apply_sum, computed_sum, start_state, state_from
from server.model.tensor_file import set_aside

SITES = tuple(f"site-{number}" for number in range(1, 5))
RULES = {
    "mean": {"rule": "mean", "average_decay": 0.0},
    "mean, averaged": {"rule": "mean", "average_decay": 0.9},
    "momentum, averaged": {"rule": "momentum", "average_decay": 0.5},
    "adam": {"rule": "adam", "average_decay": 0.9, "learning_rate": 0.01},
    "yogi, the last one": {"rule": "yogi", "learning_rate": 0.01, "model_selection": "last"},
    "the best one": {"rule": "momentum", "model_selection": "best_noised"},
    "standardised first": {"rule": "momentum", "standardise": True},
}


@pytest.fixture(autouse=True)
def _made_up_counts_are_believed(monkeypatch):
    """The digests were pinned before counts that no patients can have were void, and the counts below are such."""
    monkeypatch.setattr("server.model.evaluation.why_void", lambda *_: "")


@pytest.fixture
def planned(small_document):
    """Return plan and network of a study of three phases (head or the feature norm, all, the first again)."""

    def make(noise="distributed", *, standardise=False, **aggregation):
        document = small_document(SITES, noise=noise)
        if standardise:
            document["phases"][0] |= {"method": "standardise", "trainable": "feature_norm"}
        document["aggregation"] |= aggregation
        document["evaluation"] = {"every_rounds": 1, "score_bins": 8}
        document["phases"].append(document["phases"][0] | {"name": "polish"})
        document["phases"] = [phase | {"rounds": 3} for phase in document["phases"]]
        document["phases"][-1]["maximum_attempts"] = 14
        network = plan_network(parse_plan(document, "test"))
        for phase, draft in zip(document["phases"], parse_plan(document, "test").phases, strict=True):
            phase["layout_hash"] = phase_layout(network, draft).digest
        plan = parse_plan(document, "test")
        return plan, study_network(plan)

    return make


def made_up_sum(plan, network, state, attempt):
    """A sum that depends on the attempt only; the score in it goes up and down."""
    spec = network.phases[state.phase].vector
    generator = np.random.default_rng([attempt, state.phase])
    body = generator.integers(-(1 << 24), 1 << 24, spec.body_length, dtype=np.int32)
    meta = np.zeros(spec.meta_words, np.int64)
    meta[:] = generator.integers(0, 40, spec.meta_words) << 12
    return SummedVector(meta.view(np.uint64), body, len(SITES), spec.lattice)


def models(plan, network):
    """Yield the state after every round."""
    state, attempt = start_state(network), 0
    while not state.finished:
        attempt += 1
        total = made_up_sum(plan, network, state, attempt)
        state = apply_sum(plan, network, state, attempt=attempt, participants=SITES, total=total).state
        yield state


def digest_of(plan, network):
    digest = hashlib.sha256()
    for state in models(plan, network):
        for vector in (state.parameters, state.average, state.best):
            digest.update(vector.tobytes())
        digest.update(f"{state.phase} {state.round_number} {state.best_score.hex()}".encode())
    return digest.hexdigest()


KNOWN_MODELS = {
    ("mean", "distributed"): "e89d4f24d7b2d67b6e0e9d0a68ce464d9453aee8b2ca061d5d9085b3000064fc",
    ("mean", "local"): "43e1d8d9ca06a1d2d8027fc6031b876d117a2620b12e8324e5644d986b52f258",
    ("mean, averaged", "distributed"): "018c8dddb8e6fc73e65fa2eb5b8cbc23f904a811ac1403eb2c33a67eb326e2fc",
    ("mean, averaged", "local"): "72d7206c7e17bd71f3af6764a3a1fb0156af066ba4dc49117de877072c6f0f73",
    ("momentum, averaged", "distributed"): "76c414c396ce00b60b750f0b0048203f6a3c5d79ebdbfe4b02befeba570d330e",
    ("momentum, averaged", "local"): "dadefda20797e9c7b5a0d5ecaba0b6daaba245396313543407790bad54b1f405",
    ("adam", "distributed"): "5ccbceedf74241c1e7600a8258a58524168436b7e10451e2c015e1daa07790c1",
    ("adam", "local"): "f3fb320a6f178701a3a572014ccb7e0417a5e40670318670b26882e782a2e8a6",
    ("yogi, the last one", "distributed"): "42825c2e52fb53c55d97a9aeafcc91747c4a2c9fd2484b5ab45e56a895220180",
    ("yogi, the last one", "local"): "1b2ae603743bb408158f28b6e46da192bf9829de107c03735848ffb9dddcbe3f",
    ("the best one", "distributed"): "10e286ea7f7e85beb2b7f499b94a2c45fa2a24801c2f89a104f1c8db3a2e21ec",
    ("the best one", "local"): "26a3b1282dc21666ecb6bed32ddbef8fb719b443367d9f27a9a917070574380f",
    ("standardised first", "distributed"): "5c1d2e75edf709cf834d26d3b359f07b29721f022453177b197bd24f717b106f",
}


@pytest.mark.parametrize(("rule", "noise"), KNOWN_MODELS)
def test_the_models_of_a_study_are_those_they_always_were(planned, rule, noise):
    assert digest_of(*planned(noise, **RULES[rule])) == KNOWN_MODELS[rule, noise]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("length", [1, 7, 1 << 16])
def test_states_on_disk_and_blocks_of_any_length_give_the_same_bits(planned, tmp_path, monkeypatch, rule, length):
    monkeypatch.setattr("server.model.blocks.BLOCK", length)
    plan, network = planned(**RULES[rule])
    size = network.everything.num_parameters
    state = state_from(set_aside(network.start, tmp_path))
    for attempt, expected in enumerate(models(plan, network), start=1):
        total = made_up_sum(plan, network, state, attempt)
        applied = computed_sum(plan, network, state, attempt=attempt, participants=SITES, total=total)
        digest = write_checkpoint(tmp_path, applied.state)
        state = open_checkpoint(tmp_path, attempt, digest, num_parameters=size)
        assert same_state(state, expected)
        assert same_state(open_checkpoint(tmp_path, attempt, digest, num_parameters=size), expected)
    assert state.finished
