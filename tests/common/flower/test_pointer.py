"""The bundle that points to the installed app: Flower takes it, it holds no code, and its bytes never change."""

import io
import zipfile

from flwr.cli.build import build_fab_from_files
from flwr.cli.install import install_from_fab
from flwr.common.config import get_fab_config, get_metadata_from_config
from flwr.supercore.fab_format_version import normalize_and_validate_fab_format, validate_fab_files_for_format

from common.flower.pointer import APP_NAME, POINTER_VERSION, PUBLISHER, pointer_bundle, pointer_digest

# sites refuse any other: raise POINTER_VERSION with every change
KNOWN_DIGEST = "1bac590846832895fe36c9e853fe2885db3860025b6e6629588da1b325836e04"


def entries(bundle):
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_digest_is_the_one_that_every_installation_knows():
    assert pointer_digest() == KNOWN_DIGEST


def test_it_holds_a_name_and_no_code():
    assert set(entries(pointer_bundle())) == {"pyproject.toml", "LICENSE", ".info/CONTENT"}


def test_flower_reads_it_as_version_and_app_that_we_mean():
    config = get_fab_config(pointer_bundle())
    assert get_metadata_from_config(config) == (f"{PUBLISHER}/{APP_NAME}", POINTER_VERSION)
    assert normalize_and_validate_fab_format(config).fab_format_version == 1
    validate_fab_files_for_format(config, ["LICENSE"])


def test_flowers_own_build_lists_the_same_files():
    files = entries(pointer_bundle())
    del files[".info/CONTENT"]
    built, _ = build_fab_from_files(files)
    assert set(entries(built)) == set(entries(pointer_bundle()))
    assert entries(built)["LICENSE"] == files["LICENSE"]


def test_flower_checks_the_list_of_contents_and_installs_it(tmp_path):
    folder = install_from_fab(pointer_bundle(), skip_prompt=True, install_dir=tmp_path)
    assert {file.name for file in folder.iterdir()} >= {"pyproject.toml", "LICENSE"}
