"""The verdict on a candidate: what fails it, what lets it go on, and what is too little for either."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from cloche.rollout.analysis import Assessment, Evidence, Policy, Verdict, assess, observe
from cloche.rollout.counts import Tick

PLAIN = Policy()


def after(*ticks: tuple[int, int, int, int], policy: Policy = PLAIN, times: int = 1) -> Assessment:
    """The assessment after ticks of (candidate, its bad ones, stable, its bad ones), 10 seconds each."""
    evidence = Evidence()
    for candidate, candidate_bad, stable, stable_bad in ticks * times:
        tick = Tick(
            seconds=10, candidate=candidate, candidate_bad=candidate_bad, stable=stable, stable_bad=stable_bad
        )
        evidence = observe(evidence, tick, policy)
    return assess(evidence, policy)


@pytest.mark.parametrize(
    ("ticks", "times", "policy", "verdict"),
    [
        pytest.param((), 1, PLAIN, Verdict.INCONCLUSIVE, id="nothing was seen"),
        pytest.param(((0, 0, 1_000, 5),), 360, PLAIN, Verdict.INCONCLUSIVE, id="an hour without a request"),
        pytest.param(((4, 4, 76, 0),), 1, PLAIN, Verdict.FAILED, id="four of four fail, at 5 %"),
        pytest.param(((1, 1, 79, 0),), 1, PLAIN, Verdict.INCONCLUSIVE, id="one failure is none"),
        pytest.param(((50, 10, 950, 5),), 1, PLAIN, Verdict.FAILED, id="20 % fail"),
        pytest.param(((50, 10, 950, 190),), 60, PLAIN, Verdict.INCONCLUSIVE, id="stable fails as much"),
        pytest.param(((50, 0, 950, 5),), 120, PLAIN, Verdict.SUCCESSFUL, id="better than stable"),
        pytest.param(((500, 0, 9_500, 0),), 2, PLAIN, Verdict.INCONCLUSIVE, id="not before 30 seconds"),
        pytest.param(((1, 0, 9, 0),), 90, Policy(margin=0.2), Verdict.INCONCLUSIVE, id="not before 100 requests"),
        pytest.param(((1, 0, 9, 0),), 101, Policy(margin=0.2), Verdict.SUCCESSFUL, id="with 100 requests"),
        pytest.param(((80, 8, 0, 0),), 1, PLAIN, Verdict.INCONCLUSIVE, id="alone, nothing was asked of it"),
        pytest.param(((80, 8, 0, 0),), 1, Policy(objective=0.01), Verdict.FAILED, id="alone, over the objective"),
        pytest.param(
            ((80, 0, 0, 0), (80, 1, 0, 0)), 50, Policy(objective=0.01), Verdict.INCONCLUSIVE, id="within it"
        ),
    ],
)
def test_cases(ticks: tuple[tuple[int, int, int, int], ...], times: int, policy: Policy, verdict: Verdict) -> None:
    assert after(*ticks, policy=policy, times=times).verdict is verdict


def test_the_reason_has_both_arms_in_words() -> None:
    said = after((50, 10, 950, 5)).why
    assert said == "worse than stable: 20.00% bad of 50, 0.53% of 950 on stable"


def test_what_is_missing_shrinks_and_comes_when_it_was_said() -> None:
    early, late = after((50, 0, 950, 5), times=4), after((50, 0, 950, 5), times=8)
    assert 0 < early.progress < late.progress < 1
    assert early.eta_s is not None
    assert late.eta_s is not None
    assert late.eta_s < early.eta_s
    done = 4 * 10 + early.eta_s
    assert after((50, 0, 950, 5), times=math.ceil(1.3 * done / 10)).verdict is Verdict.SUCCESSFUL


def test_without_requests_there_is_no_time_to_tell() -> None:
    assert after((0, 0, 100, 1), times=10).eta_s is None


def run(
    chance: np.random.Generator, *, weight: float, rate: float, bad: float, stable_bad: float, seconds: int
) -> tuple[Verdict, int, int]:
    """A verdict at one look a second, with when it came and how many answers of the candidate were bad by then."""
    evidence = Evidence()
    for second in range(1, seconds + 1):
        requests = chance.poisson(rate)
        candidate = chance.binomial(requests, weight)
        tick = Tick(
            seconds=1,
            candidate=int(candidate),
            candidate_bad=int(chance.binomial(candidate, bad)),
            stable=int(requests - candidate),
            stable_bad=int(chance.binomial(requests - candidate, stable_bad)),
        )
        evidence = observe(evidence, tick, PLAIN)
        verdict = assess(evidence, PLAIN).verdict
        if verdict is not Verdict.INCONCLUSIVE:
            return verdict, second, evidence.candidate_bad
    return Verdict.INCONCLUSIVE, seconds, evidence.candidate_bad


@pytest.mark.parametrize(("bad", "most_s", "most_bad"), [(1.0, 3, 16), (0.2, 10, 10)])
def test_harm_is_seen_soon(bad: float, most_s: int, most_bad: int) -> None:
    """At 100 requests a second, 5 % of them the candidate's, and one look a second."""
    chance = np.random.default_rng(1)
    runs = [run(chance, weight=0.05, rate=100, bad=bad, stable_bad=0.005, seconds=60) for _ in range(40)]
    assert {verdict for verdict, _, _ in runs} == {Verdict.FAILED}
    assert np.quantile([second for _, second, _ in runs], 0.9) <= most_s
    assert np.median([harmed for _, _, harmed in runs]) <= most_bad


