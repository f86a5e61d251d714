"""Words with units: read exactly, or refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.core.errors import ConfigError
from cloche.core.units import (
    Rate,
    format_duration,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
    shown,
)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("100ms", 0.1),
        ("5s", 5.0),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("7d", 604800.0),
        ("50us", 50e-6),
        ("1.5s", 1.5),
        (" 10 s ", 10.0),
        ("0s", 0.0),
        (3, 3.0),
        (0.25, 0.25),
        (timedelta(minutes=1), 60.0),
    ],
)
def test_a_duration_is_seconds(value: Any, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "5",
        "s",
        "5 minutes",
        "-1s",
        "1e3s",
        "1,5s",
        "5S",
        "5s5s",
        "٣s",
        "9" * 400 + "s",
        True,
        -1,
        1000000000000.0,
        float("nan"),
        float("inf"),
        None,
        [],
        {},
        b"5s",
    ],
)
def test_what_is_no_duration_is_refused(value: Any) -> None:
    _refuses(parse_duration, value)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("0B", 0),
        ("512kB", 512_000),
        ("64MB", 64_000_000),
        ("2GB", 2_000_000_000),
        ("1KiB", 1024),
        ("1MiB", 1_048_576),
        ("2GiB", 2_147_483_648),
        ("1.5MB", 1_500_000),
        (10, 10),
    ],
)
def test_a_size_is_bytes(value: Any, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize(
    "value",
    [
        "",
        "64",
        "64mb",
        "64M",
        "KB",
        "64KB",
        "-1MB",
        "1e3MB",
        "9" * 400 + "GB",
        "9" * 5000 + "GB",
        True,
        -1,
        1.5,
        None,
        [],
    ],
)
def test_what_is_no_size_is_refused(value: Any) -> None:
    _refuses(parse_size, value)


@pytest.mark.parametrize(
    ("value", "rate"),
    [("100/s", Rate(100, 1)), ("600/m", Rate(600, 60)), (" 1000 / h ", Rate(1000, 3600))],
)
def test_a_rate_is_a_count_in_a_window(value: str, rate: Rate) -> None:
    assert parse_rate(value) == rate


@pytest.mark.parametrize(
    "value",
    [
        "",
        "100",
        "/s",
        "0/s",
        "-1/s",
        "1.5/s",
        "100/d",
        "100/S",
        "100 s",
        "٣/s",
        "9" * 11 + "/s",
        "9" * 5000 + "/s",
        100,
        None,
    ],
)
def test_what_is_no_rate_is_refused(value: Any) -> None:
    _refuses(parse_rate, value)


@given(st.one_of(st.text(max_size=10), st.from_regex(r"[0-9.]{1,20} ?[A-Za-z]{1,3}", fullmatch=True)))
def test_any_text_is_read_as_a_number_that_can_be_used_or_refused(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            found = parse(text)
        except ConfigError:
            continue
        assert 0 <= found < 1e25


def _refuses(parse: Any, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(value)
    assert caught.value.code == "CL-E201"
    assert (caught.value.hint or "").startswith("write ")
    assert len(caught.value.message) < 150


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1234, "1.2 kB"),
        (412_000, "412 kB"),
        (999_499, "999 kB"),
        (999_999, "1.0 MB"),
        (99_600, "100 kB"),
        (64_000_000, "64.0 MB"),
        (5e12, "5000.0 GB"),
    ],
)
def test_a_size_is_shown_as_people_read_it(size: float, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 µs"),
        (21.4e-6, "21 µs"),
        (999e-6, "999 µs"),
        (0.9999e-3, "1.0 ms"),
        (4.14e-3, "4.1 ms"),
        (0.118, "118 ms"),
        (0.9999, "1.0 s"),
        (1.84, "1.8 s"),
        (300, "300.0 s"),
    ],
)
def test_a_duration_is_shown_as_people_read_it(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_value_is_shown_on_one_line_and_not_without_end() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert shown(3) == "3"
    assert len(shown("x" * 10_000)) < 100
