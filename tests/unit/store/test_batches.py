"""Batch runs and slots: one holder at a time, one run a name, one run a slot, whoever tries."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from tests.unit.conftest import FakeClock

from cloche.core.errors import ConfigError, ConflictError, NotFoundError
from cloche.store.batches import HOLD_S, Batches, Claim
from cloche.store.database import Store
from cloche.store.machines import Lease
from cloche.store.slots import Slots

RUN, OTHER = "run_aaaaaaaaaaaa", "run_aabbbbbbbbbb"


@pytest.fixture
def runs(store: Store) -> Batches:
    return Batches(store)


def _pass(store: Store, clock: FakeClock, run: str) -> None:
    """More than a holder may be silent, on whichever clock the database has."""
    clock.now += HOLD_S + 1
    with store.note() as connection:
        connection.exec_driver_sql(
            f"UPDATE cloche_batch_runs SET heartbeat = heartbeat - {HOLD_S + 1} WHERE id = '{run}'"
        )


def test_a_run_is_kept_from_its_beginning_to_its_end(runs: Batches) -> None:
    claim = runs.begin({"run": RUN, "source": "rows.csv"}, name="nightly", holder="here")
    assert claim == Claim(RUN, 1)
    assert runs.beat(claim, 10_000, 3, 20_000) is None
    row = runs.get(RUN)
    assert (row.state, row.rows, row.rejected, row.total, row.ended) == ("running", 10_000, 3, 20_000, None)
    assert row.plan["source"] == "rows.csv"
    runs.end(claim, "completed with rejects", rows=20_000, rejected=5, report={"rows_per_s": 9})
    row = runs.get(RUN)
    assert (row.state, row.rows, row.rejected, row.report) == (
        "completed with rejects",
        20_000,
        5,
        {"rows_per_s": 9},
    )
    assert row.ended is not None


def test_of_one_name_one_run_goes_on_at_a_time(runs: Batches) -> None:
    claim = runs.begin({"run": RUN}, name="nightly", holder="here")
    with pytest.raises(ConflictError, match=f"{RUN} of nightly is running, held by here") as caught:
        runs.begin({"run": OTHER}, name="nightly", holder="there")
    assert caught.value.code == "CL-E520"
    runs.end(claim, "completed")
    runs.begin({"run": OTHER}, name="nightly", holder="there")


def test_who_is_silent_for_long_holds_nothing_and_can_write_nothing(
    runs: Batches, store: Store, clock: FakeClock
) -> None:
    first = runs.begin({"run": RUN}, name=None, holder="here")
    with pytest.raises(ConflictError, match="held by here"):
        runs.resume(RUN, holder="there")
    _pass(store, clock, RUN)
    assert runs.get(RUN).state == "interrupted"
    second = runs.resume(RUN, holder="there")
    assert second == Claim(RUN, 2)
    for write in (lambda: runs.beat(first, 1, 0, None), lambda: runs.end(first, "completed")):
        with pytest.raises(ConflictError, match="another process goes on") as caught:
            write()
        assert caught.value.code == "CL-E520"
    assert runs.get(RUN).state == "running"
    runs.beat(second, 2, 0, None)


def test_a_holder_that_is_known_to_be_dead_is_not_waited_for(runs: Batches) -> None:
    runs.begin({"run": RUN}, name=None, holder="here")
    assert runs.resume(RUN, holder="here too", gone="here").attempt == 2
    with pytest.raises(ConflictError, match="held by here too"):
        runs.resume(RUN, holder="there", gone="here")


def test_what_is_over_is_not_resumed_and_what_failed_is(runs: Batches) -> None:
    claim = runs.begin({"run": RUN}, name=None, holder="here")
    runs.end(claim, "failed", why="the disk is full")
    again = runs.resume(RUN, holder="here")
    assert (runs.get(RUN).why, runs.get(RUN).ended) == ("", None)
    runs.end(again, "completed")
    with pytest.raises(ConflictError, match="is completed") as caught:
        runs.resume(RUN, holder="here")
    assert caught.value.code == "CL-E521"


def test_a_wish_to_cancel_reaches_who_holds_the_run(runs: Batches, store: Store, clock: FakeClock) -> None:
    claim = runs.begin({"run": RUN}, name="nightly", holder="here")
    assert runs.cancel("nightly").state == "running"
    assert runs.beat(claim, 1, 0, None) == store.who
    runs.end(claim, "cancelled")
    with pytest.raises(ConflictError, match="is cancelled"):
        runs.cancel(RUN)
    claim = runs.resume(RUN, holder="here")
    assert runs.beat(claim, 1, 0, None) is None, "who goes on wants it again"
    _pass(store, clock, RUN)
    assert runs.cancel(RUN).state == "cancelled", "nobody holds it"


def test_a_run_is_found_by_name_by_id_and_by_the_start_of_an_id(runs: Batches, clock: FakeClock) -> None:
    runs.begin({"run": RUN}, name=None, holder="here")
    clock.now += 1
    runs.end(runs.begin({"run": OTHER}, name="nightly", holder="here"), "completed")
    assert runs.find("nightly").id == runs.find("aabb").id == runs.find(OTHER).id == OTHER
    assert runs.find("run_aaa").id == RUN
    with pytest.raises(ConfigError, match="may mean") as unclear:
        runs.find("aa")
    assert unclear.value.code == "CL-E203"
    for nothing in ("b", "run_", "", "%"):
        with pytest.raises(NotFoundError) as caught:
            runs.find(nothing)
        assert caught.value.code == "CL-E320"
    assert {row.id for row in runs.list()} == {RUN, OTHER}
    assert [row.id for row in runs.list("nightly")] == [OTHER]
    assert len(runs.list(most=1)) == 1


@pytest.fixture
def shared(database: str) -> Iterator[Store]:
    with Store(database) as opened:
        yield opened


def test_a_slot_is_claimed_once_whoever_looks_at_the_same_moment(shared: Store) -> None:
    claimed = []
    start = threading.Barrier(8)

    def look() -> None:
        start.wait(10)
        claimed.append(Slots(shared).claim("nightly", 1_750_000_000.0, "0 2 * * * UTC"))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(claimed) == [False] * 7 + [True]


def test_a_slot_gets_one_run(shared: Store) -> None:
    slots, runs = Slots(shared), Batches(shared)
    slots.since("nightly", "* * * * * UTC", 50.0)
    assert slots.claim("nightly", 60.0, "* * * * * UTC")
    last = slots.last("nightly")
    assert last is not None
    assert (last.slot, last.state, last.run) == (60.0, "claimed", None)
    assert last.age_s < 5
    runs.end(runs.begin({"run": RUN}, name="nightly", holder="here", slot=60.0), "completed")
    with pytest.raises(ConflictError, match="has its run already") as caught:
        runs.begin({"run": OTHER}, name="nightly", holder="there", slot=60.0)
    assert caught.value.code == "CL-E520"
    assert [row.id for row in runs.list()] == [RUN], "nothing of the second is kept"
    slots.fail("nightly", 60.0, "too late")
    last = slots.last("nightly")
    assert last is not None
    assert (last.state, last.run) == ("run", RUN)


def test_who_was_succeeded_claims_nothing(shared: Store) -> None:
    lease, successor = Lease(shared, "a"), Lease(shared, "b")
    assert lease.take()
    lease_row = "UPDATE cloche_leases SET until = 0"
    with shared.note() as connection:
        connection.exec_driver_sql(lease_row)
    assert successor.take()
    with pytest.raises(ConflictError) as caught:
        Slots(shared, lease).claim("nightly", 60.0, "* * * * * UTC")
    assert caught.value.code == "CL-E506"
    assert Slots(shared, successor).claim("nightly", 60.0, "* * * * * UTC")