@pytest.mark.parametrize("weight", [0.05, 0.5])
def test_harm_is_seen_as_soon_where_one_looks_at_each_answer(weight: float) -> None:
    """Most looks then see one arm only."""
    chance = np.random.default_rng(4)
    harmed = []
    for _ in range(100):
        evidence = Evidence()
        while assess(evidence, PLAIN).verdict is not Verdict.FAILED:
            is_candidate = int(chance.random() < weight)
            one = Tick(
                seconds=0.01,
                candidate=is_candidate,
                candidate_bad=is_candidate,
                stable=1 - is_candidate,
                stable_bad=int(not is_candidate and chance.random() < 0.005),
            )
            evidence = observe(evidence, one, PLAIN)
        harmed.append(evidence.candidate_bad)
    assert np.median(harmed) <= (4 if weight == 0.05 else 11)


def test_an_equal_candidate_is_not_given_up_where_one_looks_at_each_answer() -> None:
    chance = np.random.default_rng(5)
    given_up = 0
    policy = Policy(least_s=1e9)  # it goes on looking
    for _ in range(100):
        evidence = Evidence()
        arms, bad = chance.random(1_500) < 0.5, chance.random(1_500) < 0.2
        for is_candidate, is_bad in zip(arms.astype(int).tolist(), bad.astype(int).tolist(), strict=True):
            one = Tick(
                seconds=0.01,
                candidate=is_candidate,
                candidate_bad=is_candidate * is_bad,
                stable=1 - is_candidate,
                stable_bad=(1 - is_candidate) * is_bad,
            )
            evidence = observe(evidence, one, policy)
            if assess(evidence, policy).verdict is Verdict.FAILED:
                given_up += 1
                break
    assert given_up <= 100 * policy.alpha + 3 * math.sqrt(100 * policy.alpha)


def test_an_equal_candidate_goes_on_and_is_not_given_up() -> None:
    chance = np.random.default_rng(2)
    runs = [run(chance, weight=0.05, rate=1_000, bad=0.005, stable_bad=0.005, seconds=600) for _ in range(20)]
    assert {verdict for verdict, _, _ in runs} == {Verdict.SUCCESSFUL}
    assert np.median([second for _, second, _ in runs]) <= 120


def test_one_that_is_worse_by_the_margin_hardly_ever_goes_on() -> None:
    chance = np.random.default_rng(3)
    runs = [run(chance, weight=0.5, rate=200, bad=0.010, stable_bad=0.005, seconds=300) for _ in range(40)]
    went_on = sum(verdict is Verdict.SUCCESSFUL for verdict, _, _ in runs)
    assert went_on <= 40 * 0.05 + 3 * math.sqrt(40 * 0.05 * 0.95)


# --- callers that can be told apart


def test_repeats_of_a_caller_say_nothing_in_the_comparison() -> None:
    """All that is bad is one caller's, which is the candidate's: one request of it counts."""
    evidence = Evidence()
    for _ in range(50):
        tick = Tick(
            seconds=10,
            candidate=50,
            candidate_bad=25,
            candidate_repeats=45,
            candidate_bad_repeats=25,
            candidate_heaviest=25,
            stable=950,
            stable_bad=5,
        )
        evidence = observe(evidence, tick, Policy(objective=0.1))
    said = assess(evidence, Policy(objective=0.1))
    assert said.verdict is Verdict.INCONCLUSIVE
    assert said.why.endswith("50.00% bad of 2,500, most of them one caller's")
    told = assess(msgspec.structs.replace(evidence, candidate_heaviest=0), Policy(objective=0.1))
    assert told.why.startswith("over the objective of 0.1")


def test_half_of_a_count_that_is_seen_for_a_moment_is_waited_for() -> None:
    """A request is on the board before it is known to be a repeat, or after."""
    late = Tick(
        seconds=1,
        candidate=5,
        candidate_bad=0,
        candidate_bad_repeats=1,
        candidate_repeats=1,
        stable=50,
        stable_bad=0,
    )
    rest = Tick(seconds=1, candidate=1, candidate_bad=1, stable=0, stable_bad=0)
    first = observe(Evidence(), late, PLAIN)
    assert first.compared == (0, 0, 0, 0)
    assert observe(first, rest, PLAIN).compared == (5, 0, 50, 0)
