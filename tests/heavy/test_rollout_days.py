"""Days of a rollout of an identical version, looked at each second in which an answer was bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.harm import heavy_caller

from cloche.rollout.analysis import Evidence, Policy, Verdict, assess, observe
from cloche.rollout.counts import Tick

DAYS, SECONDS, RATE, BAD = 2_000, 86_400, 10, 0.005
#: The candidate's weight: an hour at each step, and the rest of the day at the last.
STEPS = ((0.005, 3_600), (0.05, 3_600), (0.5, SECONDS - 7_200))
#: It never goes on, so that the guard is looked at all day.
POLICY = Policy(least_s=2.0 * SECONDS)


@pytest.mark.heavy
def test_an_identical_version_is_hardly_ever_given_up() -> None:
    """Two thousand days at 10 requests a second, a fifth of them of one user, who stays in one arm."""
    chance = np.random.default_rng(0)
    weight = np.concatenate([np.full(seconds, share) for share, seconds in STEPS])
    given_up = sum(_is_given_up(chance, 0.8 * weight + (0.2 if day % 2 else 0.0)) for day in range(DAYS))
    print(f"\n{given_up} of {DAYS} days ended with a rollback of an identical version")
    assert given_up <= DAYS * POLICY.alpha


def _is_given_up(chance: np.random.Generator, share: np.ndarray) -> bool:
    requests = chance.poisson(RATE * share), chance.poisson(RATE * (1 - share))
    bad = [chance.binomial(each, BAD) for each in requests]
    looks = np.flatnonzero(bad[0] + bad[1])
    # what was answered since the last look, by arm
    counts = [np.diff(np.cumsum(each)[looks], prepend=0).tolist() for each in (*requests, *bad)]
    evidence = Evidence()
    for candidate, stable, candidate_bad, stable_bad in zip(*counts, strict=True):
        tick = Tick(
            seconds=1,
            candidate=candidate,
            candidate_bad=candidate_bad,
            stable=stable,
            stable_bad=stable_bad,
        )
        evidence = observe(evidence, tick, POLICY)
        if assess(evidence, POLICY).verdict is Verdict.FAILED:
            return True
    return False


@pytest.mark.heavy
def test_one_heavy_caller_that_fails_brings_no_good_version_down(tmp_path: Path) -> None:
    """Four hundred rollouts on two workers; three of ten requests are one caller's, who fails half of the time."""
    chance, runs = np.random.default_rng(1), 400
    given_up = sum(
        heavy_caller(chance, tmp_path, number, tells_callers=True, objective=0.1) for number in range(1, runs + 1)
    )
    print(f"\n{given_up} of {runs} rollouts of an identical version were given up")
    assert given_up <= runs * Policy().alpha
