"""What both arms were asked: numbers that add up, and begin anew with a new board."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cloche.rollout.counts import Counts, Tick

COUNTS = st.builds(Counts, **{name: st.integers(0, 1_000) for name in Counts.__struct_fields__})


@given(COUNTS, COUNTS)
def test_what_came_on_top_is_the_difference(before: Counts, more: Counts) -> None:
    astuple = msgspec.structs.astuple
    both = zip(Counts.__struct_fields__, astuple(before), astuple(more), strict=True)
    now = Counts(**{name: one + other for name, one, other in both})
    assert now.since(before) == more
    assert now.since(Counts()) == now


@given(COUNTS, COUNTS)
def test_a_board_that_begins_anew_takes_nothing_away(before: Counts, now: Counts) -> None:
    fresh = now.since(before)
    assert min(msgspec.structs.astuple(fresh)) >= 0
    if any(new < old for new, old in zip(*map(msgspec.structs.astuple, (now, before)), strict=True)):
        assert fresh == now


def test_what_several_told_is_added() -> None:
    both = Tick.of(1.0, [Counts(candidate=3, stable_late=1), Counts(candidate=4, candidate_repeats=2)])
    assert both == Tick(seconds=1.0, candidate=7, candidate_repeats=2, stable_late=1)
    assert Tick.of(2.0, []) == Tick(seconds=2.0)


def test_by_caller_is_what_is_left_without_repeats() -> None:
    counts = Counts(
        candidate=10,
        candidate_bad=4,
        candidate_repeats=7,
        candidate_bad_repeats=3,
        stable=9,
        candidate_late=5,
        candidate_timed_repeats=6,
        candidate_late_repeats=5,
    )
    assert counts.by_caller == (3, 1, 9, 0)
    assert counts.late_by_caller == (4, 0, 9, 0)
