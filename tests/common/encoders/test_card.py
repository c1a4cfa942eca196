"""The card of an encoder: strict, readable, and one digest for one card."""

import pytest

from common.encoders.card import card_text, parse_card, read_card
from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.errors import ExitCode


def test_a_card_reads_back_as_it_was_written_and_has_one_digest(encoder):
    again = read_card(encoder.card_file)
    assert again == encoder.card
    assert again.digest() == encoder.card.digest() != encoder.card.file
    assert parse_card(again.canonical()) == again


def test_another_licence_is_another_card(encoder):
    assert encoder.card.model_copy(update={"licence": "MIT"}).digest() != encoder.card.digest()


# variation selectors, blanks that are none of the keyboard, marks over marks
UNSEEN = ["\\ufe0f", "\\U000e01ef", "\\u180b", "\\U0001d159", "\\u00a0", "\\u3000", "e" + "\\u0301" * 4]


@pytest.mark.parametrize("name", ["Zürich", "Zu\u0308rich", "Hà Nội", "दिल्ली"])
def test_letters_with_their_own_marks_are_read(name, encoder, tmp_path):
    text = card_text(encoder.card).replace('licence = "Apache-2.0"', f'licence = "{name}"')
    (tmp_path / "card.toml").write_text(text, encoding="utf-8")
    assert read_card(tmp_path / "card.toml").licence == name


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "made-up"', 'name = ""'),
        ('name = "made-up"', 'name = "made\\u202eup"'),
        ('name = "made-up"', 'name = "made\\nup"'),
        ('licence = "Apache-2.0"', ""),
        ('licence = "Apache-2.0"', f'licence = "{"x" * 201}"'),
        *(('licence = "Apache-2.0"', f'licence = "Apache{mark}-2.0"') for mark in UNSEEN),
        ("channels = 1", "channels = 2"),
        ("channels = 1", "channels = 3"),
        ("channels = 1", 'channels = "1"'),
        ("size_px = [16, 16]", "size_px = [16, 16, 16]"),
        ("size_px = [16, 16]", "size_px = [4, 16]"),
        ("scale = [2.0]", "scale = [0.0]"),
        ("scale = [2.0]", "scale = [1e-46]"),
        ("scale = [2.0]", "scale = [nan]"),
        ("scale = [2.0]", "scale = [2.0, 2.0]"),
        ('kind = "vector"', 'kind = "map"'),
        ('name = "levels"', 'name = "map"'),
        ('name = "levels"', 'name = "../levels"'),
        ("shape = [12]", "shape = [0]"),
        ("shape = [12]", "shape = [12, 1]"),
        ("shape = [8, 4, 4]", "shape = [65536, 65536, 4]"),
        ('format = "fedward-encoder/1"', 'format = "fedward-encoder/2"'),
        ('version = "1"', 'version = "1"\nurl = "https://example.org"'),
    ],
)
def test_a_card_with_a_bad_value_is_refused_with_its_place(encoder, tmp_path, old, new):
    text = card_text(encoder.card)
    assert old in text
    (tmp_path / "card.toml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(EncoderInvalidError, match=r"docs/encoders\.md") as refused:
        read_card(tmp_path / "card.toml")
    assert (refused.value.fault, refused.value.exit_code) == (EncoderFault.CARD, ExitCode.ENCODER_INVALID)


def test_features_are_the_joined_vectors(encoder):
    assert encoder.card.features_of(["levels"]) == 12
    for names in ([], ["levels", "levels"], ["map"], ["nothing"]):
        with pytest.raises(EncoderInvalidError) as refused:
            encoder.card.features_of(names)
        assert refused.value.fault is EncoderFault.OUTPUT


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 5000, b'{"format": "fedward-encoder/1"}'])
def test_what_travels_as_a_card_and_is_none_is_refused(content):
    with pytest.raises(EncoderInvalidError):
        parse_card(content)


def test_a_card_in_another_spelling_does_not_travel(encoder):
    with pytest.raises(EncoderInvalidError, match="canonical"):
        parse_card(encoder.card.canonical() + b" ")
