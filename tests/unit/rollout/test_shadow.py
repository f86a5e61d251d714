"""What a shadow finds out: how alike two versions answer, row by row, and how that adds up over workers."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.core.signature import Columns
from cloche.rollout.shadow import WORST, Tally, Worst, add, compare, describe


def labels(*names: str) -> Columns:
    return {"label": np.array(names, object)}


def numbers(*values: float, name: str = "value") -> Columns:
    return {name: np.array(values, np.float64)}


def compared(stable: Columns, candidate: Columns) -> Tally:
    rows = len(next(iter(stable.values())))
    return compare({"x": np.arange(rows)}, stable, candidate, (0.01, 0.02))


def test_equal_answers_agree_and_leave_no_row_to_look_at() -> None:
    answer: Columns = {**labels("no", "yes"), "probabilities": np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)}
    assert compared(answer, answer) == Tally(requests=1, rows=2, agree=2, stable_s=0.01, candidate_s=0.02)


@pytest.mark.parametrize(
    ("stable", "candidate", "agree"),
    [
        # labels decide where there are any, however far the numbers are apart
        ({**labels("no"), **numbers(0.1)}, {**labels("no"), **numbers(0.4)}, 1),
        ({**labels("no"), **numbers(0.1)}, {**labels("yes"), **numbers(0.1)}, 0),
        # without one numbers within 1 % of the larger are the same answer, and those next to nothing
        (numbers(100.0), numbers(101.0), 1),
        (numbers(100.0), numbers(99.0), 1),
        (numbers(100.0), numbers(101.005), 1),
        (numbers(-100.0), numbers(-101.0), 1),
        (numbers(100.0), numbers(101.1), 0),
        (numbers(100.0), numbers(98.9), 0),
        (numbers(0.0), numbers(9e-7), 1),
        (numbers(0.0), numbers(2e-6), 0),
        (numbers(1.0), numbers(-1.0), 0),
        # of a vector every number counts
        ({"v": np.array([[1.0, 2.0]])}, {"v": np.array([[1.0, 2.01]])}, 1),
        ({"v": np.array([[1.0, 2.0]])}, {"v": np.array([[1.0, 2.5]])}, 0),
        ({"v": np.ones((1, 2, 2))}, {"v": np.array([[[1.0, 1.0], [1.0, 3.0]]])}, 0),
        ({"v": np.ones((1, 0))}, {"v": np.ones((1, 0))}, 1),
        # and of several columns each
        ({**numbers(1.0), **numbers(5.0, name="b")}, {**numbers(1.0), **numbers(6.0, name="b")}, 0),
        # texts, truth and objects are equal or not
        ({"text": np.array(["a"], object)}, {"text": np.array(["b"], object)}, 0),
        ({"text": np.array([None], object)}, {"text": np.array([None], object)}, 1),
        ({"text": np.array(["a"])}, {"text": np.array(["a"])}, 1),
        ({"flag": np.array([True])}, {"flag": np.array([False])}, 0),
        ({"flag": np.array([True])}, {"flag": np.array([True])}, 1),
        ({"n": np.array([7], np.int64)}, {"n": np.array([8], np.int64)}, 0),
        # whole numbers without a sign don't go round
        ({"n": np.array([1], np.uint8)}, {"n": np.array([2], np.uint8)}, 0),
        # a column that is only the candidate's is no answer of stable's
        (numbers(1.0), {**numbers(1.0), **numbers(2.0, name="more")}, 1),
    ],
)
def test_what_is_the_same_answer(stable: Columns, candidate: Columns, agree: int) -> None:
    tally = compared(stable, candidate)
    assert (tally.rows, tally.agree) == (1, agree)
    # what differs is there to be looked at
    assert agree or len(tally.worst) == 1


def test_objects_in_a_column_of_many_axes_are_compared_whole() -> None:
    def tags(*rows: tuple[str, str]) -> Columns:
        return {"tags": np.array(rows, object)}

    tally = compared(tags(("a", "b"), ("c", "d")), tags(("a", "b"), ("c", "e")))
    assert (tally.rows, tally.agree) == (2, 1)
    assert tally.worst[0].candidate == {"tags": ["c", "e"]}


def test_the_difference_of_a_row_is_its_largest() -> None:
    stable = {"a": np.array([[1.0, 2.0], [0.0, 0.0]]), "b": np.array([5.0, 0.0])}
    candidate = {"a": np.array([[1.5, 2.0], [0.0, -0.25]]), "b": np.array([2.0, 0.0])}
    tally = compared(stable, candidate)
    assert (tally.difference_sum, tally.difference_most) == (3.25, 3.0)
    assert [one.difference for one in tally.worst] == [3.0, 0.25]


def test_unsigned_numbers_differ_by_what_lies_between_them() -> None:
    tally = compared({"n": np.array([1], np.uint8)}, {"n": np.array([3], np.uint8)})
    assert tally.difference_most == 2.0


def test_the_worst_rows_hold_what_was_sent_and_both_answers_as_plain_values() -> None:
    inputs: Columns = {"age": np.array([41, 30]), "job": np.array(["cook", None], object), "p": np.ones((2, 2))}
    tally = compare(inputs, numbers(1.0, 2.0), numbers(1.0, 4.0), (0.0, 0.0))
    sent = {"age": 30, "job": None, "p": [1.0, 1.0]}
    assert tally.worst == (Worst(2.0, sent, {"value": 2.0}, {"value": 4.0}),)
    assert msgspec.convert(msgspec.to_builtins(tally), Tally) == tally


def test_of_many_rows_those_are_kept_that_differ_most() -> None:
    gaps = np.random.default_rng(0).permutation(100).astype(np.float64)
    tally = compared({"value": np.zeros(100)}, {"value": gaps})
    assert [one.difference for one in tally.worst] == [99.0 - place for place in range(WORST)]
    assert [one.inputs["x"] for one in tally.worst] == np.argsort(-gaps)[:WORST].tolist()


def test_another_label_is_worse_than_any_number() -> None:
    stable = {"label": np.array(["no"] * 20, object), "score": np.zeros(20)}
    candidate = {"label": np.array(["no"] * 19 + ["yes"], object), "score": np.array([0.9] * 19 + [0.1])}
    tally = compared(stable, candidate)
    assert tally.worst[0].candidate == {"label": "yes", "score": 0.1}


def test_another_label_stays_among_the_worst_when_more_is_added() -> None:
    flipped = compared({**labels("no"), **numbers(0.45)}, {**labels("yes"), **numbers(0.55)})
    drifted = [compared({**labels("no"), **numbers(0.0)}, {**labels("no"), **numbers(0.4)}) for _ in range(20)]
    worst = add([flipped, *drifted]).worst
    assert "yes" in [one.candidate["label"] for one in worst]


def test_a_number_that_is_none_is_no_agreement_and_is_shown() -> None:
    """The engine lets none through; a runtime of another process may."""
    tally = compared(numbers(1.0, 2.0), numbers(math.nan, 2.0))
    assert (tally.rows, tally.agree) == (2, 1)
    assert [one.stable for one in tally.worst] == [{"value": 1.0}]


@pytest.mark.parametrize(
    ("candidate", "error"),
    [
        (numbers(1.0, 2.0, name="other"), KeyError),
        ({"value": np.zeros((2, 3))}, ValueError),
        ({"value": np.zeros(3)}, ValueError),
    ],
)
def test_answers_that_can_not_be_compared_are_refused(candidate: Columns, error: type[Exception]) -> None:
    with pytest.raises(error):
        compared({"value": np.zeros((2, 2))}, candidate)


# whole numbers, so that sums do not depend on the order in which floats are added
ROWS = st.integers(0, 1_000)
TALLIES = st.builds(
    Tally,
    requests=ROWS,
    rows=ROWS,
    agree=ROWS,
    failed=ROWS,
    dropped=ROWS,
    difference_sum=ROWS.map(float),
    difference_most=ROWS.map(float),
    stable_s=ROWS.map(float),
    candidate_s=ROWS.map(float),
    worst=st.lists(ROWS.map(lambda gap: Worst(float(gap), {}, {}, {})), max_size=WORST).map(
        lambda rows: tuple(sorted(rows, key=lambda one: -one.difference))
    ),
)


@given(TALLIES, TALLIES, TALLIES)
def test_tallies_add_up_in_any_order(one: Tally, two: Tally, three: Tally) -> None:
    whole = add([one, two, three])
    assert add([add([one, two]), three]) == add([one, add([two, three])]) == add([three, one, two]) == whole
    assert len(whole.worst) <= WORST
    assert add([one]) == add([Tally(), one]) == one


def test_sums_of_nothing_are_nothing() -> None:
    assert add([]) == Tally()


def test_every_count_is_added() -> None:
    one = Tally(
        requests=1,
        rows=2,
        agree=3,
        failed=4,
        dropped=5,
        difference_sum=6.0,
        difference_most=7.0,
        stable_s=8.0,
        candidate_s=9.0,
    )
    two = msgspec.structs.replace(one, difference_most=3.0)
    assert msgspec.structs.astuple(add([one, two]))[:-1] == (2, 4, 6, 8, 10, 12.0, 7.0, 16.0, 18.0)


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=2, max_size=30), st.integers(1, 29)
)
def test_a_request_cut_in_two_shows_the_same(pairs: list[tuple[float, float]], cut: int) -> None:
    cut = min(cut, len(pairs) - 1)
    stable, candidate = (np.array([pair[side] for pair in pairs], np.float64) for side in (0, 1))

    def part(rows: slice) -> Tally:
        sent = {"x": np.arange(len(pairs))[rows]}
        return compare(sent, {"value": stable[rows]}, {"value": candidate[rows]}, (1.0, 2.0))

    whole, cut_up = part(slice(None)), add([part(slice(cut)), part(slice(cut, None))])
    assert (whole.rows, whole.agree, whole.difference_most) == (cut_up.rows, cut_up.agree, cut_up.difference_most)
    assert whole.difference_sum == pytest.approx(cut_up.difference_sum)
    if len(pairs) <= WORST:  # none had to be left out
        assert sorted(one.difference for one in whole.worst) == sorted(one.difference for one in cut_up.worst)


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ({}, "nothing yet"),
        ({"requests": 1}, "nothing yet"),
        ({"failed": 3}, "nothing was compared (3 failed, 0 left out)"),
        ({"dropped": 2}, "nothing was compared (0 failed, 2 left out)"),
        (
            {"rows": 1_200, "agree": 1_190, "difference_sum": 3.6, "difference_most": 0.4},
            "agrees on 99.17% of 1,200 rows, differs by 0.003 on average and 0.4 at most",
        ),
        (
            {"rows": 10, "agree": 10, "stable_s": 2.0, "candidate_s": 2.6},
            "agrees on 100.00% of 10 rows, differs by 0 on average and 0 at most; takes 1.3 times as long",
        ),
        (
            {"rows": 10, "agree": 10, "failed": 1_001, "dropped": 5},
            "agrees on 100.00% of 10 rows, differs by 0 on average and 0 at most; 1,001 requests failed",
        ),
    ],
)
def test_what_it_says_in_words(of: dict[str, Any], words: str) -> None:
    assert describe(Tally(**of)) == words
