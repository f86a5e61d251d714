"""Batch runs that are due: begun once each, gone on with after a stop or a death, never two at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from tests.journeys.serving import until

import cloche
from cloche.app.describe import Machine
from cloche.app.schedules import MOST_ATTEMPTS, Schedules
from cloche.batch.schedule import Schedule
from cloche.settings import Batch, described_batch
from cloche.store.batches import HOLD_S, Batches
from cloche.store.database import Store
from cloche.store.machines import Lease
from cloche.store.slots import Slots

ROWS = 5_000
EACH_SECOND = Schedule(cron="* * * * * *")
EACH_MINUTE = Schedule(cron="* * * * *")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("due")
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"age": rng.integers(18, 80, ROWS), "income": rng.normal(50_000, 9_000, ROWS).round()})
    model = LogisticRegression(max_iter=1000).fit(rows, rows["age"] > 40)
    cloche.pack(model, rows[:200], rows["age"][:200] > 40, name="churn", directory=folder)
    rows.insert(0, "id", range(ROWS))
    rows.to_csv(folder / "rows.csv", index=False)
    rows[:10].to_csv(folder / "few.csv", index=False)
    return folder


class World:
    """A World is a store, the file of a machine, and a clock that a test sets."""

    def __init__(self, folder: Path, packed: Path) -> None:
        self.folder, self.packed = folder, packed
        self.database = f"sqlite:///{packed / '.cloche' / 'state.db'}"
        self.store = Store(self.database)
        self.runs, self.slots = Batches(self.store), Slots(self.store)
        self.now = time.time()
        self.file = folder / "machine.json"
        self.made: list[Schedules] = []

    def batch(self, schedule: Schedule, source: str = "few.csv", **changes: object) -> Batch:
        told = {
            "model": "churn",
            "source": source,
            "sink": f"sqlite:///{self.folder}/s.db?table=scores",
            "key": "id",
        }
        batch = described_batch(self.folder.name[-40:].replace("_", "-").lower(), {**told, **changes}, self.packed)
        return msgspec.structs.replace(batch, schedule=schedule)

    def describe(self, *batch: Batch) -> None:
        machine = Machine(
            id="here", database=self.database, bundles=str(self.packed / ".cloche" / "bundles"), online=(),
            loopback=True, workers=1, least_workers=1, runtime=str(self.folder), isolate_above=1, batch=batch,
        )  # fmt: skip
        self.file.write_bytes(msgspec.json.encode(machine))

    def schedules(self, lease: Lease | None = None) -> Schedules:
        self.made.append(Schedules(self.file, self.store, lease, clock=lambda: self.now, look_s=0.05))
        return self.made[-1]

    def rows(self) -> int:
        with (
            contextlib.suppress(sqlite3.OperationalError),
            contextlib.closing(sqlite3.connect(self.folder / "s.db")) as database,
        ):
            return int(database.execute("SELECT count(*) FROM scores").fetchone()[0])
        return 0


@pytest.fixture
def world(folder: Path, packed: Path) -> Iterator[World]:
    made = World(folder, packed)
    yield made
    for schedules in made.made:
        schedules._end_children()
    made.store.close()


def turn_until_over(schedules: Schedules, seconds: float = 30.0) -> None:
    def is_over() -> bool:
        schedules.turn()
        return not schedules._children

    until(is_over, "the process of the run is over", seconds)


def test_two_who_look_each_second_run_each_slot_once_and_no_two_at_a_time(world: World) -> None:
    batch = world.batch(EACH_SECOND)
    world.describe(batch)

    def tick() -> bool:
        world.now = time.time()
        return len([row for row in world.runs.list(batch.name) if row.state == "completed"]) >= 3

    with world.schedules(), world.schedules():
        until(tick, "three slots were run", 40)
    runs = sorted(world.runs.list(batch.name), key=lambda row: row.started)
    assert {row.state for row in runs} <= {"completed", "interrupted"}
    assert len({row.slot for row in runs}) == len(runs)
    for before, after in pairwise(runs):
        assert before.ended is not None
        assert before.ended <= after.started
        assert before.slot is not None
        assert after.slot is not None
        assert before.slot < after.slot
    assert not any(schedules._children for schedules in world.made)


def test_a_schedule_holds_from_when_it_is_first_seen_and_anew_when_it_changes(world: World) -> None:
    batch = world.batch(EACH_MINUTE)
    world.describe(batch)
    schedules = world.schedules()
    schedules.turn()
    first = world.slots.last(batch.name)
    assert first is not None
    assert (first.state, first.slot) == ("since", world.now)
    world.now += 30.0
    world.describe(msgspec.structs.replace(batch, schedule=Schedule(cron="*/2 * * * *")))
    schedules.turn()
    second = world.slots.last(batch.name)
    assert second is not None
    assert (second.state, second.slot, second.schedule) == ("since", world.now, "*/2 * * * * UTC")
    assert not schedules._children
    assert world.runs.list(batch.name) == ()


def test_who_does_not_lead_runs_nothing(world: World) -> None:
    batch = world.batch(EACH_MINUTE)
    world.describe(batch)
    schedules = world.schedules(Lease(world.store, "other"))
    schedules.turn()
    world.now += 120.0
    schedules.turn()
    assert world.slots.last(batch.name) is None


def test_a_stop_lets_the_chunk_end_and_the_next_start_goes_on(world: World) -> None:
    batch = world.batch(EACH_MINUTE, "rows.csv", chunk=50)
    world.describe(batch)
    with world.schedules() as schedules:
        until(lambda: world.slots.last(batch.name), "the schedule is seen")
        world.now += 60.0
        until(lambda: world.rows() or not schedules._thread.is_alive(), "the first rows are safe")
    (row,) = world.runs.list(batch.name)
    assert row.state == "interrupted"
    assert row.rows == world.rows() < ROWS
    again = world.schedules()
    again.turn()
    turn_until_over(again)
    (row,) = world.runs.list(batch.name)
    assert (row.state, row.rows, row.attempt, world.rows()) == ("completed", ROWS, 2, ROWS)


def test_a_run_whose_process_is_killed_is_gone_on_with_at_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    batch = world.batch(EACH_MINUTE, "rows.csv", chunk=50)
    world.describe(batch)
    schedules = world.schedules()
    schedules.turn()
    world.now += 60.0
    schedules.turn()
    (child,) = schedules._children.values()
    until(world.rows, "the first rows are safe")
    os.kill(child.pid, signal.SIGKILL)
    child.wait(10)
    with caplog.at_level(logging.ERROR):
        until(lambda: schedules.turn() or child not in schedules._children.values())
    assert [record.__dict__["action"] for record in caplog.records] == ["batch_died"]
    until(lambda: schedules.turn() or schedules._children, "another process goes on", HOLD_S / 2)
    turn_until_over(schedules)
    (row,) = world.runs.list(batch.name)
    assert (row.state, row.attempt, world.rows()) == ("completed", 2, ROWS)


def test_a_run_that_kills_each_of_its_processes_is_given_up(world: World) -> None:
    batch = world.batch(EACH_MINUTE)
    world.describe(batch)
    schedules = world.schedules()
    schedules.turn()
    plan = {"run": "run_dddddddddddd", "ref": "churn:1", "digest": "", "source": "a", "sink": "b"}
    world.slots.claim(batch.name, world.now + 1, str(EACH_MINUTE))
    claim = world.runs.begin(plan, name=batch.name, holder="x", slot=world.now + 1)
    with world.store.note() as connection:
        connection.exec_driver_sql(f"UPDATE cloche_batch_runs SET attempt = {MOST_ATTEMPTS}, heartbeat = 0")
    schedules.turn()
    row = world.runs.get(claim.run)
    assert row.state == "failed"
    assert row.why.startswith(f"it was begun {MOST_ATTEMPTS} times")
    assert not schedules._children


def test_a_slot_whose_run_can_not_begin_says_why_and_the_next_is_tried(world: World) -> None:
    batch = world.batch(EACH_MINUTE, "none.csv")
    world.describe(batch)
    schedules = world.schedules()
    schedules.turn()
    world.now += 60.0
    schedules.turn()
    turn_until_over(schedules)
    last = world.slots.last(batch.name)
    assert last is not None
    assert last.state == "failed"
    assert "none.csv" in last.why
    world.now += 60.0
    schedules.turn()
    assert not schedules._children, "not at once: it might fail for ever"
    schedules._not_before.clear()
    schedules.turn()
    assert schedules._children


def test_a_slot_that_somebody_claimed_and_left_is_run_after_a_while(world: World) -> None:
    batch = world.batch(EACH_MINUTE)
    world.describe(batch)
    schedules = world.schedules()
    schedules.turn()
    slot = EACH_MINUTE.next(world.now)
    assert slot is not None
    world.slots.claim(batch.name, slot, str(EACH_MINUTE))
    world.now = slot + 1
    schedules.turn()
    assert not schedules._children, "whoever claimed it may be about to begin"
    with world.store.note() as connection:
        connection.exec_driver_sql(f"UPDATE cloche_batch_slots SET claimed = claimed - {HOLD_S + 1}")
    schedules.turn()
    turn_until_over(schedules)
    (row,) = world.runs.list(batch.name)
    assert (row.state, row.slot) == ("completed", slot)
