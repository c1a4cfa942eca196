"""The public start of a plan: as a vector, as a network and as the digest of what does not travel, the same bits."""

import hashlib

import pytest
import torch

from common.networks.initialisation import available
from common.networks.parameters import flatten, layout
from common.plan.network import plan_network, plan_shape, travelling_layout
from common.plan.phases import Trainable
from common.plan.reading import parse_plan
from common.plan.start import frozen_digest, frozen_digests, start_network, start_vector


@pytest.fixture
def planned(plan_document):
    def make(**network):
        plan_document["network"] |= network
        return parse_plan(plan_document, "test")

    return make


SHIPPED = next(entry for entry in available() if entry.dimensions == 2)
NETWORKS = {
    "seeded": {"name": "residual", "width": 12, "seed": 9, "initialisation": "seeded"},
    "an autoencoder, which has no zero head": {"name": "autoencoder", "width": 8, "initialisation": "seeded"},
    "public": {"name": SHIPPED.network, "width": SHIPPED.width, "initialisation": SHIPPED.digest},
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_the_start_vector_is_the_start_network(planned, network):
    plan = planned(**network)
    built = start_network(plan)
    assert torch.equal(start_vector(plan), flatten(built, layout(built)))
    assert layout(plan_shape(plan)).digest == layout(plan_network(plan)).digest
    assert all(parameter.is_meta for parameter in plan_shape(plan).parameters())


def test_what_does_not_travel_is_hashed_by_name_and_value_and_nothing_is_built_where_all_travels(planned, monkeypatch):
    plan = planned(**NETWORKS["seeded"])
    head, everything = (
        plan.phases[0].model_copy(update={"trainable": part}) for part in (Trainable.HEAD, Trainable.ALL)
    )
    plan = plan.model_copy(update={"phases": (head, everything)})
    built, expected = start_network(plan), hashlib.sha256()
    for name, parameter in built.named_parameters():
        if not name.startswith("head."):
            expected.update(name.encode() + b"\0" + parameter.detach().numpy().tobytes())
    assert frozen_digest(built, travelling_layout(built, plan, 0)) == expected.digest()
    assert frozen_digests(plan) == (expected.digest(), bytes(32))
    monkeypatch.setattr("common.plan.start.start_network", lambda _: pytest.fail("nothing is frozen"))
    assert frozen_digests(plan.model_copy(update={"phases": (everything,)})) == (bytes(32),)
