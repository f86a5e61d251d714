"""What the controller has the supervisor do about the number of workers, on a real board and store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from cloche.app import scale as module
from cloche.app.describe import Machine
from cloche.app.scale import Scaler
from cloche.core.board import Board, Head, Role, State
from cloche.core.member import Member
from cloche.monitoring.counters import DeploymentCounters
from cloche.settings import default_online
from cloche.store.database import Store
from cloche.store.scale import Scale


class Supervised:
    """A Supervised stands for the controller's Member: it keeps what the supervisor is asked for."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.slot = board.claim(63, Role.CONTROLLER, pid=1, start=1)
        self.asked: list[tuple[str, int]] = []

    def ask_for(self, kind: str, count: int) -> bool:
        self.asked.append((kind, count))
        return True


class World:
    """A World is one machine with so many workers, and a clock that the test moves."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
        self.board = Board(folder / "board")
        self.member = Supervised(self.board)
        self.store = store
        self.now = 100.0
        self.machine = Machine(
            id="m", database="", bundles="", online=(default_online("fraud", "fraud:1"),), loopback=True,
            workers=4, least_workers=4, runtime="", isolate_above=1,
        )  # fmt: skip
        monkeypatch.setattr(module, "usable_cores", lambda: 3)
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(Board, "is_beating", lambda board, slot: True)
        self.counters: list[DeploymentCounters] = []

    def scaler(self, **machine: Any) -> Scaler:
        described = msgspec.structs.replace(self.machine, **machine)
        return Scaler(described, self.store, cast(Member, self.member))

    def have(self, count: int) -> None:
        for number in range(1, 8):
            self.board.release(number)
        for number in range(1, count + 1):
            slot = self.board.claim(number, Role.WORKER, pid=number, start=1)
            slot.set(Head.STATE, State.READY)
            if number > len(self.counters):
                self.counters.append(DeploymentCounters(slot, "fraud", "1"))

    def work(
        self, scaler: Scaler, seconds: int, rate: int, inference_s: float = 0.01, *, hosted: tuple[str, ...] = ()
    ) -> list[int]:
        """So many requests each second; what the supervisor was asked for meanwhile."""
        self.member.asked.clear()
        for _ in range(seconds):
            for _ in range(rate):
                self.counters[0].began()
                self.counters[0].batch(1, inference_s)
                self.counters[0].answered("cloche", 200, inference_s)
            self.now += 1.0
            scaler.turn(self.store.revision(), frozenset(hosted))
        return [count for _, count in self.member.asked]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with Store("sqlite://") as store:
        yield World(tmp_path, monkeypatch, store)


def test_a_fixed_number_is_left_alone_whatever_the_load(world: World) -> None:
    world.have(4)
    assert world.work(world.scaler(), 5, 500) == []
    assert world.member.slot.get(Head.DESIRED) == 4


def test_what_a_person_wants_goes_before_all_else_until_it_is_taken_back(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.have(4)
    scaler = world.scaler()
    caplog.set_level(logging.INFO)
    world.work(scaler, 1, 0)
    Scale(world.store, "m").set(6, "ada")
    assert world.work(scaler, 2, 0) == [6, 6]
    world.have(6)
    assert world.work(scaler, 2, 0) == []
    Scale(world.store, "m").set(None, "ada")
    assert world.work(scaler, 1, 0) == [4]
    assert [record.getMessage() for record in caplog.records] == [
        "6 workers, there are 4: by hand",
        "4 workers, there are 6: as cloche.toml says",
    ]


def test_the_load_decides_between_the_least_and_the_cores(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.have(1)
    scaler = world.scaler(least_workers=1)
    caplog.set_level(logging.INFO)
    assert world.work(scaler, 3, 10) == []
    asked = world.work(scaler, 2, 500)
    assert set(asked) == {3}, "4 would be more than the cores"
    assert "which is more than the 3 cores" in caplog.records[-1].getMessage()
    world.have(3)
    assert world.work(scaler, 290, 10) == []
    assert world.work(scaler, 30, 10)[-1] == 1


def test_a_model_in_a_host_keeps_no_worker_busy(world: World) -> None:
    world.have(1)
    scaler = world.scaler(least_workers=1)
    assert world.work(scaler, 5, 500, hosted=("fraud",)) == []
    # until a version is promoted that lives in the workers
    assert set(world.work(scaler, 5, 500)) == {3}


def test_a_controller_that_begins_anew_takes_nothing_away(world: World) -> None:
    world.have(3)
    assert world.work(world.scaler(least_workers=1), 100, 1) == []
