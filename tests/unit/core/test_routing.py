"""Who gets the candidate: a share of the keys, the same in every process, and nobody flips."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.core.routing import BUCKETS, bucket, choose

KEYS = [f"user-{number}".encode() for number in range(100_000)]


@pytest.mark.parametrize("weight", [50, 500, 5_000])
def test_the_share_is_the_weight(weight: int) -> None:
    share = sum(choose(key, b"fraud:8", weight) for key in KEYS) / len(KEYS)
    assert share == pytest.approx(weight / BUCKETS, abs=0.003)


@given(st.binary(max_size=64), st.binary(max_size=16), st.integers(0, BUCKETS), st.integers(0, BUCKETS))
def test_who_has_the_candidate_keeps_it_while_the_weight_grows(
    key: bytes, salt: bytes, one: int, other: int
) -> None:
    low, high = sorted((one, other))
    assert choose(key, salt, high) or not choose(key, salt, low)


@given(st.binary(max_size=64))
def test_nobody_at_weight_0_and_everybody_at_all_of_it(key: bytes) -> None:
    assert not choose(key, b"", 0)
    assert choose(key, b"", BUCKETS)


def test_another_process_agrees() -> None:
    program = "from cloche.core.routing import bucket; print([bucket(b'user-%d' % n, b's') for n in range(1000)])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str([bucket(b"user-%d" % number, b"s") for number in range(1000)])


def test_another_salt_draws_anew() -> None:
    both = sum(choose(key, b"first", 5_000) and choose(key, b"second", 5_000) for key in KEYS) / len(KEYS)
    assert both == pytest.approx(0.25, abs=0.01)
