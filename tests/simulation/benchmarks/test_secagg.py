import json

import numpy as np
import pytest
from typer.testing import CliRunner

from common.errors import FedwardError
from common.secagg.vector import VectorSpec
from simulation.benchmarks import secagg, secagg_arithmetic

ISSUE_KEYS = {
    "site_ratio",
    "server_ratio",
    "site_whole_ratio",
    "server_whole_ratio",
    "precision",
    "flower_precision",
    "bytes_per_parameter",
    "flower_bytes_per_parameter",
    "mask_ns_per_parameter_per_peer",
    "keystream_floor_ns",
    "exact",
}


def test_the_benchmark_prints_every_agreed_key_and_an_exact_sum():
    arguments = ["--parameters", "3000", "--sites", "4", "--dropped", "1", "--repeats", "1", "--json"]
    finished = CliRunner().invoke(secagg.app, arguments)
    assert finished.exit_code == 0, finished.output
    printed = json.loads(finished.output)
    assert set(printed) >= ISSUE_KEYS
    assert printed["exact"] is True
    assert (printed["parameters"], printed["sites"], printed["dropped"]) == (3000, 4, 1)
    assert printed["flower_mean_error"] < 1e-5  # Flower's round was a real one too


@pytest.mark.parametrize("word_bits", [21, 16])
def test_the_sum_is_exact_in_narrow_words_too(word_bits):
    result = secagg.measure(parameters=1000, sites=5, dropped=1, word_bits=word_bits, repeats=1)
    assert result.exact
    assert result.bytes_per_parameter < 4


def test_a_sum_that_differs_by_one_unit_is_not_called_exact(monkeypatch):
    honest = secagg_arithmetic.independent_encoding

    def off_by_one(spec: VectorSpec, site: int) -> np.ndarray:
        encoded = honest(spec, site)
        encoded[-1] += site == 0
        return encoded

    monkeypatch.setattr(secagg_arithmetic, "independent_encoding", off_by_one)
    with pytest.raises(secagg.SumNotExactError):
        secagg.measure(parameters=1000, sites=3, dropped=0, repeats=1)


@pytest.mark.parametrize(
    "impossible",
    [{"sites": 3, "dropped": 1}, {"sites": 4, "dropped": 0, "word_bits": 24}],
    ids=["too many drop out", "a word nobody has"],
)
def test_impossible_numbers_are_refused_with_a_sentence(impossible):
    with pytest.raises(FedwardError):
        secagg.measure(parameters=100, repeats=1, **impossible)
