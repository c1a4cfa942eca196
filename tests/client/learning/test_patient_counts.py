"""How many patients bound a sum: the agent counts as training and scoring divide them, from the list of approval."""

import pytest

from client.learning.patient_counts import PatientCounts

PATIENTS = [
    ("labelled", "training"),
    ("labelled", "training"),
    ("labelled", "validation"),
    ("unlabelled", "training"),
    ("unlabelled", "validation"),
    ("unlabelled", "validation"),
]


@pytest.mark.parametrize(
    ("holds_out", "counts"),
    [
        (True, PatientCounts(labelled=2, unlabelled=3, held_out=1)),
        (False, PatientCounts(labelled=3, unlabelled=3, held_out=0)),
    ],
)
def test_only_labelled_patients_of_the_split_are_held_out_and_only_where_the_plan_holds_out(holds_out, counts):
    assert PatientCounts.of(PATIENTS, holds_out=holds_out) == counts
    assert PatientCounts.of([], holds_out=holds_out) == PatientCounts()
