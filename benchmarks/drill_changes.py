"""Drills of good changes: rolling updates, rollbacks, and the share that a candidate gets."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from drill import Drill, Row, drill, failed, middle_and_most
from tests.journeys.grpc_callers import GrpcCallers, address
from tests.journeys.releases import Callers, Said
from tests.journeys.serving import until

from cloche.app.deploy import roll_back

CONFIG = """
[serve]
workers = 2
grpc = 0
[online.toy]
model = "toy@champion"
rollout = { ramp = "10s", bake = "1s", sticky = "x-user-id" }
"""
#: From the decision on, within so long the old version has its last request (DESIGN.md's promise).
_FLIP_S = 0.3
_VERSIONS = 3


class Update(NamedTuple):
    """An Update is one passage between two versions: when it was asked for, and when it was promoted."""

    began: float
    ended: float
    before: str
    goal: str


def updates(scale: float) -> list[Row]:
    """Rolling updates under callers over HTTP, on kept-alive and on new connections, and over gRPC."""
    with drill(CONFIG, scale, versions=_VERSIONS) as one:
        count = one.times(100, 5)
        with (
            Callers(one.serving.url, rate=200, threads=6, fresh=True) as http,
            GrpcCallers(address(one.serving), threads=4, gap_s=0.05) as grpc,
        ):
            done = [_update(one) for _ in range(count)]
            until(lambda: max(said.at for said in grpc.said[-4:]) > done[-1].ended + _FLIP_S, "the last flip")
        took = [update.ended - update.began for update in done]
        lost = [*http.failed(), *grpc.failed]
        for each in lost[:3]:
            print(f"    failed: {each}")
        asked = f"{len(http.said):,} over HTTP and {len(grpc.said):,} over gRPC"
        return [
            (f"{count} rolling updates, callers over HTTP and gRPC: failed", f"{len(lost)} of {asked}"),
            ("… of them sent once more by gRPC's callers", str(len(grpc.retried))),
            ("… answers by a version that was not meant to serve", str(strangers([*http.said, *grpc.said], done))),
            ("… an update, with the first load in a process of its own: median, most", middle_and_most(took)),
        ]


def _update(one: Drill) -> Update:
    before = one.stable()
    goal = before % _VERSIONS + 1
    began = time.monotonic()
    assert one.ended(one.send(f"toy:{goal}", strategy="now")) == "succeeded"
    update = Update(began, time.monotonic(), f"toy:{before}", f"toy:{goal}")
    time.sleep(2 * _FLIP_S)  # so that there are answers of the new version alone
    return update


def strangers(said: Sequence[Said], updates: Sequence[Update]) -> int:
    """How many answers came from a version that was not meant to serve when they were asked for.

    From the start of an update on the new version may answer, and the old one until shortly after its end.
    """
    wrong, at = 0, 0
    for one in sorted(said, key=lambda one: one.at - one.seconds):
        if one.status != 200:
            continue
        asked = one.at - one.seconds
        while at + 1 < len(updates) and updates[at + 1].began <= one.at:
            at += 1
        update = updates[at]
        meant = {update.before}
        if one.at >= update.began:
            meant = {update.goal} if asked > update.ended + _FLIP_S else {update.before, update.goal}
        wrong += one.model not in meant
    return wrong


def rollbacks(scale: float) -> list[Row]:
    """Rollbacks, each at once: no answer is lost, and how long the other version still answers."""
    flips = []
    with drill(CONFIG, scale, versions=2) as one:
        count = one.times(100, 5)
        with Callers(one.serving.url, rate=200, threads=6, fresh=True) as callers:
            for _ in range(count):
                bad = one.stable()
                target = 2 if bad == 1 else 1
                began = time.monotonic()
                roll_back(one.project, "toy", target, "a drill")
                until(lambda at=began, target=target: f"toy:{target}" in callers.models(at), "the flip")
                time.sleep(0.4)
                late = [each.at for each in callers.said if each.at > began and each.model == f"toy:{bad}"]
                flips.append(1000 * (max(late, default=began) - began))
                one.deployments.unblock("toy", bad)
                until(lambda: one.deployments.get("toy").rollout is None, "quiet")
        return [
            (f"{count} rollbacks at 200 req/s: failed", failed(callers)),
            ("… decision to the last answer of the other version: median, most", middle_and_most(flips, "ms")),
        ]


def split(scale: float) -> list[Row]:
    """The share that a candidate gets, and who flips."""
    with drill(CONFIG, scale, versions=2) as one:
        wanted = one.times(100_000)
        one.send("toy:2", steps="5% for 1h, 100%")
        until(lambda: one.deployments.get("toy").weight == 500, "the step", 30)
        time.sleep(2 * _FLIP_S)
        with Callers(one.serving.url, rate=2000, threads=8) as callers:
            until(lambda: len(callers.said) >= wanted, "the answers", 600)
        arm: dict[str, str] = {}
        flipped = 0
        for each in callers.said:
            flipped += arm.setdefault(each.caller, each.model) != each.model
        users = sum(model == "toy:2" for model in arm.values()) / len(arm)
        return [
            (f"of {len(arm):,} users at 5 %: those of the candidate", f"{users:.2%}"),
            (f"users who saw both versions in {len(callers.said):,} answers", str(flipped)),
        ]
