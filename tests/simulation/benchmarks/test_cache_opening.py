"""The benchmark of opening a cache runs, and prints what was agreed."""

import json

from simulation.benchmarks.cache_opening import cache_opening


def test_json_has_times_and_memory_for_each_number_of_records(capsys):
    cache_opening(records=[7, 70], as_json=True)
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["records"] for row in rows] == [7, 70]
    assert all(row[name] > 0 for row in rows for name in ("open_ms", "study_open_ms", "making_s", "file_mb"))
