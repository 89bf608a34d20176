"""JSON from untrusted sources is parsed, or rejected with a ValueError."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitforge_client.common.json_text import parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@given(value=VALUES)
def test_every_usual_value_is_read(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 10**5 + "]" * 10**5, "levels"),
        ('{"a":' * 200 + "1" + "}" * 200, "levels"),
        ('["\\ud800"]', "surrogates"),
        ('{"\\udfff": 1}', "surrogates"),
        ("[1", "delimiter"),
        ("9" * 10**5, "digits"),
        (b"\xff", "decode"),
        ("", "Expecting value"),
    ],
    ids=["far too deep", "too deep", "half a pair", "half a pair in a key", "cut", "many digits", "bytes", "empty"],
)
def test_everything_else_is_a_value_error(text: str | bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_json(text)


def test_100_levels_are_enough() -> None:
    assert parse_json("[" * 100 + "]" * 100)
    with pytest.raises(ValueError, match="levels"):
        parse_json("[" * 101 + "]" * 101)
