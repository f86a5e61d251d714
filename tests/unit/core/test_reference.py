"""References: what names a version, and what can't."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.core.errors import ConfigError
from cloche.core.reference import NAME, Reference, check_name, parse_reference


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("fraud", Reference(model="fraud", alias="latest")),
        ("fraud:4", Reference(model="fraud", version=4)),
        ("fraud@champion", Reference(model="fraud", alias="champion")),
        ("fraud@latest", Reference(model="fraud", alias="latest")),
        ("7", Reference(model="7", alias="latest")),
        ("a.b_c-d:999999999", Reference(model="a.b_c-d", version=999_999_999)),
        ("x" * 63, Reference(model="x" * 63, alias="latest")),
    ],
)
def test_a_reference_is_a_name_with_a_number_or_an_alias(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "@",
        ":4",
        "@champion",
        "Fraud",
        "fraud:",
        "fraud:0",
        "fraud:00",
        "fraud:-1",
        "fraud:+1",
        "fraud: 1",
        "fraud:1.0",
        "fraud:1000000000",  # ten digits
        "fraud:٣",  # a digit of another script
        "fraud@",
        "fraud@Champion",
        "fraud@a@b",
        "fraud@2",  # reads like version 2
        "fraud:1@champion",
        "fraud@champion:1",
        "fraud\n",
        " fraud",
        "../fraud",
        "fraud/1",
        "-fraud",
        "x" * 64,
        "frau\u0000d",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_reference(text)
    assert caught.value.code == "CL-E203"
    assert caught.value.hint


_names = st.from_regex(NAME, fullmatch=True)


@given(_names, st.integers(1, 999_999_999), _names.filter(lambda name: not name.isdigit()))
def test_what_a_reference_looks_like_is_read_as_itself(model: str, version: int, alias: str) -> None:
    for reference in (Reference(model=model, version=version), Reference(model=model, alias=alias)):
        assert parse_reference(str(reference)) == reference


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except ConfigError:
        return
    assert check_name(reference.model) in text
    assert (reference.version is None) != (reference.alias is None)


def test_the_message_says_what_the_name_was_for() -> None:
    with pytest.raises(ConfigError, match="'B' can't be an alias"):
        parse_reference("a@B")
    with pytest.raises(ConfigError, match="'A' can't be a name of a key"):
        check_name("A", "name of a key")
