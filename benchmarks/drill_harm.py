"""Drills of bad versions: what callers at 100 requests a second get until the traffic is back."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from drill import Drill, Row, drill
from tests.journeys.releases import Callers, Said, release, release_class
from tests.journeys.serving import until

CONFIG = """
[serve]
workers = 2
allow_code = true
[online.toy]
model = "toy:1"
rollout = { ramp = "10s", bake = "1s" }
[online.jump]
model = "toy:1"
rollout = { ramp = "0s", bake = "1s" }
[online.task]
model = "task@champion"
objectives = { p99 = "50ms" }
rollout = { ramp = "10s", bake = "1s" }
"""
#: The steps, what they are called, and the deployment: "jump" has no ramp.
_PLACES = (
    ("5%, 50%, 100%", "from the first step on, 5 %", "toy"),
    ("50%, 100%", "at 50 % at once", "jump"),
    ("100%", "with all of the traffic at once, before it is promoted", "jump"),
)
#: Python code: what it is called, its kind, and the seconds that a call takes.
_CODE = (
    ("three times slower than allowed", "good", 0.08),
    ("Python code that ends its process", "dies", 0.01),
    ("Python code that blocks 2 s", "blocks", 0.01),
    ("Python code that eats memory until it is killed", "eats", 0.01),
)
#: An answer of the slow one is a bad one from here on: its objective, and what callers take themselves.
_SLOW_S = 0.06


def harm(scale: float, *, long: bool = False) -> list[Row]:
    """Every bad version in every place; `long` takes those that fail 2 % as well, minutes each."""
    shares = {"fails always": 1.0, "fails 20 %": 0.2, **({"fails 2 %": 0.02} if long else {})}
    kinds: list[tuple[str, Callable[[Drill, float], int]]] = [
        (name, lambda one, n, share=share: release(one.folder, "fails", n, share=share))
        for name, share in shares.items()
    ]
    kinds.append(("answers NaN always", lambda one, n: release(one.folder, "nan", n, share=1.0)))
    with drill(CONFIG, scale, versions=2, prepare=_good_code) as one:
        rows = []
        factor = 10.0
        for name, make in kinds:
            for steps, where, deployment in _PLACES:
                found = []
                for _ in range(one.times(3)):
                    factor += 1
                    found.append(_harmed(one, deployment, f"toy:{make(one, factor)}", steps))
                rows.append((f"{name}, {where}: bad answers, seconds", _medians(found)))
        for name, kind, seconds in _CODE:
            found = []
            for _ in range(one.times(3)):
                factor += 1
                version = release_class(one.folder, kind, factor, seconds=seconds)
                found.append(_harmed(one, "task", f"task:{version}", "5%, 50%, 100%"))
            rows.append((f"{name}, from the first step on, 5 %: bad answers, seconds", _medians(found)))
        return rows


def _good_code(folder: Path) -> None:
    release_class(folder, "good", 2.0, seconds=0.01)


def _harmed(one: Drill, name: str, version: str, steps: str) -> tuple[int, float]:
    """Bad answers, and seconds from the first of them to the last, until it was taken back."""
    numbers = 0 if name == "task" else 2
    with Callers(one.serving.url, rate=100, threads=6, name=name, numbers=numbers) as callers:
        until(lambda: len(callers.said) > 50, "the callers")
        assert one.ended(one.send(version, steps=steps, deployment=name), 600) == "aborted"
        ended = time.monotonic()
        # those that block a process may come late
        until(lambda: min(said.at - said.seconds for said in callers.said[-6:]) > ended + 2.0, "the last answers")
    bad = sorted(said for said in callers.said if _is_bad(said, name))
    return len(bad), bad[-1].at - bad[0].at + bad[0].seconds if bad else 0.0


def _is_bad(said: Said, name: str) -> bool:
    return said.status != 200 or (name == "task" and said.seconds > _SLOW_S)


def _medians(found: list[tuple[int, float]]) -> str:
    bad, seconds = zip(*found, strict=True)
    return f"{statistics.median(bad):g}, {statistics.median(seconds):.1f}"
