import json
import subprocess
import sys
from collections import Counter

import pytest
from pydicom import dcmread

from client.dicom.reject import RejectCode
from simulation.hostile.adversarial_dicom import CASES as IMAGE_CASES
from simulation.hostile.adversarial_dicom import SERIES_CASES
from simulation.hostile.case import ACCEPTED
from simulation.hostile.raw_file import RawFile, frame, plain

CASES = (*IMAGE_CASES, *SERIES_CASES)
MUTATIONS = 150
MAX_MEMORY_BYTES = 1536 << 20  # the largest process of a whole ingest


@pytest.fixture(scope="module")
def trial(tmp_path_factory, repository):
    """Every case ingested, in processes of their own so that their memory can be told from ours."""
    out = tmp_path_factory.mktemp("hostile") / "cases"
    command = [
        sys.executable,
        "-m",
        "simulation",
        "adversarial",
        str(out),
        "--ingest",
        "--mutations",
        str(MUTATIONS),
        "--json",
    ]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=repository)
    assert finished.returncode == 0, finished.stderr
    assert not [word for word in ("Traceback", "Warning") if word in finished.stderr], finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_file_gets_one_of_its_right_verdicts(case, trial):
    verdicts = trial["verdicts"][case.name]
    assert len(verdicts) == len(case.outcomes), "every file of the case is counted"
    for verdict, right in zip(verdicts, case.outcomes, strict=True):
        assert verdict in right


def test_every_randomly_damaged_file_gets_a_verdict_and_the_damage_is_neither_none_nor_all(trial):
    verdicts = [verdict for name, each in trial["verdicts"].items() if name.startswith("mutation") for verdict in each]
    assert len(verdicts) == MUTATIONS
    assert set(verdicts) <= {ACCEPTED, *map(str, RejectCode)}
    assert MUTATIONS / 10 < verdicts.count(ACCEPTED) < MUTATIONS * 0.9


def test_no_process_takes_more_than_1500_mib_whatever_it_reads(trial):
    assert trial["peak_memory_bytes"] <= MAX_MEMORY_BYTES


def test_at_least_sixty_cases_have_names_of_their_own():
    assert len(CASES) >= 60
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []


def test_most_verdicts_are_named_exactly():
    """A case that allows everything tests nothing: two of three allow no acceptance, half name one verdict."""
    refused = [case for case in CASES if all(ACCEPTED not in right for right in case.outcomes)]
    exact = [case for case in CASES if all(len(right) == 1 for right in case.outcomes)]
    assert len(refused) >= 2 / 3 * len(CASES)
    assert len(exact) >= 0.45 * len(CASES)


def test_every_verdict_is_a_code_of_the_ingest():
    known = {ACCEPTED, *map(str, RejectCode)}
    assert {verdict for case in CASES for right in case.outcomes for verdict in right} <= known


@pytest.mark.parametrize("syntax", ["explicit", "rle", "jpeg_ls", "jpeg_lossless", "jpeg_2000"])
def test_the_file_that_is_damaged_was_a_good_one(syntax, tmp_path):
    path = tmp_path / "plain.dcm"
    path.write_bytes(plain("a case", syntax).content())
    ds = dcmread(path)
    assert (ds.Rows, ds.Columns) == frame().shape
    assert RawFile(path.read_bytes()).content() == path.read_bytes()
