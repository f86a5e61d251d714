"""How many answers a bad release spoils before its guard fires: simulated, at one weight, without the delays of
processes and stores. `python benchmarks/harm.py` prints the table; with `--heavy`, how often a version just like
stable is given up where one caller sends three of ten requests and half of those fail, whichever version answers.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np

from cloche.core.board import Board, Role
from cloche.rollout.analysis import Evidence, Policy, Verdict, assess, observe
from cloche.rollout.counts import Counts, Tick
from cloche.serving.split import Split

RATES = (10, 100, 1_000)
BAD = (1.0, 0.2, 0.02)
STABLE_BAD = 0.005
#: Of answers that take e^N(ln 20 ms, 0.4), p99 51 ms, and of one three times as slow, those later than 76 ms.
STABLE_LATE, THREE_TIMES_LATE = 0.0004, 0.278
MOST_LOOKS = 40_000


def release(
    chance: np.random.Generator,
    *,
    rate: float,
    weight: float,
    bad: float,
    look_s: float,
    late: float = STABLE_LATE,
) -> tuple[float, int] | None:
    """Seconds until the guard fires, and the candidate's bad (or late) answers by then; None where it passes."""
    policy, evidence = Policy(times=True), Evidence()
    for _ in range(MOST_LOOKS):
        requests = int(chance.poisson(rate * look_s))
        candidate = int(chance.binomial(requests, weight))
        tick = Tick(
            seconds=look_s,
            candidate=candidate,
            candidate_bad=int(chance.binomial(candidate, bad)),
            stable=requests - candidate,
            stable_bad=int(chance.binomial(requests - candidate, STABLE_BAD)),
            candidate_late=int(chance.binomial(candidate, late)),
            stable_late=int(chance.binomial(requests - candidate, STABLE_LATE)),
        )
        evidence = observe(evidence, tick, policy)
        verdict = assess(evidence, policy).verdict
        if verdict is Verdict.FAILED:
            return evidence.seconds, evidence.candidate_bad if late == STABLE_LATE else evidence.candidate_late
        if verdict is Verdict.SUCCESSFUL:
            return None
    return None


class Crew:
    """A Crew is two workers that serve a rollout as they do, and a controller that adds up what they count.

    With `tells_callers` the header by which callers stay with a version is what tells them apart.
    """

    def __init__(self, folder: Path, rollout: int, *, tells_callers: bool, objective: float | None) -> None:
        self.now = 0.0
        # each worker has its share of the chance to be wrong, and so has the controller
        self._policy = Policy(alpha=Policy().alpha / 3, objective=objective)
        board = Board(folder / "board")
        self.splits = [
            Split(
                board.claim(number, Role.WORKER, pid=number, start=1),
                deployment="fraud",
                stable=3,
                candidate=4,
                rollout=rollout,
                weight=500,
                policy=self._policy,
                slow_s=1.0,
                sticky=b"x-user-id" if tells_callers else None,
                clock=lambda: self.now,
            )
            for number in (1, 2)
        ]
        self._evidence, self._known = Evidence(), [split.told() for split in self.splits]

    def ask(self, worker: int, caller: bytes, *, is_bad: bool) -> None:
        split = self.splits[worker]
        # without the sticky header it is the request's id that decides: here the same
        headers = {b"x-user-id": caller, b"x-request-id": caller}
        arm = split.candidate if split.takes(headers) else split.stable
        arm.count(500 if is_bad else 200, 0.001, headers)

    def gives_up(self) -> bool:
        """Whether a worker has, or the controller does at its look."""
        told: list[Counts] = [split.told() for split in self.splits]
        fresh = [now.since(before) for now, before in zip(told, self._known, strict=True)]
        self._evidence, self._known = observe(self._evidence, Tick.of(1.0, fresh), self._policy), told
        return (
            any(split.tripped for split in self.splits)
            or assess(self._evidence, self._policy).verdict is Verdict.FAILED
        )


def heavy_caller(
    chance: np.random.Generator, folder: Path, rollout: int, *, tells_callers: bool, objective: float | None
) -> bool:
    """Whether a version like stable is given up: ten minutes at 5 %, ten at 50 %, at ten requests a second."""
    crew = Crew(folder, rollout, tells_callers=tells_callers, objective=objective)
    for second in range(1_200):
        crew.now = float(second)
        for split in crew.splits:
            split.weight = 500 if second < 600 else 5_000
        for _ in range(10):
            is_heavy = chance.random() < 0.3
            caller = b"heavy" if is_heavy else b"%d" % chance.integers(1_000)
            is_bad = chance.random() < (0.5 if is_heavy else STABLE_BAD)
            crew.ask(int(chance.integers(2)), caller, is_bad=is_bad)
        if crew.gives_up():
            return True
    return False


def print_heavy(runs: int) -> None:
    chance = np.random.default_rng(0)
    print("| objective | sticky callers counted | given up |\n|---|---|---|")
    for objective in (None, 0.1):
        for tells_callers in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                lost = sum(
                    heavy_caller(chance, Path(folder), run, tells_callers=tells_callers, objective=objective)
                    for run in range(1, runs + 1)
                )
            counted = "each once a minute" if tells_callers else "by request"
            print(
                f"| {'none' if objective is None else f'{objective:.0%}'} | {counted} | {lost} of {runs} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weight", type=float, default=0.05, help="the candidate's share of the requests")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--heavy", action="store_true", help="one caller has three of ten requests")
    options = parser.parse_args()
    if options.heavy:
        print_heavy(options.runs)
        return
    chance = np.random.default_rng(0)
    print("| requests/s | of them bad | given up | seconds, median | bad answers, median | mean |")
    print("|---|---|---|---|---|---|")
    for rate in RATES:
        for name, bad, late in (
            *((f"{bad:.0%}", bad, STABLE_LATE) for bad in BAD),
            ("three times slower", STABLE_BAD, THREE_TIMES_LATE),
        ):
            # the guard looks at each bad answer: so often that there is hardly more than one in between
            look_s = min(1.0, 0.2 / (rate * options.weight * max(bad, late)))
            runs = [
                release(chance, rate=rate, weight=options.weight, bad=bad, late=late, look_s=look_s)
                for _ in range(options.runs)
            ]
            seen = [each for each in runs if each is not None]
            seconds, spoilt = zip(*seen, strict=True)
            print(
                f"| {rate:,} | {name} | {len(seen)} of {len(runs)} | {statistics.median(seconds):.2g} "
                f"| {statistics.median(spoilt):.0f} | {statistics.mean(spoilt):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
