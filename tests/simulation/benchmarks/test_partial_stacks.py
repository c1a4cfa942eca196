"""The benchmark of partial stacks runs, and prints what was agreed."""

import json

from simulation.benchmarks.partial_stacks import partial_stacks


def test_json_has_a_ratio_for_each_number_of_sampled_patients(capsys):
    partial_stacks(small=True, as_json=True)
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert set(row["ratios"]) == {"1", "2", "3"}
    assert row["trial_cpu_s"] >= 0
    assert row["engine"]
