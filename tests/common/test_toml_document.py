"""A TOML text is read in bounded time, whatever its keys are."""

import pytest

from common.files import toml_document

HOSTILE = {
    "one dotted key": "a" + ".a" * 100_000 + " = 1",
    "a dotted table": "[a" + ".a" * 100_000 + "]",
    "behind an equals sign in quotes": '"="' + ".a" * 100_000 + " = 1",
    "in an inline table": "b = { a" + ".a" * 100_000 + " = 1 }",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_key_of_very_many_parts_is_refused_before_it_is_parsed(text):
    with pytest.raises(ValueError, match=r"dots, the limit is 256"):
        toml_document(text)


def test_dots_of_texts_and_numbers_are_no_matter():
    assert toml_document('a = "and so on ..."\nb = [0.1, 0.2]\nc.d.e = 1') == {
        "a": "and so on ...", "b": [0.1, 0.2], "c": {"d": {"e": 1}}
    }  # fmt: skip
