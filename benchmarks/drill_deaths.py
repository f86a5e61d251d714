"""Drills of deaths: processes are killed while versions go out, and everything is killed and started again."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import threading
import time
from collections import Counter

from drill import Drill, Row, drill, failed, middle_and_most
from tests.journeys.releases import Callers
from tests.journeys.serving import again, until

from cloche.app.up import runtime_folder
from cloche.control.watch import Watch
from cloche.core.board import Board
from cloche.core.errors import ClocheError

CONFIG = """
[serve]
workers = 4
[online.toy]
model = "toy@champion"
rollout = { ramp = "1s", bake = "1s", sticky = "x-user-id" }
"""
_VERSIONS = 3
_STEPS = "50%, 100%"


def kills(scale: float) -> list[Row]:
    """A worker is killed each second while versions go out; callers try once more where they got no answer."""
    with drill(CONFIG, scale, versions=_VERSIONS) as one:
        seconds = one.times(60, 5)
        ends = Counter[str]()
        stop = threading.Event()
        sender = threading.Thread(target=_send_on, args=(one, stop, ends))
        with Callers(one.serving.url, rate=200, threads=8, fresh=True, again=True) as callers:
            sender.start()
            began = time.monotonic()
            dead = sum(_kill_a_worker(one, began + second) for second in range(1, seconds + 1))
            stop.set()
            sender.join(180)
            until(lambda: _ready(one) == 4, "all workers", 60)
        how = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
        return [
            (
                f"{dead} workers killed in {seconds} s at 200 req/s, sent once more where reset: failed",
                failed(callers),
            ),
            ("… sent once more", str(callers.retried)),
            ("… rollouts meanwhile", how),
        ]


def _send_on(one: Drill, stop: threading.Event, ends: Counter[str]) -> None:
    """Send one version out after the other; those that died are let in again."""
    while not stop.is_set():
        goal = one.stable() % _VERSIONS + 1
        with contextlib.suppress(ClocheError):  # the one before has just ended
            one.deployments.unblock("toy", goal)
        try:
            ends[one.ended(one.send(f"toy:{goal}", steps="100%", strategy="canary"), 120)] += 1
        except ClocheError as error:
            ends[error.message] += 1
            stop.wait(0.2)


def _kill_a_worker(one: Drill, at: float) -> int:
    """Kill one that stands on the board, at this time; how many died."""
    time.sleep(max(0.0, at - time.monotonic()))
    standing = one.serving.standing("worker")
    with contextlib.suppress(ProcessLookupError, IndexError):
        os.kill(random.choice(standing), signal.SIGKILL)
        return 1
    return 0


def heads(scale: float) -> list[Row]:
    """The supervisor and the controller are killed in turn in the middle of a rollout, which is finished."""
    ends = Counter[str]()
    with drill(CONFIG, scale, versions=_VERSIONS) as one:
        count = one.times(6, 2)
        with Callers(one.serving.url, rate=200, threads=6, fresh=True) as callers:
            for kind in itertools.islice(itertools.cycle(("controller", "supervisor")), count):
                goal = one.stable() % _VERSIONS + 1
                rollout = one.send(f"toy:{goal}", steps=_STEPS.replace("50%", "50% for 2s"))
                until(lambda: one.deployments.get("toy").weight > 0, "its first traffic", 30)
                _kill_head(one, kind)
                ends[one.ended(rollout, 180)] += 1
        how = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
        return [
            (f"controller and supervisor killed in turn, {count} rollouts: failed", failed(callers)),
            ("… the rollouts", how),
        ]


def _kill_head(one: Drill, kind: str) -> None:
    if kind == "controller":
        (pid,) = one.serving.children()["controller"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: one.serving.children()["controller"] not in ([], [pid]), "another controller", 60)
    else:
        one.serving.process.kill()
        one.serving.process.wait()
        again(one.serving)


def restart(scale: float) -> list[Row]:
    """Everything is killed in the middle of a rollout, then `cloche up`: how soon all is as it was."""
    announced, whole = [], []
    with drill(CONFIG.replace("workers = 4", "workers = 2"), scale, versions=2) as one:
        one.send("toy:2", steps="50% for 1h, 100%")
        until(lambda: one.deployments.get("toy").weight == 5000 and _is_whole(one, 2), "half of the traffic", 60)
        before = one.deployments.get("toy")
        count = one.times(10, 2)
        for _ in range(count):
            one.serving.kill_all()
            began = time.monotonic()
            again(one.serving, new_address=True)
            announced.append(time.monotonic() - began)
            until(lambda: _is_whole(one, 2), "both workers have both versions", 60)
            whole.append(time.monotonic() - began)
            now = one.deployments.get("toy")
            same = (now.stable, now.candidate, now.weight) == (before.stable, before.candidate, before.weight)
            assert same, (before, now)
            with Callers(one.serving.url, rate=200) as callers:
                until(lambda: len(callers.said) >= 400, "the answers")
            assert not callers.failed()
            assert min(callers.models()[f"toy:{version}"] for version in (1, 2)) > 100, callers.models()
        return [
            (
                f"{count} times kill -9 of everything, then `cloche up`: median, most until it answers",
                middle_and_most(announced),
            ),
            ("… until every worker has both versions at their weights", middle_and_most(whole)),
        ]


def _is_whole(one: Drill, workers: int) -> bool:
    """Whether so many workers serve, and have applied what the store says."""
    return len(_watch(one).workers()) == workers and _watch(one).are_at(one.deployments.get("toy").revision)


def _ready(one: Drill) -> int:
    return len(_watch(one).workers())


def _watch(one: Drill) -> Watch:
    runtime = runtime_folder(one.project.settings)
    return Watch(Board(runtime / "board"), runtime)
