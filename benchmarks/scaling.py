"""How many requests are late when ten times as many come at once: a fluid model, beside other autoscalers.

`python benchmarks/scaling.py` prints the table: 14 requests a second become 140, a worker answers 10 a second, ten
minutes. Late are those who waited for more than 500 ms. Requests are shared out evenly, in order of arrival.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable

import msgspec

from cloche.scaling import History, Load, Policy, desired_workers

LATE_S = 0.5
TICK_S = 0.1
#: Late requests after the same step for workers that start in 1, 5 and 30 s, of the same model of each.
OTHERS = {
    "KPA (Knative)": (448, 1_148, 5_558),
    "Ray Serve, defaults": (5_572, 6_272, 10_682),
    "HPA by CPU (Kubernetes)": (16_912, 17_626, 36_232),
}
STARTUPS_S = (1.0, 5.0, 30.0)


class Outcome(msgspec.Struct, frozen=True):
    """An Outcome is what became of all requests, and the seconds of workers that it took."""

    requests: float
    late: float
    most: int
    changes: int
    worker_seconds: float


def simulate(
    rate: Callable[[float], float],
    *,
    startup_s: float,
    seconds: float = 600.0,
    cost_s: float = 0.1,
    first: int = 2,
    policy: Policy | None = None,
) -> Outcome:
    """Run a stream of `rate(second)` requests through workers that `desired_workers` decides on, once a second."""
    policy = policy or Policy(least=1, most=100)
    history, ready = History(), first
    starting: list[float] = []
    queue: deque[list[float]] = deque()  # [when they came, how many are left]
    came = done = late = total = worker_seconds = 0.0
    most, changes, waiting = first, 0, 0.0
    for tick in range(1, round(seconds / TICK_S) + 1):
        now = tick * TICK_S
        ready += sum(at <= now for at in starting)
        starting = [at for at in starting if at > now]
        arrivals = rate(now) * TICK_S
        came, total = came + arrivals, total + arrivals
        if arrivals:
            queue.append([now, arrivals])
        room = ready * TICK_S / cost_s
        while queue and room > 1e-9:
            taken = min(room, queue[0][1])
            room, done = room - taken, done + taken
            late += taken if now - queue[0][0] > LATE_S else 0.0
            queue[0][1] -= taken
            if queue[0][1] <= 1e-9:
                queue.popleft()
        waiting = sum(left for _, left in queue)
        worker_seconds += (ready + len(starting)) * TICK_S
        if tick % round(1 / TICK_S) == 0:
            load = Load(
                at=now, seconds=1.0, arrivals=came, answered=done, busy_s=done * cost_s, waiting=waiting,
                ready=ready, starting=len(starting), startup_s=startup_s,
            )  # fmt: skip
            history = history.then(load, policy)
            wanted = desired_workers(history, policy).workers
            changes += wanted != ready + len(starting)
            while ready + len(starting) > wanted:
                if starting:
                    starting.pop()
                else:
                    ready -= 1
            starting += [now + startup_s] * (wanted - ready - len(starting))
            most = max(most, wanted)
            came = done = 0.0
    return Outcome(total, late + waiting, most, changes, worker_seconds)


def step(second: float, at: float = 60.0) -> float:
    return 14.0 if second <= at else 140.0


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print("| late requests, workers that start in | 1 s | 5 s | 30 s |")
    print("|---|---|---|---|")
    ours = [simulate(step, startup_s=startup_s, seconds=660.0) for startup_s in STARTUPS_S]
    rows = {"Cloche": [round(one.late) for one in ours], **OTHERS}
    for name, late in rows.items():
        print(f"| {name} | " + " | ".join(f"{count:,}" for count in late) + " |")
    print(f"\nOf {ours[0].requests:,.0f} requests of Cloche's:")
    for startup_s, one in zip(STARTUPS_S, ours, strict=True):
        took = f"at most {one.most} workers, {one.worker_seconds:,.0f} worker-seconds"
        print(f"- workers that start in {startup_s:g} s: {one.late / one.requests:.2%} late, {took}")


if __name__ == "__main__":
    main()
