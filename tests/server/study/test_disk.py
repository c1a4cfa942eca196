"""What a study takes on the coordinator's disk is said before it begins, and is not too little."""

import shutil

import pytest

from common.plan.reading import parse_plan
from common.plan.shape import phase_layouts
from server.study.disk import Disk, disk_for


def test_every_sum_that_may_be_opened_has_its_place(plan_document, tmp_path):
    plan = parse_plan(plan_document, "plan")
    (shape,), (phase,) = phase_layouts(plan), plan.phases
    disk = disk_for(plan, tmp_path)
    assert disk.study_bytes >= phase.maximum_attempts * 4 * shape.sum_length
    assert disk.free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.01)


@pytest.mark.parametrize(
    ("disk", "said"),
    [
        (Disk(2_500_000, 70 * 10**9), "on disk it takes 2.5 MB at most; 70.0 GB are free"),
        (
            Disk(900, 10),
            "on disk it takes 1 kB at most; 1 kB are free; NOT ENOUGH: make room, or keep it on another disk",
        ),
    ],
)
def test_a_person_reads_both(disk, said):
    assert disk.sentence == said
