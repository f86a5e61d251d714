"""Statistics: what boards counted, once, whatever was folded and whoever died; on every database."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from cloche.core.board import series_hash
from cloche.core.errors import BusyError, ConflictError
from cloche.store.database import Store
from cloche.store.increases import DAY, HOUR, KEPT, MINUTE, SECOND
from cloche.store.machines import Lease
from cloche.store.statistics import Counted, Statistics
from cloche.store.watch import WatchStore, beside, series, statistics

ALL_TIME = (0, 2**40)


@pytest.fixture(params=["memory", "sqlite"])
def watch(request: pytest.FixtureRequest, tmp_path: Path, clock: Any) -> Iterator[WatchStore]:
    """One whose clock is the test's; PostgreSQL has its own."""
    url = "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'state.db'}"
    with WatchStore(url, clock=clock) as opened:
        yield opened


def counted(**values: int) -> list[Counted]:
    """Series of these names, as a board holds them."""
    return [Counted(series_hash({"name": name}), {"name": name}, value) for name, value in values.items()]


def total(watch: WatchStore, begin: int = 0, end: int = 2**40) -> dict[str, int]:
    """What all machines counted, by name."""
    labels, grown = Statistics(watch).read(begin, end, ("a", "b", "c"))
    found: Counter[str] = Counter()
    for one in grown:
        for number, value in one.increases.items():
            found[labels[number]["name"]] += value
    return dict(found)


def rows(watch: WatchStore) -> dict[int, int]:
    """How many rows there are of each step."""
    with watch.read() as connection:
        wanted = select(statistics.c.step, func.count().label("rows")).group_by(statistics.c.step)
        return {row.step: row.rows for row in connection.execute(wanted)}


def fold_all(watch: WatchStore) -> int:
    """Fold until nothing is due; how often that was."""
    kept, count = Statistics(watch), 0
    while kept.fold() is not None:
        count += 1
    return count


# --- what is carried


def test_only_what_came_on_top_is_added(database: str) -> None:
    with WatchStore(database) as watch:
        kept = Statistics(watch)
        kept.carry("one", 1, counted(a=5))
        kept.carry("one", 1, counted(a=5, b=2))
        kept.carry("one", 1, counted(a=9, b=2))
        assert total(watch) == {"a": 9, "b": 2}


def test_who_comes_after_goes_on_where_the_one_before_was(database: str) -> None:
    with WatchStore(database) as watch:
        Statistics(watch).carry("one", 1, counted(a=5))
    with WatchStore(database) as watch:
        Statistics(watch).carry("one", 1, counted(a=7, b=1))
        Statistics(watch).carry("one", 1, counted(a=8, b=1))
        assert total(watch) == {"a": 8, "b": 1}


def test_another_board_counts_from_nothing(database: str) -> None:
    with WatchStore(database) as watch:
        kept = Statistics(watch)
        kept.carry("one", 1, counted(a=5))
        kept.carry("one", 2, counted(a=3))
        assert total(watch) == {"a": 8}


def test_machines_are_added_up(database: str) -> None:
    with WatchStore(database) as one, WatchStore(database) as two:
        Statistics(one).carry("one", 1, counted(a=5))
        Statistics(two).carry("two", 1, counted(a=3, b=1))
        Statistics(one).carry("one", 1, counted(a=6))
        assert total(two) == {"a": 9, "b": 1}


def test_two_controllers_of_one_machine_count_nothing_twice(database: str) -> None:
    """One that was frozen goes on beside the one that took its place."""
    with WatchStore(database) as one, WatchStore(database) as two:
        old, new = Statistics(one), Statistics(two)
        for value in range(1, 20, 2):
            old.carry("one", 1, counted(a=value))
            new.carry("one", 1, counted(a=value + 1))
        assert total(one) == {"a": 20}


def test_a_sum_may_fall(watch: WatchStore) -> None:
    kept = Statistics(watch)
    kept.carry("one", 1, counted(a=5))
    kept.carry("one", 1, counted(a=-2))
    assert total(watch) == {"a": -2}


def test_what_did_not_grow_writes_nothing(watch: WatchStore, clock: Any) -> None:
    kept = Statistics(watch)
    kept.carry("one", 1, counted(a=5, b=0))
    for _ in range(10):
        clock.now += 1
        kept.carry("one", 1, counted(a=5, b=0))
    assert rows(watch) == {SECOND: 1}
    with watch.read() as connection:
        assert connection.execute(select(func.count()).select_from(series)).scalar_one() == 1


