"""The cost line: fitted exactly where the data is a line, never negative, and made by warming up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloche.core.signature import Columns, Field, Signature
from cloche.engine.cost import CostLine, warm_up


@example(1.0, 1.0, [1, 20])  # the second is ten times what the first alone lets expect
@given(st.floats(0, 1), st.floats(1e-6, 1), st.lists(st.integers(1, 500), min_size=2, max_size=30, unique=True))
def test_exact_data_gives_the_exact_line(fixed: float, per_row: float, sizes: list[int]) -> None:
    line = CostLine()
    for rows in sizes:
        line.observe(rows, fixed + per_row * rows)
    for rows in (1, 100, 1000):
        assert line.seconds(rows) == pytest.approx(fixed + per_row * rows, rel=1e-3, abs=1e-6)


@given(st.lists(st.tuples(st.integers(1, 4096), st.floats(0, 10)), min_size=1, max_size=50))
def test_neither_part_is_ever_negative(observed: list[tuple[int, float]]) -> None:
    line = CostLine()
    for rows, seconds in observed:
        line.observe(rows, seconds)
        assert line.fixed_s >= 0.0
        assert line.per_row_s >= 0.0


def test_a_line_of_one_size_meets_what_was_measured() -> None:
    line = CostLine()
    for _ in range(10):
        line.observe(8, 0.004)
    assert line.seconds(8) == pytest.approx(0.004)


def test_new_batches_count_for_more_than_old_ones() -> None:
    line = CostLine()
    for seconds in (0.1, 0.001):
        for _ in range(500):
            line.observe(1, seconds)
            line.observe(10, seconds * 10)
    assert line.seconds(1) == pytest.approx(0.001, rel=0.1)


def test_after_forgetting_the_next_batch_decides() -> None:
    line = CostLine(fixed_s=10.0)
    for _ in range(100):
        line.observe(1, 10.0)
    line.forget()
    line.observe(1, 0.001)
    assert line.seconds(1) == pytest.approx(0.001)


SIGNATURE = Signature(inputs=(Field(name="x", datatype="FP64", shape=(-1,)),), outputs=())
EXAMPLES: Columns = {"x": np.array([3.0, 4.0])}


class Model:
    """A Model takes as long as its line says, on a clock of its own; the first calls are slow."""

    def __init__(self, fixed: float, per_row: float, slow_calls: int = 0) -> None:
        self.now = 0.0
        self.sizes: list[int] = []
        self._line = (fixed, per_row)
        self._slow_calls = slow_calls

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        rows = len(columns["x"])
        self.sizes.append(rows)
        slow = 50.0 if len(self.sizes) <= self._slow_calls else 1.0
        self.now += slow * (self._line[0] + self._line[1] * rows)
        return {}

    def clock(self) -> float:
        return self.now


def test_warming_up_measures_growing_batches_and_finds_the_line() -> None:
    model = Model(0.001, 0.0001)
    line = warm_up(model.run, EXAMPLES, SIGNATURE, model.clock)
    assert (line.fixed_s, line.per_row_s) == pytest.approx((0.001, 0.0001))
    assert sorted(set(model.sizes)) == [1, 4, 16, 64]


def test_warming_up_goes_on_until_the_slow_first_calls_are_over() -> None:
    model = Model(0.001, 0.0001, slow_calls=15)
    line = warm_up(model.run, EXAMPLES, SIGNATURE, model.clock)
    assert line.seconds(1) == pytest.approx(0.0011)


def test_warming_up_a_very_slow_model_ends_with_its_budget() -> None:
    model = Model(7.0, 0.0)
    line = warm_up(model.run, EXAMPLES, SIGNATURE, model.clock, budget_s=5.0)
    assert len(model.sizes) <= 3
    assert line.seconds(1) == pytest.approx(7.0)
