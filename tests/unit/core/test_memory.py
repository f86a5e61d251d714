"""What a process holds, what it held at most, and what it gives back."""

from __future__ import annotations

import os
import sys

import pytest

from cloche.core.memory import forget_peak, give_back_memory, peak_bytes, resident_bytes

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of this")
MEGABYTE = 1_000_000


def test_memory_is_told_in_bytes() -> None:
    assert 10 * MEGABYTE < resident_bytes() < 10_000 * MEGABYTE
    assert resident_bytes(os.getpid()) == pytest.approx(resident_bytes(), rel=0.1)
    assert peak_bytes(os.getpid()) >= resident_bytes() * 0.9


@LINUX
def test_the_peak_is_that_since_it_was_forgotten() -> None:
    del [bytearray(b"x" * 200 * MEGABYTE)][0]
    assert forget_peak()
    before = peak_bytes()
    del [bytearray(b"x" * 50 * MEGABYTE)][0]
    assert 50 * MEGABYTE <= peak_bytes() - before < 150 * MEGABYTE


@LINUX
def test_what_was_freed_is_given_back() -> None:
    blocks = [bytearray(b"x" * 100_000) for _ in range(1_000)]
    last = blocks.pop()  # stands above the others, so that they are not given back by themselves
    full = resident_bytes()
    blocks.clear()
    give_back_memory()
    assert full - resident_bytes() > 80 * MEGABYTE
    assert last
