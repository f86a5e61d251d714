"""Which hosts the supervisor is asked for, on a real board: none goes while anybody may ask it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from cloche.app import hosts as module
from cloche.app.desired import DeploymentConfig, Desired, Trial, Wished
from cloche.app.hosts import TELL_S, Hosts
from cloche.control.watch import Watch
from cloche.core.board import Board, Head, Role, Slot, State
from cloche.core.member import Member
from cloche.rollout.analysis import Policy
from cloche.serving.worker import GRACE_S

DEADLINE_S = 2.0


class Supervised:
    """A Supervised stands for the controller's Member: it keeps what the supervisor is asked for."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, Any]]] = []

    def ask_for_hosts(self, configs: list[dict[str, Any]]) -> bool:
        self.asked.append(configs)
        return True


def version(number: int, *, hosted: bool = True) -> DeploymentConfig:
    return DeploymentConfig(
        deployment="fraud", model="fraud", version=number, digest=f"d{number}", bundle=f"/bundles/{number}",
        deadline_s=DEADLINE_S, on_invalid="flag", keys_required=False,
        hosts=(f"{number}.sock",) if hosted else (),
    )  # fmt: skip


def desired(revision: int, stable: int, candidate: int | None = None) -> Desired:
    trial = None
    if candidate is not None:
        trial = Trial(candidate=version(candidate), rollout=1, weight=0, policy=Policy(), slow_s=1.0)
    return Desired(revision=revision, deployments=(Wished(stable=version(stable), trial=trial),), trusted=("k",))


class World:
    """A World is a machine with a worker that has applied a revision, and a clock that the test moves."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.board = Board(folder / "board")
        self.worker: Slot = self.board.claim(1, Role.WORKER, pid=1, start=1)
        self.worker.set(Head.STATE, State.READY)
        self.member = Supervised()
        self.watch = Watch(self.board, folder)
        self.now = 100.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(Board, "is_beating", lambda board, slot: True)

    def hosts(self, first: Desired) -> Hosts:
        return Hosts(cast(Member, self.member), self.watch, first)

    def sockets(self) -> list[str]:
        return [one["socket"] for one in self.member.asked[-1]]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield World(tmp_path, monkeypatch)


def test_the_supervisor_is_told_at_once_and_each_second(world: World) -> None:
    now = desired(1, 1)
    hosts = world.hosts(now)
    hosts.turn(now)
    hosts.turn(now)
    assert len(world.member.asked) == 1
    (config,) = world.member.asked[0]
    assert config == {
        "socket": "1.sock", "digest": "d1", "bundle": "/bundles/1", "trusted": ("k",),
        "deployment": "fraud", "version": 1, "device": "cpu",
    }  # fmt: skip
    world.now += TELL_S
    hosts.turn(now)
    assert len(world.member.asked) == 2
    hosts.turn(desired(2, 1, candidate=2))
    assert world.sockets() == ["1.sock", "2.sock"]


def test_a_host_goes_once_every_worker_knows_and_the_last_of_its_requests_is_answered(world: World) -> None:
    both, one = desired(1, 1, candidate=2), desired(2, 1)
    hosts = world.hosts(both)
    hosts.turn(both)
    hosts.turn(one)
    world.now += 100.0
    hosts.turn(one)
    assert world.sockets() == ["1.sock", "2.sock"], "the worker may be asking it still"
    world.worker.set(Head.REVISION, 2)
    hosts.turn(one)
    world.now += DEADLINE_S + GRACE_S
    hosts.turn(one)
    assert world.sockets() == ["1.sock", "2.sock"], "what it was asked last may take so long"
    world.now += 1.1
    hosts.turn(one)
    assert world.sockets() == ["1.sock"]


def test_what_is_wanted_again_meanwhile_stays(world: World) -> None:
    both, one, again = desired(1, 1, candidate=2), desired(2, 1), desired(3, 1, candidate=2)
    hosts = world.hosts(both)
    world.worker.set(Head.REVISION, 3)
    for now in (both, one, again):
        hosts.turn(now)
    world.now += 100.0
    hosts.turn(again)
    assert world.sockets() == ["1.sock", "2.sock"]


def test_a_controller_that_begins_anew_knows_what_the_one_before_it_had_handed_out(world: World) -> None:
    hosts = world.hosts(desired(1, 1, candidate=2))
    now = desired(2, 1)
    hosts.turn(now)
    assert sorted(world.sockets()) == ["1.sock", "2.sock"]
