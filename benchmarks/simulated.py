"""A rollout of one machine, simulated request by request: workers with their guards, the controller, the delays.

What decides is the code that is served with: `serving.split` in each worker, on a board; `control.watch`,
`rollout.analysis` and `rollout.machine` in the controller. Simulated are the callers, chance and time: answers
take none, and what the controller decides is in a worker after `TURN_S` to `FOLLOW_S`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cloche.app.controller import POLL_S as TURN_S
from cloche.app.describe import policy_of, slow_s
from cloche.control.rollouts import TICK_S
from cloche.control.watch import Watch
from cloche.core.board import Board, Head, Role
from cloche.rollout.analysis import Evidence, Policy, assess, observe
from cloche.rollout.counts import Counts, Tick
from cloche.rollout.machine import Phase, Rollout, Seen, advance, weight
from cloche.rollout.strategy import Strategy
from cloche.serving.split import Arm, Split
from cloche.settings import default_online

#: What is decided is in every worker within so long.
FOLLOW_S = 0.25
STABLE, CANDIDATE = 1, 2
#: The share of stable's answers that are bad.
STABLE_BAD = 0.005
#: Of answers that take e^N(ln 20 ms, 0.4), p99 51 ms, and of those of a version three times as slow, how many are
#: later than 76 ms, which is late by stable's own pace.
LATE_S, STABLE_LATE, THREE_TIMES_LATE = 0.076, 0.0004, 0.278
_NAME, _MODEL = "toy", "toy:1"
STICKY = b"x-user-id"
#: A rollout that has come to no end by then is waiting for more to be seen.
_MOST_S = 7_200.0


class Outcome(NamedTuple):
    """An Outcome is how a rollout ended, after how long, and what the candidate answered meanwhile."""

    phase: Phase
    seconds: float
    answers: int
    bad: int
    late: int


class Site:
    """A Site is the board of a machine with so many workers."""

    def __init__(self, folder: Path, workers: int = 2) -> None:
        board = Board(folder / "board")
        self.slots = [board.claim(number + 1, Role.WORKER, pid=1, start=1) for number in range(workers)]
        self.watch = Watch(board, folder)
        online = default_online(_NAME, _MODEL)
        #: Each worker has its share of what may go wrong by chance, and the controller has one.
        self.policy: Policy = policy_of(online, shares=workers + 1)
        self.slow_s = slow_s(online)
        self.rollouts = 0

    def splits(self, clock: Callable[[], float], arm: type[Arm] = Arm) -> list[Split]:
        """A split in each worker, of a rollout that begins."""
        self.rollouts += 1
        return [
            Split(
                slot, deployment=_NAME, stable=STABLE, candidate=CANDIDATE, rollout=self.rollouts, weight=0,
                policy=self.policy, slow_s=self.slow_s, sticky=STICKY, late_s=LATE_S, arm=arm,
                clock=clock,
            )
            for slot in self.slots
        ]  # fmt: skip

    def counts(self) -> Counts:
        return self.watch.counts(_NAME, STABLE, CANDIDATE)


def tick_of(fresh: Counts, seconds: float) -> Tick:
    """What the controller makes of what was counted in so many seconds."""
    return Tick.of(seconds if fresh.candidate else 0.0, [fresh])


def release(
    site: Site,
    chance: np.random.Generator,
    strategy: Strategy,
    *,
    rate: float,
    bad: float,
    late: float = STABLE_LATE,
) -> Outcome:
    """Send a version out of whose answers these shares are bad, or late, at `rate` requests a second."""
    trial = _Trial(site, chance, strategy, bad, late)
    while not trial.rollout.is_over and trial.now < _MOST_S:
        for at in np.sort(chance.random(int(chance.poisson(rate * TURN_S)))) * TURN_S + trial.now:
            trial.ask(float(at))
        trial.turn()
    # until every worker has heard of it, the others go on
    for at in np.sort(chance.random(int(chance.poisson(rate * FOLLOW_S)))) * FOLLOW_S + trial.now:
        trial.ask(float(at))
    return Outcome(trial.rollout.phase, trial.last, trial.answers, trial.bad_answers, trial.late_answers)


class _Trial:
    """A rollout under way: the workers as they are, and the controller as it sees them."""

    def __init__(
        self, site: Site, chance: np.random.Generator, strategy: Strategy, bad: float, late: float
    ) -> None:
        self.site, self.chance, self.bad, self.late = site, chance, bad, late
        self.splits = site.splits(lambda: self.now)
        self.rollout = Rollout(strategy=strategy, entered=0.0, phase=Phase.STEPPING)
        self.now = 0.0
        #: When the candidate gave its last answer; its answers, the bad ones and the late ones.
        self.last = 0.0
        self.answers = self.bad_answers = self.late_answers = 0
        self._evidence, self._known, self._ticked = Evidence(), site.counts(), 0.0
        self._weight = 0
        #: Weights on their way: when, to which worker, how much.
        self._coming: list[tuple[float, Split, int]] = []
        self._decide(0.0)

    def ask(self, at: float) -> None:
        """One request, to some worker, and its answer."""
        while self._coming and self._coming[0][0] <= at:
            _, split, share = self._coming.pop(0)
            split.weight = share
        split = self.splits[int(self.chance.integers(len(self.splits)))]
        if not split.takes({}):
            is_bad, is_late = self._chances(STABLE_BAD, STABLE_LATE)
            split.stable.count(500 if is_bad else 200, 1.1 * LATE_S if is_late else 0.0)
            return
        is_bad, is_late = self._chances(self.bad, self.late)
        self.answers, self.last = self.answers + 1, at
        self.bad_answers, self.late_answers = self.bad_answers + is_bad, self.late_answers + is_late
        split.candidate.count(500 if is_bad else 200, 1.1 * LATE_S if is_late else 0.0)

    def _chances(self, bad: float, late: float) -> tuple[bool, bool]:
        first, second = self.chance.random(2)
        return bool(first < bad), bool(second < late)

    def turn(self) -> None:
        """The controller looks: at whether a worker has tripped always, at the counts once a second."""
        self.now += TURN_S
        if self.now - self._ticked >= TICK_S - TURN_S / 2:
            self._tick()
        tripped = any(slot.get(Head.TRIPPED) == self.site.rollouts for slot in self.site.slots)
        seen = Seen(
            now=self.now,
            assessment=assess(self._evidence, self.site.policy),
            tripped="a worker has taken its traffic off it" if tripped else None,
        )
        self.rollout = advance(self.rollout, seen)
        self._decide(self.now)

    def _tick(self) -> None:
        counts = self.site.counts()
        tick = tick_of(counts.since(self._known), self.now - self._ticked)
        self._evidence = observe(self._evidence, tick, self.site.policy)
        self._known, self._ticked = counts, self.now

    def _decide(self, now: float) -> None:
        share = weight(self.rollout, now)
        if share == self._weight:
            return
        self._weight = share
        late = self.chance.uniform(TURN_S, FOLLOW_S, len(self.splits))
        self._coming += [(now + float(one), split, share) for one, split in zip(late, self.splits, strict=True)]
        self._coming.sort(key=lambda each: each[0])
