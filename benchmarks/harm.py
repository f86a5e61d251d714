"""How many answers a bad release spoils before its guard fires: simulated, at one weight, without the delays of
processes and stores. `python benchmarks/harm.py` prints the table.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np

from cloche.rollout.analysis import Evidence, Policy, Tick, Verdict, assess, observe

RATES = (10, 100, 1_000)
BAD = (1.0, 0.2, 0.02)
STABLE_BAD = 0.005
MOST_LOOKS = 40_000


def release(
    chance: np.random.Generator, *, rate: float, weight: float, bad: float, look_s: float
) -> tuple[float, int] | None:
    """Seconds until the guard fires, and the candidate's bad answers by then; None where it lets it pass."""
    policy, evidence = Policy(), Evidence()
    for _ in range(MOST_LOOKS):
        requests = int(chance.poisson(rate * look_s))
        candidate = int(chance.binomial(requests, weight))
        tick = Tick(
            seconds=look_s,
            candidate=candidate,
            candidate_bad=int(chance.binomial(candidate, bad)),
            stable=requests - candidate,
            stable_bad=int(chance.binomial(requests - candidate, STABLE_BAD)),
        )
        evidence = observe(evidence, tick, policy)
        verdict = assess(evidence, policy).verdict
        if verdict is Verdict.FAILED:
            return evidence.seconds, evidence.candidate_bad
        if verdict is Verdict.SUCCESSFUL:
            return None
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weight", type=float, default=0.05, help="the candidate's share of the requests")
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    chance = np.random.default_rng(0)
    print("| requests/s | of them bad | given up | seconds, median | bad answers, median | mean |")
    print("|---|---|---|---|---|---|")
    for rate in RATES:
        for bad in BAD:
            # the guard looks at each bad answer: so often that there is hardly more than one in between
            look_s = min(1.0, 0.2 / (rate * options.weight * bad))
            runs = [
                release(chance, rate=rate, weight=options.weight, bad=bad, look_s=look_s)
                for _ in range(options.runs)
            ]
            seen = [each for each in runs if each is not None]
            seconds, spoilt = zip(*seen, strict=True)
            print(
                f"| {rate:,} | {bad:.0%} | {len(seen)} of {len(runs)} | {statistics.median(seconds):.2g} "
                f"| {statistics.median(spoilt):.0f} | {statistics.mean(spoilt):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
