"""How often an identical version is taken back: simulated days of a rollout, with two workers and the controller.

    python benchmarks/days.py                            # 2,000 days of each case, an hour; prints the table
    python benchmarks/days.py --days 100 --only plain

An hour at 0.5 %, an hour at 5 %, and the rest of the day at 50 %, at ten requests a second of which 0.5 % go
wrong. The guards of both workers look at each bad answer of the candidate, the controller in each second in which
there was a bad answer. What decides is the code that is served with (see simulated.py).
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from simulated import STABLE_BAD, STICKY, Site, tick_of

from cloche.rollout.analysis import Evidence, Verdict, assess, observe
from cloche.serving.split import Arm, Split

RATE = 10.0
#: The candidate's weight in hundredths of a percent, and for how many seconds.
STEPS = ((50, 3_600), (500, 3_600), (5_000, 79_200))
#: What the first worker has of the requests.
_FIRST_WORKER = 0.6
_HEAVY = {STICKY: b"heavy"}
_CHUNK = 20  # days that a process takes at once


class Case(NamedTuple):
    """A Case is a day of callers: both versions answer them alike."""

    words: str
    #: One caller's share of the requests, and how many of its requests go wrong in either arm.
    heavy: float = 0.0
    heavy_bad: float = STABLE_BAD
    #: How many of the requests are answered out of the cache: of stable's, of the candidate's once it is warm.
    cached: tuple[float, float] = (0.0, 0.0)
    steps: tuple[tuple[int, int], ...] = STEPS


CASES = {
    "plain": Case("every caller alike"),
    "heavy": Case("a fifth of the requests from one sticky caller", heavy=0.2),
    "cached": Case(
        "the same, and 80 % answered out of the cache, which is cold for the candidate at first",
        heavy=0.2,
        cached=(0.8, 0.8),
    ),
    "unlucky": Case(
        "twenty minutes, 30 % of the requests from one sticky caller, and half of them go wrong",
        heavy=0.3,
        heavy_bad=0.5,
        # each bad answer is looked at: a day would take a minute
        steps=((500, 600), (5_000, 600)),
    ),
}
#: The candidate's requests until its cache answers two thirds of what it ever will.
_WARM = 20_000


class BulkArm(Arm):
    """A BulkArm takes in many good answers of callers who are each asked about once, in one step."""

    __slots__ = ()

    def add(self, good: int) -> None:
        self._cells[self._places[0]] += good


class Arrivals(NamedTuple):
    """Arrivals are answers by second and worker."""

    good: np.ndarray
    bad: np.ndarray

    def at(self, looks: np.ndarray) -> list[list[list[int]]]:
        """[good, bad] of each worker since the look before, by look."""
        both = np.stack([self.good, self.bad], axis=2).cumsum(axis=0)[looks]
        return np.diff(both, axis=0, prepend=0).tolist()


def is_taken_back(site: Site, chance: np.random.Generator, case: Case) -> bool:
    """Whether a day ends early."""
    now_s = 0.0
    splits = site.splits(lambda: now_s, BulkArm)
    evidence, known = Evidence(), site.counts()
    asked = 0.0
    for weight, seconds in case.steps:
        for split in splits:
            split.weight = weight
        share, cached = weight / 10_000, case.cached[1] * (1 - math.exp(-asked / _WARM))
        asked += RATE * share * seconds
        others = RATE * (1 - case.heavy)
        is_candidates = splits[0].takes(_HEAVY)
        heavy = RATE * case.heavy
        arms = [
            _arrivals(chance, seconds, others * (1 - share), STABLE_BAD, case.cached[0]),
            _arrivals(chance, seconds, others * share, STABLE_BAD, cached),
            _arrivals(chance, seconds, heavy, case.heavy_bad, cached if is_candidates else case.cached[0]),
        ]
        looks = np.flatnonzero(sum(arm.bad.sum(axis=1) for arm in arms))
        began = now_s
        for look, *counts in zip(looks.tolist(), *(arm.at(looks) for arm in arms), strict=True):
            now_s = began + look
            for split, of_stable, of_candidate, of_heavy in zip(splits, *counts, strict=True):
                _count(split, of_stable, of_candidate, of_heavy, is_candidates)
            now = site.counts()
            evidence, known = observe(evidence, tick_of(now.since(known), 1.0), site.policy), now
            if any(split.tripped for split in splits) or assess(evidence, site.policy).verdict is Verdict.FAILED:
                return True
        now_s = began + seconds
    return False


def _arrivals(chance: np.random.Generator, seconds: int, rate: float, bad: float, cached: float) -> Arrivals:
    """What the model answers; what comes out of the cache is in neither arm, and can't go wrong."""
    rates = rate * (1 - cached) * np.array([_FIRST_WORKER, 1 - _FIRST_WORKER])
    answers = chance.poisson(rates, (seconds, 2))
    wrong = chance.binomial(answers, bad)
    return Arrivals(answers - wrong, wrong)


def _count(
    split: Split, of_stable: list[int], of_candidate: list[int], of_heavy: list[int], is_candidates: bool
) -> None:
    """What one worker counted since the last look; its guard looks at each bad answer of the candidate."""
    for arm, (good, bad) in ((split.stable, of_stable), (split.candidate, of_candidate)):
        assert isinstance(arm, BulkArm)
        arm.add(good)
        for _ in range(bad):
            arm.count(500, 0.0)
    arm = split.candidate if is_candidates else split.stable
    for status, count in zip((200, 500), of_heavy, strict=True):
        for _ in range(count):
            arm.count(status, 0.0, _HEAVY)


def taken_back(name: str, days: int, processes: int = 1) -> int:
    """On how many of so many days an identical version was taken back."""
    parts = [(name, first, min(_CHUNK, days - first)) for first in range(0, days, _CHUNK)]
    if processes == 1:
        return sum(_part(part) for part in parts)
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        return sum(pool.imap_unordered(_part, parts))


def _part(part: tuple[str, int, int]) -> int:
    name, first, days = part
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        site.rollouts = first  # the hash of the heavy caller goes by the number of the rollout
        chance = np.random.default_rng([list(CASES).index(name), first])
        return sum(is_taken_back(site, chance, CASES[name]) for _ in range(days))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=2_000)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    print("| callers | rollouts that ended with a rollback of an identical version |\n|---|---|")
    for name, case in CASES.items():
        if options.only in (None, name):
            began = time.monotonic()
            count = taken_back(name, options.days, options.processes)
            print(f"| {case.words} | {count} of {options.days:,}: {count / options.days:.2%} |", flush=True)
            print(f"    {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
