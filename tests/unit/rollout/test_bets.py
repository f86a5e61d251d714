"""Bets: nobody gets rich on a rate that holds, and quickly on one that does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cloche.rollout.bets import BETTER, WORSE, Bets, lower_bound

RATES = st.floats(0.001, 0.99)


def worth(bets: Bets) -> float:
    return math.exp(bets.log_evidence)


def expected(ratios: tuple[float, ...], chances: list[float], events: int, rate: float) -> float:
    """What one staked on all of them is expected to become, with the chance of 0, 1, 2 … hits."""
    return sum(chance * worth(Bets.on(ratios).after(hits, events, rate)) for hits, chance in enumerate(chances))


def binomial(events: int, probability: float) -> list[float]:
    # scipy's overflows where the probability is next to nothing
    return [
        math.comb(events, hits) * probability**hits * (1 - probability) ** (events - hits)
        for hits in range(events + 1)
    ]


@given(RATES, st.floats(0, 1), st.integers(1, 30))
def test_bets_on_more_are_fair_at_the_rate_and_lose_below_it(rate: float, part: float, events: int) -> None:
    assert expected(WORSE, binomial(events, rate * part), events, rate) <= 1 + 1e-9


@given(RATES, st.floats(0, 1), st.integers(1, 30))
def test_bets_on_less_are_fair_at_the_rate_and_lose_above_it(rate: float, part: float, events: int) -> None:
    assert expected(BETTER, binomial(events, rate + (1 - rate) * part), events, rate) <= 1 + 1e-9


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_bad_answers_of_a_tick_are_no_better_bet_than_events_one_by_one(
    candidate: int, stable: int, data: st.DataObject
) -> None:
    """Of equal arms the bad ones are drawn without replacement."""
    bad = data.draw(st.integers(1, candidate + stable))
    hits = np.arange(min(bad, candidate) + 1)
    chances = stats.hypergeom.pmf(hits, candidate + stable, candidate, bad).tolist()
    assert expected(WORSE, chances, bad, candidate / (candidate + stable)) <= 1 + 1e-9


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=10), st.randoms(use_true_random=False))
def test_the_order_of_ticks_does_not_matter(ticks: list[tuple[int, int]], chance: object) -> None:
    forth, back = Bets.on(WORSE), Bets.on(WORSE)
    for hits, misses in ticks:
        forth = forth.after(hits, hits + misses, 0.05)
    for hits, misses in reversed(ticks):
        back = back.after(hits, hits + misses, 0.05)
    assert forth.log_evidence == pytest.approx(back.log_evidence)


@pytest.mark.parametrize(("hits", "events"), [(5, 1_000), (7, 7), (50, 10_000), (4_500, 1_000_000)])
def test_a_lower_bound_lies_below_the_share_and_not_far_below_what_a_fixed_sample_gives(
    hits: int, events: int
) -> None:
    bound = lower_bound(hits, events, 0.01)
    # Clopper and Pearson's bound holds at one moment only, so it may be nearer
    at_one_moment = stats.beta.ppf(0.01, hits, events - hits + 1)
    assert (0.4 if hits < 50 else 0.8) * at_one_moment <= bound < at_one_moment


def test_nothing_seen_bounds_nothing() -> None:
    assert lower_bound(0, 0, 0.01) == lower_bound(0, 1_000, 0.01) == 0.0


def test_a_bound_holds_at_every_moment_of_most_runs() -> None:
    chance = np.random.default_rng(0)
    broken = 0
    for _ in range(400):
        hits = np.cumsum(chance.random(3_000) < 0.02)
        looks = range(50, 3_000, 50)
        broken += any(lower_bound(int(hits[at - 1]), at, 0.05) > 0.02 for at in looks)
    assert broken <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)
