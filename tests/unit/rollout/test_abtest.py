"""The intervals of an A/B trial: they hold the true difference whenever one looks, and are clear in time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cloche.rollout.abtest import LEAST, Difference, Sums, difference, is_badly_dealt

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]

ALPHA = 0.05
RUNS = 400
VALUES = 2_000
CHUNK = 20


def sums(values: Floats) -> Sums:
    return Sums(len(values), float(values.sum()), float((values**2).sum()))


def looks(draw: Draw, values: Floats) -> list[Sums]:
    """What one sees of an arm after each chunk of its values."""
    at = range(CHUNK, len(values) + 1, CHUNK)
    totals, squares = np.cumsum(values), np.cumsum(values**2)
    if draw in SHARES:
        return [Sums.of_share(int(totals[n - 1]), n) for n in at]
    return [Sums(n, float(totals[n - 1]), float(squares[n - 1])) for n in at]


def normal(chance: np.random.Generator, n: int) -> Floats:
    return chance.normal(5.0, 2.0, n)


def rare(chance: np.random.Generator, n: int) -> Floats:
    return (chance.random(n) < 0.01).astype(np.float64)


def often(chance: np.random.Generator, n: int) -> Floats:
    return (chance.random(n) < 0.3).astype(np.float64)


def skewed(chance: np.random.Generator, n: int) -> Floats:
    return chance.lognormal(0.0, 1.0, n)


def never(chance: np.random.Generator, n: int) -> Floats:
    return np.zeros(n)


MEANS: dict[Draw, float] = {normal: 5.0, rare: 0.01, often: 0.3, skewed: math.exp(0.5), never: 0.0}
#: Metrics that are a share of what happened, such as errors.
SHARES = (rare, often, never)


def misses(stable: Draw, candidate: Draw, seed: int, *, unequal: int = 1) -> int:
    """In how many of the runs the interval left out the true difference at any look."""
    chance = np.random.default_rng(seed)
    truth = MEANS[candidate] - MEANS[stable]
    missed = 0
    for _ in range(RUNS):
        ones = looks(stable, stable(chance, VALUES * unequal))[unequal - 1 :: unequal]
        others = looks(candidate, candidate(chance, VALUES))
        found = [difference(one, other, ALPHA) for one, other in zip(ones, others, strict=True)]
        missed += any(each is not None and not each.low <= truth <= each.high for each in found)
    return missed


@pytest.mark.parametrize(
    ("stable", "candidate", "unequal"),
    [
        (normal, normal, 1),
        (rare, rare, 1),
        (often, often, 1),
        (skewed, skewed, 1),
        # unlike arms, and one of many values beside one of few
        (normal, skewed, 1),
        (often, rare, 1),
        (rare, rare, 19),
        (skewed, skewed, 19),
        (never, rare, 1),
        (rare, never, 1),
    ],
)
def test_the_interval_holds_the_difference_at_every_look(stable: Draw, candidate: Draw, unequal: int) -> None:
    """But for a chance of `alpha`; as many runs as the binomial allows with one in a thousand."""
    allowed = int(stats.binom.ppf(0.999, RUNS, ALPHA))
    assert misses(stable, candidate, 1, unequal=unequal) <= allowed


@pytest.mark.parametrize(
    ("stable", "shift", "within"),
    [(normal, 1.0, 800), (often, 0.2, 800), (skewed, 1.0, 1_500)],
)
def test_a_difference_that_is_there_becomes_clear_and_on_its_side(stable: Draw, shift: float, within: int) -> None:
    chance = np.random.default_rng(2)
    for sign in (1, -1):
        for _ in range(20):
            one, other = stable(chance, within), stable(chance, within) + sign * shift
            found = difference(sums(one), sums(other), ALPHA)
            assert found is not None
            assert found.is_clear
            assert (found.low > 0) == (sign > 0)
            assert found.low <= sign * shift <= found.high


def test_too_few_values_in_either_arm_say_nothing() -> None:
    some = [Sums(n, n * 0.5, n * 0.5) for n in (0, LEAST - 1, LEAST)]
    for one in some:
        for other in some:
            found = difference(one, other, ALPHA)
            assert (found is not None) == (one.n == other.n == LEAST)


def test_arms_that_never_varied_may_yet_do_so() -> None:
    """A hundred times the same value is no proof that all will be; many times are."""
    few = difference(Sums(100, 100.0, 100.0), Sums(100, 101.0, 102.01), ALPHA)
    many = difference(Sums(100_000, 1e5, 1e5), Sums(100_000, 1.01e5, 102_010.0), ALPHA)
    assert few is not None
    assert many is not None
    assert few.low < 0.0 < few.high
    assert many.is_clear


@pytest.mark.parametrize("arm", [Sums(1_000), Sums.of_share(0, 1_000), Sums.of_share(1_000, 1_000)])
def test_arms_that_always_are_the_same_do_not_differ(arm: Sums) -> None:
    found = difference(arm, arm, ALPHA)
    assert found is not None
    assert (found.effect, found.is_clear) == (0.0, False)


def test_what_never_happened_may_happen_next() -> None:
    nothing, little = Sums.of_share(0, 100), Sums.of_share(3, 100)
    assert (nothing.mean, little.mean) == (0.0, 0.03)
    assert 0.0 < nothing.variance < little.variance
    assert Sums.of_share(100, 100).variance == pytest.approx(nothing.variance)
    # the guess is no more than a floor, and none is left of it where there is much to go by
    assert Sums.of_share(3_000, 10_000).variance == pytest.approx(0.21, rel=1e-3)
    found = difference(nothing, little, ALPHA)
    assert found is not None
    assert not found.is_clear


def test_what_floats_lose_makes_no_variance_below_nothing() -> None:
    """The mean of the squares may come out a little below the square of the mean."""
    assert Sums(3, 3 * 0.1, 3 * 0.1**2 - 1e-18).variance == 0.0
    assert (Sums().mean, Sums().variance) == (0.0, 0.0)
    assert Sums(least=0.25).variance == Sums(4, 4.0, 4.0, 0.25).variance == 0.25


ARMS = st.builds(
    lambda n, mean, spread: Sums(n, n * mean, n * (mean**2 + spread**2)),
    st.integers(LEAST, 100_000),
    st.floats(-100, 100),
    st.floats(0, 100),
)


@given(ARMS, ARMS, st.floats(1e-6, 0.2))
def test_arms_that_change_places_differ_the_other_way(one: Sums, other: Sums, alpha: float) -> None:
    forth, back = difference(one, other, alpha), difference(other, one, alpha)
    assert forth is not None
    assert back is not None
    assert (forth.effect, forth.candidate, forth.stable) == (-back.effect, other.n, one.n)
    assert (back.candidate, back.stable) == (one.n, other.n)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
    assert forth.is_clear == back.is_clear
    assert forth.low <= forth.effect == other.mean - one.mean <= forth.high


@given(ARMS, ARMS, st.floats(1e-6, 0.1))
def test_who_wants_to_be_surer_gets_a_wider_interval(one: Sums, other: Sums, alpha: float) -> None:
    loose, sure = difference(one, other, 2 * alpha), difference(one, other, alpha)
    assert loose is not None
    assert sure is not None
    assert sure.low <= loose.low <= loose.high <= sure.high


def test_more_values_make_it_narrower() -> None:
    widths = []
    for n in (100, 1_000, 10_000, 100_000):
        found = difference(Sums(n, 0.3 * n, 0.3 * n), Sums(n, 0.3 * n, 0.3 * n), ALPHA)
        assert found is not None
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)
    # no wider than twice what holds at one moment only
    at_one_moment = 2 * stats.norm.ppf(1 - ALPHA / 2) * math.sqrt(2 * 0.21 / 1_000)
    assert widths[1] <= 2.5 * at_one_moment


@pytest.mark.parametrize(
    ("low", "high", "clear"),
    [(-1.0, 1.0, False), (0.0, 1.0, False), (-1.0, 0.0, False), (0.1, 1.0, True), (-1.0, -0.1, True)],
)
def test_it_is_clear_where_nothing_at_all_is_left_out(low: float, high: float, clear: bool) -> None:
    assert Difference(0.0, low, high, 1, 1).is_clear is clear


# --- whether callers are dealt as they should be


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_callers_that_are_dealt_well_are_hardly_ever_taken_for_badly_dealt(share: float) -> None:
    """Looked at after every tenth of 20,000 callers, 500 times; one in a thousand is allowed."""
    chance = np.random.default_rng(0)
    wrong = 0
    for _ in range(500):
        counts = np.cumsum(chance.binomial(10, share, 2_000)).tolist()
        wrong += any(is_badly_dealt(mine, 10 * (at + 1) - mine, share) for at, mine in enumerate(counts))
    assert wrong <= 3


@pytest.mark.parametrize(
    ("share", "real", "callers"), [(0.5, 0.45, 5_000), (0.5, 0.4, 1_000), (0.05, 0.07, 10_000)]
)
def test_callers_that_are_lost_on_one_side_are_noticed(share: float, real: float, callers: int) -> None:
    chance = np.random.default_rng(1)
    seen = 0
    for _ in range(100):
        mine = int(chance.binomial(callers, real))
        seen += is_badly_dealt(mine, callers - mine, share)
    assert seen >= 90


def test_where_all_go_to_one_side_nothing_is_dealt() -> None:
    assert not is_badly_dealt(10_000, 0, 1.0)
    assert not is_badly_dealt(0, 10_000, 0.0)
