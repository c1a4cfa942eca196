import json
import subprocess
import sys

import pytest


@pytest.mark.slow  # importing MONAI alone takes seconds
def test_the_ingest_benchmark_prints_the_agreed_json(repository):
    command = [sys.executable, "-m", "simulation.benchmarks.ingest", "--slices", "2", "--repeats", "1", "--json"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, cwd=repository, timeout=300)
    result = json.loads(finished.stdout)
    assert [row["syntax"] for row in result["rows"]] == [
        "uncompressed",
        "RLE",
        "JPEG-LS",
        "JPEG lossless",
        "JPEG 2000",
    ]
    speeds = {"ours_slices_per_s", "monai_slices_per_s", "limit_slices_per_s", "ratio_to_monai", "ratio_to_limit"}
    for row in result["rows"]:
        assert row.keys() == {"syntax"} | speeds
        assert all(row[name] > 0 for name in speeds)
        assert row["ratio_to_monai"] == pytest.approx(row["ours_slices_per_s"] / row["monai_slices_per_s"], rel=0.02)
    assert result["cache"].keys() == {"ratio_to_memmap"}
    assert result["cache"]["ratio_to_memmap"] > 0
