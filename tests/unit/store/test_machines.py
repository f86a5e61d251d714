"""Machines that share a store: one leads, whoever was succeeded writes nothing, and each hears of the others."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import insert, select

from cloche.core.errors import ConflictError
from cloche.store.database import Store
from cloche.store.machines import LEASE_S, LIVE_S, Lease, MachineReport, Machines, database_now, fenced
from cloche.store.tables import leases, models


@pytest.fixture(params=["memory", "sqlite"])
def timed(request: pytest.FixtureRequest, tmp_path: Any, clock: Any) -> Any:
    """A store whose clock is the test's; PostgreSQL has its own."""
    url = "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'state.db'}"
    with Store(url, clock=clock) as opened:
        yield opened


def add_model(connection: Any, name: str) -> None:
    connection.execute(insert(models).values(name=name, created=1.0))


def model_names(store: Store) -> list[str]:
    with store.read() as connection:
        return list(connection.execute(select(models.c.name)).scalars())


def fence_of(store: Store) -> int:
    with store.read() as connection:
        return int(connection.execute(select(leases.c.fence)).scalar_one())


# --- the lease


def test_the_first_leads_and_nobody_else(store: Store) -> None:
    one, two = Lease(store, "one"), Lease(store, "two")
    assert one.take()
    assert not two.take()
    assert one.take()
    assert not two.take()


def test_who_renews_leads_on_and_its_fence_stays(timed: Store, clock: Any) -> None:
    one, two = Lease(timed, "one"), Lease(timed, "two")
    assert one.take()
    for _ in range(10):
        clock.now += LEASE_S - 0.1
        assert one.take()
        assert not two.take()
    assert fence_of(timed) == 1


@pytest.mark.parametrize(("waits", "takes"), [(LEASE_S - 0.1, False), (LEASE_S, True), (LEASE_S + 0.1, True)])
def test_another_takes_over_when_the_time_is_over(timed: Store, clock: Any, waits: float, takes: bool) -> None:
    one, two = Lease(timed, "one"), Lease(timed, "two")
    one.take()
    clock.now += waits
    assert two.take() is takes
    assert one.take() is not takes
    assert fence_of(timed) == (2 if takes else 1)


def test_who_comes_back_too_late_follows_until_it_is_its_turn_again(timed: Store, clock: Any) -> None:
    one, two = Lease(timed, "one"), Lease(timed, "two")
    one.take()
    clock.now += 60
    two.take()
    assert not one.take()
    clock.now += 60
    assert one.take()
    assert not two.take()
    assert fence_of(timed) == 3


def test_who_slept_and_was_not_missed_leads_on(timed: Store, clock: Any) -> None:
    one = Lease(timed, "one")
    one.take()
    clock.now += 60
    with fenced(timed, one) as connection:
        add_model(connection, "fraud")
    assert one.take()
    assert fence_of(timed) == 1


def test_a_new_controller_of_the_same_machine_leads_at_once_and_the_old_one_does_not(store: Store) -> None:
    old, new = Lease(store, "one"), Lease(store, "one")
    assert old.take()
    assert new.take()
    with pytest.raises(ConflictError), fenced(store, old):
        pass
    with fenced(store, new) as connection:
        add_model(connection, "fraud")
    assert fence_of(store) == 2


def test_who_gives_up_is_followed_at_once(store: Store) -> None:
    one, two = Lease(store, "one"), Lease(store, "two")
    one.take()
    one.give_up()
    with pytest.raises(ConflictError), fenced(store, one):
        pass
    assert two.take()
    assert not one.take()


def test_who_does_not_lead_can_not_give_up_for_another(store: Store) -> None:
    one, two = Lease(store, "one"), Lease(store, "two")
    two.give_up()
    one.take()
    two.take()
    two.give_up()
    assert not two.take()
    assert one.take()


def test_who_was_succeeded_can_not_give_up_for_who_leads_now(timed: Store, clock: Any) -> None:
    one, two, three = (Lease(timed, name) for name in ("one", "two", "three"))
    one.take()
    clock.now += 60
    two.take()
    one.give_up()  # it has not heard of it yet
    assert not three.take()
    assert two.take()


def test_a_late_write_is_refused_and_leaves_nothing(timed: Store, clock: Any) -> None:
    """It was made while it led, and comes when another does."""
    one, two = Lease(timed, "one"), Lease(timed, "two")
    one.take()
    with fenced(timed, one) as connection:
        add_model(connection, "early")
    clock.now += 60
    two.take()
    revision = timed.revision()
    for quiet in (True, False):
        late = fenced(timed, one, quiet=quiet)
        with pytest.raises(ConflictError, match="another controller leads now") as caught, late as connection:
            add_model(connection, "late")
        assert caught.value.code == "CL-E506"
    with pytest.raises(ConflictError), timed.change() as connection:
        add_model(connection, "later")
        one.check(connection)
    assert (model_names(timed), timed.revision()) == (["early"], revision)


def test_who_never_led_writes_nothing(store: Store) -> None:
    with pytest.raises(ConflictError), fenced(store, Lease(store, "one")):
        pass
    Lease(store, "two").take()
    with pytest.raises(ConflictError), fenced(store, Lease(store, "two")):
        pass


