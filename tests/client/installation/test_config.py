"""site.toml: the commented file that `init` writes is valid, and nothing in it is ignored."""

import pytest

from client.installation.config import SiteConfig, SpeedSection, default_site_config, read_site_config
from client.installation.errors import SiteConfigInvalidError
from client.learning.speed import Speed, speed_of
from common.errors import NotTomlError


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(default_site_config("north"), encoding="utf-8")
    return path


def test_the_commented_file_holds_exactly_the_defaults(file):
    assert read_site_config(file) == SiteConfig.model_validate({"format": "fedward-site/1", "site": {"name": "north"}})


def test_every_setting_stands_in_the_commented_file():
    text = default_site_config("north")
    for section in SiteConfig.model_fields.values():
        for name in getattr(section.annotation, "model_fields", {}):
            assert f"\n{name} = " in text, name


def test_sections_may_be_left_out(file):
    file.write_text('format = "fedward-site/1"\n[site]\nname = "north"\n')
    assert read_site_config(file).network.runtime_port == 9094


def test_the_speed_of_the_file_is_the_speed_of_the_training():
    assert speed_of(SpeedSection()) == Speed()
    chosen = speed_of(
        SpeedSection(device="cuda:1", threads=4, engine="vmap", autocast=True, compile=True, patients_at_once=2)
    )
    assert (chosen.device, chosen.masking_threads, chosen.patients_at_once) == ("cuda:1", 4, 2)
    gradients = chosen.gradients
    assert (gradients.engine, gradients.autocast, gradients.compile) == ("vmap", True, True)


BAD = {
    "an unknown key": ("poll_interval_s = 1.0", "pol_interval_s = 1.0"),
    "an unknown section": ("[status_page]", "[statuspage]"),
    "another format": ("fedward-site/1", "fedward-site/9"),
    "a privileged port": ("runtime_port = 9094", "runtime_port = 80"),
    "a port that does not exist": ("runtime_port = 9094", "runtime_port = 70000"),
    "a privileged page": ("port = 0", "port = 443"),
    "polling without a pause": ("poll_interval_s = 1.0", "poll_interval_s = 0.0"),
    "a number as text": ("threads = 1 ", 'threads = "1" '),
    "a proxy with a password in it": ('https_proxy = ""', 'https_proxy = "http://me:secret@proxy:3128"'),
    "a proxy of another kind": ('https_proxy = ""', 'https_proxy = "socks5://proxy:1080"'),
    "an unknown device": ('device = "cpu"', 'device = "tpu"'),
    "an unknown engine": ('engine = "auto"', 'engine = "warp"'),
    "a name with a path in it": ('name = "north"', 'name = "../north"'),
    "no name": ('name = "north"', ""),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_half_understood_is_refused(case, file):
    old, new = BAD[case]
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(SiteConfigInvalidError, match=r"site\.toml"):
        read_site_config(file)


def test_a_file_that_is_not_toml_is_refused(file):
    file.write_text("[site")
    with pytest.raises(NotTomlError):
        read_site_config(file)
