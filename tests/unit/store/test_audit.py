"""The audit log: what people do is in it, and nothing of it can be changed unseen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from sqlalchemy import delete, update

from cloche.core.keys import SCOPES
from cloche.registry import Registry
from cloche.store.audit import START, audit, list_audit, verify_audit
from cloche.store.blobs import BundleFolder
from cloche.store.database import Store
from cloche.store.deployments import Deployments
from cloche.store.keys import Keys
from cloche.store.tables import audit as rows
from cloche.store.trust import TrustedKeys

_WRITE = """
import sys
from cloche.store.audit import audit
from cloche.store.database import Store
with Store(sys.argv[1]) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(20):
        with store.change() as connection:
            audit(connection, store.now(), sys.argv[2], "wrote", "something", number=number)
"""


def write(store: Store, count: int) -> None:
    for number in range(count):
        with store.change() as connection:
            audit(connection, store.now(), "ada", "wrote", "something", number=number, part=0.1, who_else=None)


def test_each_row_seals_the_one_before(store: Store) -> None:
    write(store, 3)
    first, second, third = list_audit(store)
    assert first.previous == START
    assert (second.previous, third.previous) == (first.hash, second.hash)
    chain = verify_audit(store)
    assert (chain.rows, chain.hash, chain.broken) == (3, third.hash, None)


def test_an_empty_log_holds(store: Store) -> None:
    assert verify_audit(store).rows == 0


@pytest.mark.parametrize(
    "change", [{"who": "eve"}, {"details": {"number": 2}}, {"time": 1.0}, {"hash": "0" * 64}, {"target": ""}]
)
def test_a_changed_row_is_found(store: Store, change: dict[str, object]) -> None:
    write(store, 4)
    with store.change() as connection:
        connection.execute(update(rows).where(rows.c.id == 2).values(change))
    chain = verify_audit(store)
    assert (chain.rows, chain.broken) == (1, 2)
    assert "changed" in chain.why


def test_a_row_that_was_sealed_anew_breaks_the_next(store: Store) -> None:
    write(store, 4)
    forged = list_audit(store)[1]
    with store.change() as connection:
        connection.execute(update(rows).where(rows.c.id == 2).values(who="eve"))
    forged = list_audit(store)[1]
    with store.change() as connection:
        connection.execute(update(rows).where(rows.c.id == 2).values(hash=forged.expected()))
    chain = verify_audit(store)
    assert (chain.broken, chain.why) == (3, "it does not follow the row before it")


def test_a_row_that_was_taken_out_is_missed(store: Store) -> None:
    write(store, 4)
    with store.change() as connection:
        connection.execute(delete(rows).where(rows.c.id == 3))
    chain = verify_audit(store)
    assert (chain.broken, chain.why) == (4, "row 3 is missing")


def test_a_change_that_fails_leaves_no_row(store: Store) -> None:
    write(store, 1)
    with pytest.raises(RuntimeError), store.change() as connection:
        audit(connection, 1.0, "ada", "wrote", "nothing")
        raise RuntimeError
    assert len(list_audit(store)) == 1


def test_eight_writers_at_once_do_not_fork_the_chain(database: str) -> None:
    Store(database).close()
    command = [sys.executable, "-W", "error", "-c", _WRITE, database]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [subprocess.Popen([*command, f"writer{n}"], text=True, **pipes) for n in range(8)]  # type: ignore[call-overload]
    for process in started:
        process.stdout.readline()
    for process in started:
        process.stdin.write("now\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * 8, ends
    with Store(database) as store:
        chain = verify_audit(store)
        assert (chain.rows, chain.broken) == (160, None)
        assert {row.who for row in list_audit(store, most=200)} == {f"writer{n}" for n in range(8)}


def test_what_people_do_stands_in_it_with_their_name(
    store: Store, bundles: BundleFolder, keep_bundle: Callable[[str], str]
) -> None:
    by = store.acting_as("ci")
    registry = Registry(by, bundles)
    for letter in "abc":
        registry.register(keep_bundle(letter * 64), "fraud", how="pushed" if letter == "c" else "registered")
    registry.set_alias("fraud:2", "next")
    registry.set_alias("fraud:2", "next")  # as it was: nothing to tell
    key = Keys(by).create("mobile", scopes=tuple(SCOPES)[:1])
    Keys(by).revoke("mobile")
    trusted = TrustedKeys(by)
    trusted.add("ab" * 32, name="build")
    trusted.remove("ab" * 32)
    deployments = Deployments(by)
    deployments.start("fraud", "fraud", "fraud:1", 1, "ada")
    deployments.start("fraud", "fraud", "fraud:1", 1, "ada")
    deployments.begin("fraud", 2, {}, "ada", "")
    deployments.order("fraud", "pause", "bob")
    deployments.roll_back("fraud", 1, "bob", "odd", alias=None)
    deployments.unblock("fraud", 2)
    deployments.unblock("fraud", 2)
    told = [(row.who, row.action, row.target) for row in list_audit(store)]
    assert told == [
        ("ci", "registered", "fraud:1"),
        ("ci", "registered", "fraud:2"),
        ("ci", "pushed", "fraud:3"),
        ("ci", "alias moved", "fraud@next"),
        ("ci", "key created", key.record.id),
        ("ci", "key revoked", key.record.id),
        ("ci", "trusted", "ab" * 32),
        ("ci", "trusted no more", "ab" * 32),
        ("ada", "started", "fraud"),
        ("ada", "deployed", "fraud"),
        ("bob", "ordered", "fraud"),
        ("bob", "rolled back", "fraud"),
        ("ci", "unblocked", "fraud:2"),
    ]
    assert verify_audit(store).broken is None
    assert key.text not in str(list_audit(store))
