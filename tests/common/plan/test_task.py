"""Which class means that nothing was found."""

import pytest
from pydantic import ValidationError

from common.plan.task import Modality, Task, TaskKind


def task(*classes, kind=TaskKind.CLASSIFICATION, **more):
    return Task(kind=kind, classes=classes, modalities=(Modality.CR,), dimensions=2, **more)


NAMED = {
    "the first": (("normal", "nodule"), "", 0, None),
    "named": (("glioma", "no tumour"), "no tumour", 1, None),
    "one that sounds normal stands later": (("nodule", "healthy"), "", 0, "healthy"),
    "another one is named": (("normal", "benign", "malignant"), "benign", 1, "normal"),
    "none sounds so": (("mild", "severe"), "", 0, None),
}


@pytest.mark.parametrize(("classes", "named", "index", "misplaced"), NAMED.values(), ids=NAMED)
def test_the_normal_class_is_the_first_or_the_named_one(classes, named, index, misplaced):
    found = task(*classes, normal_class=named)
    assert (found.normal_index, found.misplaced_normal) == (index, misplaced)


def test_a_normal_class_that_is_none_of_them_is_refused():
    with pytest.raises(ValidationError, match="which is none of classes"):
        task("normal", "nodule", normal_class="healthy")
    for kind in (TaskKind.SEGMENTATION, TaskKind.MULTI_LABEL):
        with pytest.raises(ValidationError, match="first class is the"):
            task("background", "organ", kind=kind, normal_class="background")


def test_a_plan_without_the_key_keeps_its_canonical_form():
    assert "normal_class" not in task("normal", "nodule").model_dump(mode="json")
