"""Measuring: thread counts are chosen by timing, and what a bundle costs is what it took."""

from __future__ import annotations

import numpy as np
import pytest

from cloche.bundle.measure import choose_threads, measure, repeat_rows, time_rows
from cloche.core.signature import Columns, count_rows
from cloche.runtimes.base import Runtime, RuntimeSpec
from cloche.testing import FakeClock

SPEC = RuntimeSpec(kind="toy", entry="model")
COLUMNS: Columns = {"x": np.arange(10.0)}


class Toy:
    """A runtime that takes as long as it is told to, on a clock of its own: for one row, and for many."""

    in_process = True

    def __init__(self, clock: FakeClock, row_s: float, bulk_s: float, hoard: int = 0) -> None:
        self.clock = clock
        self.row_s, self.bulk_s = row_s, bulk_s
        self.memory = np.ones(hoard, dtype=np.uint8)
        self.closed = False

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        self.clock.advance(self.row_s if count_rows(columns) == 1 else self.bulk_s)
        return columns

    def close(self) -> None:
        self.closed = True


def choose(times: dict[int, tuple[float, float]], cores: int) -> tuple[int, int]:
    """What is chosen where so many threads take so long for one row and for many."""
    clock = FakeClock()
    loaded: list[Toy] = []

    def load(spec: RuntimeSpec, *, bulk: bool) -> Runtime:
        assert spec.threads == spec.bulk_threads
        loaded.append(Toy(clock, *times[spec.threads]))
        return loaded[-1]

    found = choose_threads(load, SPEC, COLUMNS, cores=cores, clock=clock)
    assert all(runtime.closed for runtime in loaded)
    assert (found.kind, found.entry) == (SPEC.kind, SPEC.entry)
    return found.threads, found.bulk_threads


def test_one_row_and_many_get_the_threads_that_serve_each_best() -> None:
    assert choose({1: (0.001, 0.008), 2: (0.002, 0.004), 4: (0.003, 0.002)}, cores=4) == (1, 4)


def test_a_gain_that_is_none_costs_no_core() -> None:
    assert choose({1: (0.002, 0.004), 2: (0.00195, 0.0039)}, cores=3) == (1, 1)


def test_one_core_leaves_no_choice() -> None:
    assert choose({}, cores=1) == (1, 1)


def test_rows_are_repeated_up_to_what_was_asked() -> None:
    assert repeat_rows(COLUMNS, 25)["x"].tolist() == [*range(10), *range(10), *range(5)]
    assert repeat_rows(COLUMNS, 3)["x"].tolist() == [0, 1, 2]


def test_large_rows_are_repeated_less() -> None:
    images = {"x": np.zeros((2, 3, 500, 500), dtype=np.float32)}
    assert count_rows(repeat_rows(images, 4096)) == 2


def test_a_slow_model_is_not_timed_for_ever() -> None:
    clock = FakeClock()
    assert len(time_rows(Toy(clock, 0.02, 0.0), COLUMNS, 0.09, clock)) == 5
    assert len(time_rows(Toy(clock, 600.0, 0.0), COLUMNS, 0.09, clock)) == 3


def test_it_costs_what_it_took() -> None:
    clock = FakeClock()

    def load(spec: RuntimeSpec, *, bulk: bool) -> Runtime:
        clock.advance(0.25)
        return Toy(clock, 0.001, 0.01, hoard=30_000_000)

    found = measure(load, SPEC, COLUMNS, size_bytes=100, original_bytes=500, original_row_s=0.75, clock=clock)
    assert (found.size_bytes, found.original_bytes, found.original_row_s) == (100, 500, 0.75)
    assert found.load_s == pytest.approx(0.25)
    assert 20_000_000 < found.memory_bytes < 200_000_000
    assert found.memory_bytes <= found.load_bytes < 300_000_000
    assert found.row_p50_s == pytest.approx(0.001, rel=1e-3)
    assert found.row_p99_s == pytest.approx(0.001, rel=1e-3)
    assert found.rows_per_s == pytest.approx(4096 / 0.01, rel=1e-3)


def test_a_model_takes_its_own_size_at_least() -> None:
    clock = FakeClock()
    found = measure(
        lambda spec, *, bulk: Toy(clock, 0.001, 0.001),
        SPEC,
        COLUMNS,
        size_bytes=10**9,
        original_bytes=0,
        original_row_s=None,
        clock=clock,
    )
    assert found.memory_bytes == found.load_bytes == 10**9
    assert found.original_bytes == 10**9


def test_a_99th_percentile_is_of_200_calls_or_of_a_second() -> None:
    clock = FakeClock()
    assert len(time_rows(Toy(clock, 0.002, 0.0), COLUMNS, 0.09, clock, least=200)) == 200
    assert 50 <= len(time_rows(Toy(clock, 0.02, 0.0), COLUMNS, 0.09, clock, least=200)) <= 52