def test_more_series_than_one_statement_names(watch: WatchStore) -> None:
    many = [Counted(series_hash({"name": "a", "of": str(n)}), {"name": "a", "of": str(n)}, n) for n in range(2500)]
    Statistics(watch).carry("one", 1, many)
    assert total(watch) == {"a": sum(range(2500))}


def test_labels_are_looked_for_to_the_letter(watch: WatchStore) -> None:
    ones = [{"name": "a", "deployment": name} for name in ("toy_1", "toyx1", "toy%", "toy_11")]
    Statistics(watch).carry("one", 1, [Counted(series_hash(one), one, 1) for one in ones])
    labels, grown = Statistics(watch).read(*ALL_TIME, ("a",), deployment="toy_1")
    assert list(labels.values()) == [ones[0]]
    assert [list(one.increases.values()) for one in grown] == [[1]]


_CARRY = """
import os, signal, sys
from cloche.core.board import series_hash
from cloche.store.statistics import Counted, Statistics
from cloche.store.watch import WatchStore
labels = {"name": "a"}
kept = Statistics(WatchStore(sys.argv[1]))
value = int(sys.argv[2])
print("ready", flush=True)
while True:
    value += 1
    kept.carry("one", 1, [Counted(series_hash(labels), labels, value)])
    print(value, flush=True)
"""


def test_who_is_killed_as_it_carries_leaves_all_of_a_second_or_nothing(database: str) -> None:
    value = 0
    for _ in range(5):
        command = [sys.executable, "-c", _CARRY, database, str(value)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(random.randrange(5, 30)):
                process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
            said = process.stdout.read().split()
        with WatchStore(database) as watch:
            found = total(watch)["a"]
            assert not said or found >= int(said[-1])
            value = found  # the board counts on from wherever it is; no less than what was carried
            Statistics(watch).carry("one", 1, counted(a=value))
            assert total(watch) == {"a": value}


# --- what is folded


def test_seconds_become_minutes_hours_and_days_and_are_dropped_at_last(watch: WatchStore, clock: Any) -> None:
    clock.now -= clock.now % DAY
    kept = Statistics(watch)
    for value in range(1, 121):
        clock.now += 1
        kept.carry("one", 1, counted(a=value))
    assert (fold_all(watch), rows(watch)) == (0, {SECOND: 120})
    steps = [(12 * MINUTE, {MINUTE: 3}), (DAY + HOUR, {HOUR: 1}), (36 * DAY, {DAY: 1}), (402 * DAY, {})]
    for later, left in steps:
        clock.now += later
        fold_all(watch)
        assert rows(watch) == left
        assert total(watch) == ({"a": 120} if left else {})
    with watch.read() as connection:
        assert connection.execute(select(func.count()).select_from(series)).scalar_one() == 0


@given(
    waits=st.lists(
        st.one_of(st.integers(0, 100), st.integers(0, 3 * HOUR), st.integers(0, 20 * DAY)), max_size=30
    ),
    dice=st.randoms(use_true_random=False),
)
def test_whatever_is_folded_when_any_time_is_the_sum_of_all_in_it(waits: list[int], dice: Any) -> None:
    clock = Now()
    with WatchStore("sqlite://", clock=clock) as watch:
        kept = Statistics(watch)
        sums = {"a": 0, "b": 0}
        days: dict[int, Counter[str]] = {}
        for wait in waits:
            clock.now += wait
            name, more = dice.choice("ab"), dice.randrange(1, 1000)
            sums[name] += more
            days.setdefault(clock.now // DAY, Counter())[name] += more
            kept.carry(dice.choice(("one",)), 1, counted(**sums))
            for _ in range(dice.randrange(3)):
                kept.fold()
            assert total(watch) == {name: value for name, value in sums.items() if value}
        for day, found in days.items():
            assert total(watch, day * DAY, (day + 1) * DAY) == dict(found)


class Now:
    """A Now is a time that a test moves."""

    def __init__(self) -> None:
        self.now = 20_000 * DAY

    def __call__(self) -> float:
        return float(self.now)


def test_one_fold_is_no_more_than_what_becomes_one_row_of_each_machine(watch: WatchStore, clock: Any) -> None:
    kept = Statistics(watch)
    for value in range(1, 4 * MINUTE):
        clock.now += 1
        for machine in ("one", "two"):
            kept.carry(machine, 1, counted(a=value))
    clock.now += HOUR
    before = rows(watch)[SECOND]
    fold = kept.fold()
    assert fold is not None
    assert 0 < before - rows(watch)[SECOND] <= 2 * MINUTE
    assert rows(watch)[MINUTE] == 2


def test_a_fold_that_is_refused_changes_nothing(watch: WatchStore, clock: Any) -> None:
    Statistics(watch).carry("one", 1, counted(a=1))
    clock.now += HOUR

    def refuse(_: object) -> None:
        raise ConflictError("another leads", code="CL-E506")

    with pytest.raises(ConflictError):
        Statistics(watch).fold(refuse)
    assert rows(watch) == {SECOND: 1}
    assert Statistics(watch).fold() is not None
    assert rows(watch) == {MINUTE: 1}


@pytest.mark.heavy
def test_only_who_leads_folds(postgresql: Any) -> None:
    url = postgresql()
    with Store(url) as store, WatchStore(url) as watch:
        kept = Statistics(watch)
        kept.carry("one", 1, counted(a=1))
        with watch.note() as connection:  # as if it were an hour ago
            connection.exec_driver_sql("UPDATE cloche_statistics SET start = start - 3600")
        old, new = Lease(store, "one"), Lease(store, "one")
        assert old.take()
        assert new.take()
        with pytest.raises(ConflictError):
            kept.fold(old.check)
        assert rows(watch) == {SECOND: 1}
        assert kept.fold(new.check) is not None
        assert (rows(watch), total(watch)) == ({MINUTE: 1}, {"a": 1})


def test_the_file_shrinks_again(tmp_path: Path, clock: Any) -> None:
    file = tmp_path / "watch.db"
    noise = random.Random(0)
    with WatchStore(f"sqlite:///{tmp_path / 'state.db'}", clock=clock) as watch:
        kept = Statistics(watch)
        values = {f"series {number}": 0 for number in range(900)}
        for _ in range(600):
            clock.now += 1
            values = {name: value + noise.randrange(1, 2**40) for name, value in values.items()}
            kept.carry("one", 1, counted(**values))
        with watch.read() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        clock.now += HOUR
        fold_all(watch)
        with watch.read() as connection:
            left = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            assert connection.exec_driver_sql("PRAGMA auto_vacuum").scalar_one() == 2
        assert left < pages / 2
    assert file.exists()


# --- where it stands


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("sqlite:////data/state.db", "sqlite:////data/watch.db"),
        ("sqlite:////data/other.db", "sqlite:////data/other-watch.db"),
        ("sqlite:////data/what? 100% #1/state.db", "sqlite:////data/what? 100% #1/watch.db"),
        ("sqlite://", "sqlite://"),
        ("postgresql://cloche@host/db", "postgresql://cloche@host/db"),
    ],
)
def test_it_stands_beside_the_state(url: str, where: str) -> None:
    assert beside(url) == where


