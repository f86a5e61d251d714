"""Increases in few bytes, and what is folded when: moved, never copied."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.store.increases import DAY, HOUR, KEPT, MINUTE, SECOND, Fold, due, merge, pack, since, unpack

NOW = 20_000 * DAY
INCREASES = st.dictionaries(st.integers(1, 5000), st.integers(-(2**62), 2**62).filter(bool), max_size=50)


@given(INCREASES)
def test_what_is_packed_is_there_again(increases: dict[int, int]) -> None:
    assert unpack(pack(increases)) == increases


@given(st.lists(INCREASES, max_size=6), st.integers(0, 6))
def test_however_it_is_grouped_the_sum_is_the_same(many: list[dict[int, int]], at: int) -> None:
    assert merge([merge(many[:at]), merge(many[at:])]) == merge(many)


@given(INCREASES, INCREASES)
def test_sums_are_what_they_were_and_what_came_on_top(before: dict[int, int], more: dict[int, int]) -> None:
    now = {**before, **{one: before.get(one, 0) + value for one, value in more.items()}}
    assert merge([before, since(before, now)]) == merge([now])


@pytest.mark.parametrize(
    ("oldest", "fold"),
    [
        ({}, None),
        ({SECOND: NOW - 10 * MINUTE}, None),  # its minute is not over for ten minutes yet
        ({SECOND: NOW - 11 * MINUTE}, Fold(SECOND, NOW - 11 * MINUTE, NOW - 10 * MINUTE, MINUTE)),
        ({SECOND: NOW - 11 * MINUTE + 59}, Fold(SECOND, NOW - 11 * MINUTE, NOW - 10 * MINUTE, MINUTE)),
        ({SECOND: NOW - 11 * MINUTE + 60}, None),
        ({SECOND: NOW, MINUTE: NOW - 2 * DAY}, Fold(MINUTE, NOW - 2 * DAY, NOW - 2 * DAY + HOUR, HOUR)),
        ({MINUTE: NOW - DAY}, None),
        ({HOUR: NOW - 37 * DAY + HOUR}, Fold(HOUR, NOW - 37 * DAY, NOW - 36 * DAY, DAY)),
        ({HOUR: NOW - 35 * DAY}, None),
        ({DAY: NOW - 401 * DAY}, Fold(DAY, NOW - 401 * DAY, NOW - 400 * DAY, None)),
        ({DAY: NOW - 400 * DAY}, None),
        ({SECOND: NOW + DAY}, None),  # the clock was set back
    ],
)
def test_what_is_old_enough_is_folded(oldest: dict[int, int], fold: Fold | None) -> None:
    assert due(oldest, NOW) == fold


@given(st.sampled_from(KEPT), st.integers(0, 500 * DAY))
def test_a_fold_becomes_one_row_and_holds_the_oldest(kept: tuple[int, int, int | None], age: int) -> None:
    step, kept_s, into = kept
    start = NOW - age - (NOW - age) % step
    fold = due({step: start}, NOW)
    if fold is None:
        assert age < kept_s + (into or step)
        return
    assert fold.start <= start < fold.end <= NOW - kept_s
    assert fold.start % (into or step) == 0
    assert fold.end - fold.start == (into or step)
