"""How many answers a bad version spoils until it is taken back: simulated, and what others' settings lead to.

    python benchmarks/harm.py              # 100 runs of each, some minutes; prints both tables
    python benchmarks/harm.py --runs 20

Cloche's own code decides (see simulated.py). The others' numbers follow from the settings in their documentation:
so many requests a second, times the share of the traffic that the bad version has until it is taken back, times
how much more of its answers are bad than the stable version's. No delay but that of their checks is in them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from simulated import STABLE_BAD, STABLE_LATE, THREE_TIMES_LATE, Outcome, Site, release

from cloche.rollout.machine import Phase
from cloche.rollout.strategy import Strategy, blue_green, canary, parse_steps

RATES = (10, 100, 1_000)
BAD = (1.0, 0.2, 0.02)
#: Versions by the share of their answers that is bad, and the share that is late.
VERSIONS = {
    **{f"{bad:.0%} bad": (bad, STABLE_LATE) for bad in BAD},
    "three times slower": (STABLE_BAD, THREE_TIMES_LATE),
}
#: Where the version turns out to be bad: cloche.toml's default steps; half at once; all at once, before promotion.
PLACES: dict[str, Strategy] = {
    "from the first step on: a ramp to 5 %": canary(),
    "at 50 % at once": Strategy(name="canary", steps=parse_steps(["50% for 10m", "100%"]), ramp_s=0.0),
    "with all of the traffic at once, before it is promoted": blue_green(),
}


class Gate(NamedTuple):
    """A Gate is settings by which another tool takes a bad version back: its steps, and its checks.

    `steps` are (share of the traffic, seconds); the first check is `first_s` after the first step begins, one
    follows each `every_s`, and it is taken back at the `failures`-th that finds fewer good answers than `least`.
    A version that fails checks stays at its step where `holds`.
    """

    name: str
    steps: tuple[tuple[float, float], ...]
    first_s: float
    every_s: float
    failures: int
    least: float
    holds: bool = False

    def seconds(self, bad: float) -> float | None:
        """Until the version is taken back; None where it never is."""
        if 1 - bad >= self.least:
            return None
        return self.first_s + (self.failures - 1) * self.every_s

    def exposure_s(self, bad: float) -> float | None:
        """Seconds of all of the traffic that the version has until then."""
        left = self.seconds(bad)
        if left is None:
            return None
        total = 0.0
        for share, length in self.steps:
            spent = left if self.holds else min(left, length)
            total, left = total + share * spent, left - spent
        return total


#: Each by the page of its documentation that has these settings.
GATES = (
    # Argo Rollouts, "Analysis & Progressive Delivery", Background Analysis; failureLimit 3 lets three fail
    Gate(
        "Argo Rollouts, background analysis", ((0.2, 600), (0.4, 600), (0.6, 600), (0.8, 600)), 600, 300, 4, 0.95
    ),
    # the same page, Analysis at a Predefined Step: one measurement
    Gate("Argo Rollouts, analysis as a step", ((0.2, 300),), 300, 300, 1, 0.95),
    # Flagger, tutorial "Istio Canary Deployments"; "Deployment Strategies": rolled back after interval × threshold
    Gate("Flagger, tutorial: threshold 5", ((0.1, 60),), 60, 60, 5, 0.99, holds=True),
    # Flagger, "How it works": stepWeight 5, threshold 10
    Gate("Flagger, how it works: threshold 10", ((0.05, 60),), 60, 60, 10, 0.99, holds=True),
)


def expected(gate: Gate, rate: float, bad: float) -> float | None:
    """How many more bad answers there are than stable alone would have given; None where it goes on for ever."""
    exposure_s = gate.exposure_s(bad)
    return None if exposure_s is None else rate * exposure_s * (bad - STABLE_BAD)


def print_ours(runs: int) -> None:
    for place, strategy in PLACES.items():
        print(f"\n{place[0].upper()}{place[1:]}\n")
        print("| requests/s | version | taken back | bad (or late) answers: median, p95 | seconds: median, p95 |")
        print("|---|---|---|---|---|")
        for rate in RATES:
            for name, (bad, late) in VERSIONS.items():
                with tempfile.TemporaryDirectory() as folder:
                    site, chance = Site(Path(folder)), np.random.default_rng(0)
                    found = [release(site, chance, strategy, rate=rate, bad=bad, late=late) for _ in range(runs)]
                print(f"| {rate:,} | {name} | {_row(found)} |", flush=True)


def _row(found: Sequence[Outcome]) -> str:
    back = [one for one in found if one.phase is Phase.ABORTED]
    if not back:
        return f"none of {len(found)} | | "
    spoilt, seconds = _both([max(one.bad, one.late) for one in back]), _both([one.seconds for one in back])
    return f"{len(back)} of {len(found)} | {spoilt} | {seconds}"


def _both(values: Sequence[float]) -> str:
    return f"{_short(statistics.median(values))}, {_short(float(np.quantile(values, 0.95)))}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def print_theirs() -> None:
    heads = " | ".join(f"{bad:.0%} bad, {rate:,}/s" for bad in BAD for rate in RATES)
    print("\nWhat the documented settings of others expect: bad answers beyond the stable version's\n")
    print(f"| gate | minutes | {heads} |\n|---|---|{'---|' * len(BAD) * len(RATES)}")
    for gate in GATES:
        counts = [expected(gate, rate, bad) for bad in BAD for rate in RATES]
        shown = " | ".join("never taken back" if count is None else f"{count:,.0f}" for count in counts)
        print(f"| {gate.name} | {(gate.seconds(1.0) or 0) / 60:g} | {shown} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    print_ours(options.runs)
    print("\nOnce a version is promoted nothing watches it: bad answers until a person sees it.")
    print_theirs()


if __name__ == "__main__":
    main()
