"""The gate's public images: named by digest, read strictly, and really used."""

import hashlib
import io

import numpy as np
import pytest

from client.installation import public_images
from client.installation.errors import NotEnrolledError
from client.installation.public_images import read_public_images
from client.learning.phase_settings import phase_settings
from common.plan.errors import PlanInvalidError
from common.plan.reading import parse_plan

GOOD = {"images": np.zeros((4, 64, 64), np.uint8), "classes": np.array([0, 1, 0, 1])}


def archive(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def named(plan_document, content: bytes):
    plan_document["image"]["public_images"] = hashlib.sha256(content).hexdigest()
    plan_document["phases"][0] |= {
        "method": "fixmatch", "unlabelled_sampling_rate": 0.1, "gate_balanced_accuracy": 0.7
    }  # fmt: skip
    return parse_plan(plan_document, "plan")


def put(folder, plan, content: bytes) -> None:
    path = folder.public_images(plan.image.public_images)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def test_the_images_that_a_plan_names_are_read_and_scaled(north, plan_document):
    content = archive(images=np.full((4, 64, 64), 255, np.uint8), classes=GOOD["classes"])
    plan = named(plan_document, content)
    put(north, plan, content)
    public = read_public_images(north, plan)
    assert public is not None
    images, classes = public
    assert images.shape == (4, 64, 64)
    assert float(images.max()) == 1.0
    assert classes.tolist() == [0, 1, 0, 1]


def test_the_gate_of_a_plan_reaches_the_training(plan_document):
    plan = named(plan_document, archive(**GOOD))
    assert phase_settings(plan, plan.phases[0], plan.sites[0]).gate_balanced_accuracy == 0.7


def test_a_gate_without_public_images_is_no_plan(plan_document):
    named(plan_document, b"")
    plan_document["image"]["public_images"] = ""
    with pytest.raises(PlanInvalidError, match=r"needs image\.public_images"):
        parse_plan(plan_document, "plan")


def test_images_that_are_not_here_are_asked_for(north, plan_document):
    with pytest.raises(NotEnrolledError, match="ask the coordinator"):
        read_public_images(north, named(plan_document, archive(**GOOD)))


def test_another_file_under_the_name_is_refused(north, plan_document):
    plan = named(plan_document, archive(**GOOD))
    put(north, plan, archive(images=GOOD["images"] + 1, classes=GOOD["classes"]))
    with pytest.raises(NotEnrolledError, match="not the file that the plan names"):
        read_public_images(north, plan)


MISFITS = {
    "no archive": b"hello",
    "another size": archive(images=np.zeros((4, 32, 32), np.uint8), classes=GOOD["classes"]),
    "fewer classes than images": archive(images=GOOD["images"], classes=np.array([0, 1])),
    "a class the study does not know": archive(images=GOOD["images"], classes=np.array([0, 1, 2, 0])),
    "classes as fractions": archive(images=GOOD["images"], classes=np.zeros(4)),
    "no images": archive(images=np.zeros((0, 64, 64), np.uint8), classes=np.zeros(0, np.int64)),
    "another name": archive(pictures=GOOD["images"], classes=GOOD["classes"]),
    "objects, which would be unpickled": archive(images=np.array([{}] * 4, dtype=object), classes=GOOD["classes"]),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_file_that_does_not_fit_the_plan_is_refused(case, north, plan_document):
    plan = named(plan_document, MISFITS[case])
    put(north, plan, MISFITS[case])
    with pytest.raises(PlanInvalidError, match="needs `images`"):
        read_public_images(north, plan)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused_before_it_is_unpacked(north, plan_document, monkeypatch):
    monkeypatch.setattr(public_images, "MAX_UNPACKED_BYTES", 20_000)
    file = io.BytesIO()
    np.savez_compressed(file, **(GOOD | {"images": np.zeros((5, 64, 64), np.uint8)}))
    plan = named(plan_document, file.getvalue())
    put(north, plan, file.getvalue())
    with pytest.raises(PlanInvalidError, match="20000 bytes at most when unpacked"):
        read_public_images(north, plan)


def test_public_images_of_a_study_in_colour_have_their_colours_last(north, plan_document):
    plan_document["task"]["modalities"] = ["OP"]
    plan_document["image"] |= {"channels": 3, "intensity": "luminance"}
    for shape, fits in (((4, 64, 64, 3), True), ((4, 64, 64), False), ((4, 3, 64, 64), False)):
        content = archive(images=np.zeros(shape, np.uint8), classes=GOOD["classes"])
        plan = named(plan_document, content)
        put(north, plan, content)
        if fits:
            assert read_public_images(north, plan)[0].shape == shape
        else:
            with pytest.raises(PlanInvalidError, match="64, 64, 3"):
                read_public_images(north, plan)
