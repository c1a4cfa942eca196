"""Canonical JSON: the published examples of RFC 8785, and refusal of what has no canonical form."""

import math

import pytest

from common.trust.canonical import canonical_bytes, decode_base64, digest, encode_base64


def test_the_example_of_rfc_8785_section_3_2_2():
    document = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical_bytes(document) == expected.encode()


def test_keys_sort_by_utf16_code_units_as_rfc_8785_section_3_2_3_says():
    document = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    order = [int(part.rpartition(":")[2]) for part in canonical_bytes(document).decode().strip("{}").split(",")]
    assert order == [2, 4, 6, 7, 1, 5, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53, object(), b"bytes"])
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(ValueError, match="no canonical form"):
        canonical_bytes({"value": value})


def test_digests_of_two_purposes_differ():
    assert digest("a", b"bc") != digest("ab", b"c")


@pytest.mark.parametrize("text", ["AB==", "AAB=", "AA", "AA==\n", "A", "AAA*", "AA_-", 7, None])
def test_only_one_spelling_of_base64_is_accepted(text):
    with pytest.raises(ValueError):
        decode_base64(text)


def test_base64_reads_back_what_it_wrote():
    assert decode_base64(encode_base64(bytes(range(256)))) == bytes(range(256))