def test_without_a_lease_everybody_writes(store: Store) -> None:
    before = store.revision()
    with fenced(store, None) as connection:
        add_model(connection, "fraud")
    assert store.revision() == before + 1
    with fenced(store, None, quiet=True) as connection:
        add_model(connection, "churn")
    assert store.revision() == before + 1
    assert sorted(model_names(store)) == ["churn", "fraud"]


def test_leading_is_no_change_that_anybody_must_see(store: Store) -> None:
    before = store.revision()
    lease = Lease(store, "one")
    lease.take()
    lease.take()
    lease.give_up()
    Machines(store, "one").report(MachineReport(workers=1, revision=1))
    assert store.revision() == before


def race(database: str, runners: int) -> list[bool]:
    """Which of so many, each with a connection of its own, took the lease; raises what one of them did."""
    barrier = threading.Barrier(runners)

    def run(number: int) -> bool:
        with Store(database) as store:
            lease = Lease(store, f"machine-{number}")
            barrier.wait(30)
            return lease.take()

    with ThreadPoolExecutor(runners) as pool:
        return list(pool.map(run, range(runners)))


def test_of_eight_that_start_at_once_exactly_one_leads(database: str) -> None:
    with Store(database):
        pass
    assert sorted(race(database, 8)) == [False] * 7 + [True]


def test_of_eight_that_see_the_lease_end_exactly_one_takes_over(database: str) -> None:
    """Each of many times: the row is there, and whoever has it first is the only one."""
    with Store(database) as first:
        assert Lease(first, "holder").take()
        for fence in range(2, 12):
            with first.note() as connection:
                connection.execute(leases.update().values(until=0.0))
            assert sorted(race(database, 8)) == [False] * 7 + [True]
            assert fence_of(first) == fence


_COUNT_WHILE_IT_LEADS = """
import sys, time
from sqlalchemy import select, update
from cloche.core.errors import ConflictError
from cloche.store.database import Store
from cloche.store.machines import Lease, fenced
from cloche.store.tables import models
with Store(sys.argv[1]) as store:
    lease = Lease(store, sys.argv[2])
    ends = time.monotonic() + 60
    done = 0
    while done < 5 and time.monotonic() < ends:
        if not lease.take():
            time.sleep(0.01)
            continue
        with fenced(store, lease) as connection:
            held = connection.execute(select(models.c.created)).scalar_one()
            connection.execute(update(models).values(created=held + 1))
        lease.give_up()
        done += 1
    print(done)
"""


def test_processes_that_lead_in_turn_lose_no_write(database: str) -> None:
    with Store(database) as store, store.change() as connection:
        connection.execute(insert(models).values(name="fraud", created=0.0))
    command = [sys.executable, "-W", "error", "-c", _COUNT_WHILE_IT_LEADS, database]
    started = [
        subprocess.Popen([*command, f"p{n}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for n in range(4)
    ]
    ends = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * 4, ends
    with Store(database) as store, store.read() as connection:
        assert connection.execute(select(models.c.created)).scalar_one() == sum(int(out) for out, _ in ends) == 20


# --- the machines


def test_each_machine_hears_of_the_others(store: Store) -> None:
    one, two, three = (Machines(store, name) for name in ("one", "two", "three"))
    assert one.others() == {}
    reports = {
        name: MachineReport(workers=number, revision=10 + number, seen={"7": {"counts": {"candidate": number}}})
        for number, name in enumerate(("one", "two", "three"))
    }
    for machines, report in zip((one, two, three), reports.values(), strict=True):
        machines.report(report)
    assert one.others() == {name: reports[name] for name in ("two", "three")}
    assert three.others() == {name: reports[name] for name in ("one", "two")}


def test_a_report_takes_the_place_of_the_one_before(store: Store) -> None:
    one, two = Machines(store, "one"), Machines(store, "two")
    for revision in (1, 2, 3):
        one.report(MachineReport(workers=1, revision=revision))
    assert two.others() == {"one": MachineReport(workers=1, revision=3)}


@pytest.mark.parametrize(("passed", "lives"), [(LIVE_S, True), (LIVE_S + 0.1, False)])
def test_who_says_nothing_for_long_serves_nobody(timed: Store, clock: Any, passed: float, lives: bool) -> None:
    one, two = Machines(timed, "one"), Machines(timed, "two")
    one.report(MachineReport(workers=1, revision=1))
    clock.now += passed
    assert bool(two.others()) is lives
    assert two.others(within_s=60.0)
    one.report(MachineReport(workers=1, revision=1))
    assert set(two.others()) == {"one"}


def test_on_sqlite_it_is_this_machines_clock(timed: Store, clock: Any) -> None:
    with timed.read() as connection:
        assert database_now(timed, connection) == clock.now


@pytest.mark.heavy
def test_on_postgresql_it_is_the_databases_clock(postgresql: Callable[[], str], clock: Any) -> None:
    """Machines whose clocks differ agree on who leads; and it goes on within a transaction."""
    with Store(postgresql(), clock=clock) as store:
        before = time.time()
        with store.read() as connection:
            first = database_now(store, connection)
            second = database_now(store, connection)
        assert before - 1 <= first < second <= time.time() + 1
        one, two = Lease(store, "one"), Lease(store, "two")
        assert one.take()
        clock.now += 1_000
        assert not two.take()