def test_who_writes_the_state_and_who_writes_the_statistics_never_wait_for_each_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    with Store(url) as store, WatchStore(url) as watch:
        with store.change():
            Statistics(watch).carry("one", 1, counted(a=1))
        with watch.note(), store.change():
            pass
        assert (total(watch), store.revision()) == ({"a": 1}, 2)
        with watch.read() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 1  # NORMAL


def test_where_nothing_was_counted_reading_makes_no_file(tmp_path: Path) -> None:
    with WatchStore(f"sqlite:///{tmp_path / 'state.db'}", create=False) as watch:
        assert total(watch) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_what_was_there_and_all_of_it_comes_later(tmp_path: Path) -> None:
    with WatchStore(f"sqlite:///{tmp_path / 'state.db'}") as watch:
        kept = Statistics(watch)
        kept.carry("one", 1, counted(a=1))
        many = {f"series {number}": 1 for number in range(3000)}
        _limit_pages(watch, more=0)
        with pytest.raises(BusyError, match="full"):
            kept.carry("one", 1, counted(a=2, **many))
        assert total(watch) == {"a": 1}
        _limit_pages(watch, more=10_000)
        kept.carry("one", 1, counted(a=3, **many))
        assert total(watch) == {"a": 3}


def _limit_pages(watch: WatchStore, *, more: int) -> None:
    """SQLite takes a file of so many pages for a full disk; there is one connection, which is used again."""
    with watch.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + more}").fetchall()


def test_every_step_is_kept_longer_than_what_it_is_folded_from() -> None:
    kept = [kept_s for _, kept_s, _ in KEPT]
    assert kept == sorted(kept)
    assert all(into is None or into == after[0] for (_, _, into), after in pairwise(KEPT))
