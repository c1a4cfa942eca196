"""Names and shapes that are known without PyTorch are those of the networks that PyTorch builds."""

import itertools
import subprocess
import sys

import pytest

from common.networks.errors import NetworkUnsuitableError, WeightsInvalidError
from common.networks.initialisation import load_initialisation
from common.networks.layouts import layout_of
from common.networks.parameters import layout
from common.networks.registry import IMAGE_NETWORKS, build_network, network_shape
from common.networks.shapes import network_parameters
from common.networks.shipped_weights import available, check_initialisation

SIZES = list(itertools.product((2, 3), (1, 2, 5), (4, 8, 20), (1, 3), (1, 3)))


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_the_layout_without_pytorch_is_that_of_the_network(name):
    for sizes in SIZES:
        request = dict(zip(("dimensions", "classes", "width", "blocks", "channels"), sizes, strict=True))
        network = network_shape(name, **request)
        for part in ("all", "head", "encoder", ("head", "encoder")):
            assert layout_of(network_parameters(name, **request), part) == layout(network, part), (request, part)


@pytest.mark.parametrize("levels", [3, 4, 6])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_layout_of_a_deeper_unet_is_that_of_the_network(levels, dimensions):
    request = {"dimensions": dimensions, "classes": 3, "width": 4, "levels": levels}
    network = network_shape("unet", **request)
    assert layout_of(network_parameters("unet", **request), "everything") == layout(network)
    assert len(network.encoder.levels) == levels == len(network.decoder) + 1


WRONG = {
    "an unknown network": ("small_cmm", {}, "did you mean 'small_cnn'"),
    "an odd width": ("unet", {"width": 6}, "multiple of 4"),
    "no channel": ("unet", {"channels": 0}, "network channels is 0"),
    "seven levels": ("unet", {"levels": 7}, "whole number 3 to 6"),
    "levels of another network": ("small_cnn", {"levels": 4}, "only 'unet' has"),
    "one dimension": ("unet", {"dimensions": 1}, "whole number 2 to 3"),
}


@pytest.mark.parametrize(("name", "change", "sentence"), WRONG.values(), ids=WRONG)
def test_both_refuse_the_same(name, change, sentence):
    request = {"dimensions": 2, "classes": 2, "width": 8} | change
    for look in (network_parameters, network_shape):
        with pytest.raises(NetworkUnsuitableError, match=sentence):
            look(name, **request)


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
@pytest.mark.parametrize("entry", available(), ids=lambda entry: entry.file_name)
def test_start_weights_fit_without_pytorch_exactly_where_they_can_be_loaded(name, entry):
    for dimensions, width in ((2, 16), (2, 8), (3, 8)):
        request = {"dimensions": dimensions, "classes": 2, "width": width}
        try:
            filled = set(load_initialisation(build_network(name, **request), entry.digest))
        except WeightsInvalidError:
            with pytest.raises(WeightsInvalidError):
                check_initialisation(dict(network_parameters(name, **request)), entry.digest)
        else:
            assert check_initialisation(dict(network_parameters(name, **request)), entry.digest) == filled


def test_start_weights_for_grey_images_do_not_fit_a_network_of_colours():
    for entry in available():
        request = {"dimensions": entry.dimensions, "classes": 2, "width": entry.width, "channels": 3}
        with pytest.raises(WeightsInvalidError, match="number of channels"):
            check_initialisation(dict(network_parameters(entry.network, **request)), entry.digest)


def test_a_digest_that_nothing_has_is_refused():
    with pytest.raises(WeightsInvalidError, match="no public initialisation"):
        check_initialisation({}, "0" * 64)


def test_looking_at_a_plan_loads_no_pytorch_and_no_accountant():
    code = (
        "import sys; import server.commands.plan, client.commands.approve, common.plan.shape, common.plan.guarantee; "
        "print([name for name in ('torch', 'dp_accounting', 'scipy', 'opacus') if name in sys.modules])"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout
