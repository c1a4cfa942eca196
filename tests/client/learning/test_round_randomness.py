"""Draws of a round: each patient, purpose and step has its own, from one fresh key."""

import itertools

import pytest
import torch

from client.learning.round_randomness import KEY_BYTES, RoundRandomness

KEY = bytes(range(KEY_BYTES))


def draws(purpose="views", patient_key="p1", step=0, key=KEY):
    generator = RoundRandomness(key).of_patient(patient_key, step=step).generator(purpose)
    return torch.rand(4, generator=generator).tolist()


DIFFERENT = {
    "the usual": {},
    "another patient": {"patient_key": "p2"},
    "another purpose": {"purpose": "choice of scans"},
    "another step": {"step": 1},
    "another round": {"key": bytes(KEY_BYTES)},
}


@pytest.mark.parametrize(("one", "other"), itertools.combinations(DIFFERENT, 2))
def test_draws_are_shared_neither_between_patients_nor_purposes_nor_steps_nor_rounds(one, other):
    assert draws(**DIFFERENT[one]) != draws(**DIFFERENT[other])


def test_a_purpose_begins_anew_whatever_was_drawn_before():
    patient = RoundRandomness(KEY).of_patient("p1", step=0)
    torch.rand(100, generator=patient.generator("views"))
    torch.rand(3, generator=patient.generator("choice of scans"))
    assert torch.rand(4, generator=patient.generator("views")).tolist() == draws()


def test_draws_are_64_bits_long_and_who_is_sampled_says_nothing_of_the_views():
    randomness, keys = RoundRandomness(KEY), [f"p{i}" for i in range(2000)]
    seeds = {key: randomness.generator("views", step=0, patient_key=key).initial_seed() for key in keys}
    assert len(set(seeds.values())) == len(keys)
    sampled = set(randomness.sampled(keys, sampling_rate=0.5, step=0))
    low = {key for key, seed in seeds.items() if seed < 1 << 62}
    assert 0.4 < len(low & sampled) / len(sampled) < 0.6, "half of them, as of everybody"
    assert max(seeds.values()) > 0.99 * 2**63


def test_a_key_of_its_own_for_each_round():
    keys = [f"p{i}" for i in range(64)]
    rounds = [tuple(RoundRandomness().sampled(keys, sampling_rate=0.5, step=0)) for _ in range(20)]
    assert len(set(rounds)) == 20


@pytest.mark.parametrize("step", [1, 2])
def test_each_step_samples_anew(step):
    keys = [f"p{i}" for i in range(64)]
    randomness = RoundRandomness(KEY)
    first, later = (randomness.sampled(keys, sampling_rate=0.5, step=each) for each in (0, step))
    assert first != later


@pytest.mark.parametrize("length", [0, 16, 33])
def test_a_key_of_another_length_is_refused(length):
    with pytest.raises(ValueError, match="must have 32"):
        RoundRandomness(bytes(length))


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(rate):
    with pytest.raises(ValueError, match="not a probability"):
        RoundRandomness(KEY).sampled(["p1"], sampling_rate=rate, step=0)
