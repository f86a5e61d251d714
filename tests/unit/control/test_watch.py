"""What a machine's processes say of their versions: the board, and the files beside it, read."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from cloche.control.watch import Watch, tally_path, trouble_path
from cloche.core.board import BLAMED, LIVE_S, Board, Head, Role, Slot, State, series_hash
from cloche.core.codes import CODES
from cloche.core.marks import Marks
from cloche.monitoring.counters import DeploymentCounters
from cloche.rollout.abtest import Sums
from cloche.rollout.counts import Counts
from cloche.rollout.shadow import Tally
from cloche.serving.callers import Callers
from cloche.serving.metered import MeteredArm
from cloche.serving.split import Arm


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "board")


@pytest.fixture
def watch(board: Board, tmp_path: Path) -> Watch:
    return Watch(board, tmp_path)


def worker(board: Board, number: int, *, revision: int = 0, state: State = State.READY) -> Slot:
    slot = board.claim(number, Role.WORKER, pid=number, start=1)
    slot.set(Head.STATE, state)
    slot.set(Head.REVISION, revision)
    return slot


def silence(slot: Slot) -> None:
    """As if its process had been hanging for a while."""
    slot.set(Head.HEARTBEAT_NS, slot.get(Head.HEARTBEAT_NS) - int((LIVE_S + 1) * 1e9))


def test_workers_are_those_that_serve(board: Board, watch: Watch) -> None:
    assert watch.workers() == []
    worker(board, 1)
    worker(board, 2, state=State.STARTING)
    worker(board, 3, state=State.DRAINING)
    silence(worker(board, 4))
    host = board.claim(5, Role.HOST, pid=5, start=1)
    host.set(Head.STATE, State.READY)
    worker(board, 6)
    assert watch.workers() == [1, 6]
    board.release(1)
    assert watch.workers() == [6]


def test_all_are_at_a_revision_when_the_last_one_is(board: Board, watch: Watch) -> None:
    assert not watch.are_at(0)  # nobody serves
    assert (watch.applied(9), watch.how_many_at(0)) == (9, 0)
    one, two = worker(board, 1, revision=7), worker(board, 2, revision=5)
    worker(board, 3, revision=1, state=State.STARTING)
    assert [watch.are_at(revision) for revision in (4, 5, 6, 7)] == [True, True, False, False]
    assert watch.applied(99) == 5
    assert [watch.how_many_at(revision) for revision in (5, 6, 7, 8)] == [2, 1, 1, 0]
    silence(two)  # who hangs is not waited for
    assert watch.are_at(7)
    assert watch.applied(99) == 7
    silence(one)
    assert not watch.are_at(7)


def say(folder: Path, slot: int, text: str) -> None:
    trouble_path(folder, slot).write_text(text)


@pytest.mark.parametrize(
    ("told_at", "wanted", "applied", "is_trouble"),
    [
        (7, 7, 5, True),
        (8, 7, 5, True),  # something was changed since, and it still can't
        (6, 7, 5, False),  # it has not tried yet
        (7, 7, 7, False),  # it could after all
        (7, 7, 8, False),
    ],
)
def test_trouble_is_of_who_could_not_do_what_is_wanted(
    board: Board, watch: Watch, tmp_path: Path, told_at: int, wanted: int, applied: int, is_trouble: bool
) -> None:
    worker(board, 1, revision=applied)
    say(tmp_path, 1, json.dumps({"revision": told_at, "words": "no memory"}))
    assert watch.trouble(wanted) == ("no memory" if is_trouble else None)


def test_no_file_half_a_file_and_one_of_a_process_that_is_gone_are_no_trouble(
    board: Board, watch: Watch, tmp_path: Path
) -> None:
    worker(board, 1, revision=1)
    assert watch.trouble(7) is None
    say(tmp_path, 1, '{"revision": 7, "wor')
    assert watch.trouble(7) is None
    say(tmp_path, 2, json.dumps({"revision": 7, "words": "no memory"}))
    assert watch.trouble(7) is None
    worker(board, 2, revision=1)
    assert watch.trouble(7) == "no memory"


def test_one_worker_that_tripped_is_enough(board: Board, watch: Watch) -> None:
    worker(board, 1)
    two = worker(board, 2)
    assert not watch.has_tripped(7)
    two.set(Head.TRIPPED, 7)
    assert watch.has_tripped(7)
    assert not watch.has_tripped(8)
    silence(two)
    assert not watch.has_tripped(7)


def test_deaths_are_those_of_one_version_of_one_deployment(board: Board, watch: Watch) -> None:
    supervisor = board.claim(0, Role.SUPERVISOR, pid=1, start=1)

    def blame(deployment: str, version: str) -> None:
        executing = series_hash({"deployment": deployment, "version": version})
        supervisor.cells[supervisor.series(name=BLAMED, executing=str(executing))] += 1

    for deployment, version in (("fraud", "4"), ("fraud", "4"), ("fraud", "3"), ("churn", "4")):
        blame(deployment, version)
    assert [watch.deaths("fraud", version) for version in (3, 4, 5)] == [1, 2, 0]


def test_the_version_that_is_blamed_is_what_its_worker_says_it_executes(board: Board, watch: Watch) -> None:
    """What the supervisor reads there when a process has died."""
    slot = worker(board, 1)
    DeploymentCounters(slot, "fraud", "4").executing(True)
    executing = board.head(1, Head.EXECUTING)
    supervisor = board.claim(0, Role.SUPERVISOR, pid=1, start=1)
    supervisor.cells[supervisor.series(name=BLAMED, executing=str(executing))] += 1
    assert watch.deaths("fraud", 4) == 1


def test_counts_are_those_of_both_arms_over_all_workers_dead_or_alive(board: Board, watch: Watch) -> None:
    for number in (1, 2):
        slot = worker(board, number)
        for deployment, version, arm, times, bad in (
            ("fraud", "4", "candidate", 5, 1),
            ("fraud", "3", "stable", 70, 2),
            ("fraud", "4", "stable", 1_000, 0),  # when it was stable itself
            ("churn", "4", "candidate", 1_000, 0),
        ):
            counted = Arm(slot, {"deployment": deployment, "version": version, "arm": arm}, 1.0)
            for place in range(times):
                counted.count(500 if place < bad else 200, 0.0)
    board.release(2)
    assert watch.counts("fraud", 3, 4) == Counts(candidate=10, candidate_bad=2, stable=140, stable_bad=4)
    assert watch.counts("fraud", 4, 3) == Counts(stable=2_000)
    assert watch.counts("fraud", 1, 2) == Counts()


def test_counts_say_what_is_one_callers_over_again(board: Board, watch: Watch, tmp_path: Path) -> None:
    labels = {"deployment": "fraud", "version": "4", "arm": "candidate"}
    for number in (1, 2):
        callers = Callers(b"x-user-id", 7, Marks(tmp_path / "callers"))
        arm = Arm(worker(board, number), labels, 1.0, callers=callers)
        for status in (500, 500, 500, 200):
            arm.count(status, 0.0, {b"x-user-id": b"ada"})
    counts = watch.counts("fraud", 3, 4)
    assert (counts.candidate, counts.candidate_bad, counts.candidate_heaviest) == (8, 6, 4)
    assert counts.by_caller == (1, 1, 0, 0)  # she is one caller, whatever worker answers


def test_a_worker_that_has_no_room_to_count_in_says_so_once_it_has_a_rollout(board: Board, watch: Watch) -> None:
    one, two = worker(board, 1, revision=7), worker(board, 2, revision=6)
    for version, arm in (("3", "stable"), ("4", "candidate")):
        Arm(one, {"deployment": "fraud", "version": version, "arm": arm}, 1.0)
    assert watch.uncounted("fraud", 3, 4, 7) is None
    two.set(Head.REVISION, 7)
    Arm(two, {"deployment": "fraud", "version": "3", "arm": "stable"}, 1.0)
    said = "worker 2 has no room left to count in: start cloche up anew, or deploy with --now"
    assert watch.uncounted("fraud", 3, 4, 7) == said
    Arm(two, {"deployment": "fraud", "version": "4", "arm": "candidate"}, 1.0)
    assert watch.uncounted("fraud", 3, 4, 7) is None


def test_tallies_are_those_of_every_worker_that_told(watch: Watch, tmp_path: Path) -> None:
    assert watch.tallies(7) == {}
    for number, rows in ((1, 10), (2, 20)):
        told = {7: Tally(requests=1, rows=rows), 8: Tally(requests=1, rows=1)}
        tally_path(tmp_path, number).write_bytes(msgspec.json.encode(told))
    tally_path(tmp_path, 3).write_text("half of a fi")
    assert watch.tallies(7) == {"shadow-1": Tally(requests=1, rows=10), "shadow-2": Tally(requests=1, rows=20)}
    assert watch.tallies(9) == {}


def test_sums_are_those_of_one_trial(board: Board, watch: Watch) -> None:
    for number in (1, 2):
        slot = worker(board, number)
        for version, arm, seconds in (("3", "stable", 0.5), ("4", "candidate", 0.25)):
            labels = {"deployment": "fraud", "version": version, "arm": arm}
            MeteredArm(slot, labels, 1.0, trial=7).count(200, seconds)
    found = watch.sums("fraud", 3, 4, 7)
    assert found["latency"] == (Sums(2, 1.0, 0.5), Sums(2, 0.5, 0.125))
    assert found["score"] == (Sums(), Sums())
    assert watch.sums("fraud", 3, 4, 8)["latency"] == (Sums(), Sums())
    assert watch.sums("churn", 3, 4, 7)["latency"] == (Sums(), Sums())


def test_the_usual_error_is_the_models_most_frequent_one_over_all_workers(board: Board, watch: Watch) -> None:
    assert watch.usual_error("fraud", 4) is None
    for number, failed in ((1, {"CL-E900": 2, "CL-E602": 3, "CL-E104": 50}), (2, {"CL-E900": 2, "CL-E404": 50})):
        counters = DeploymentCounters(worker(board, number), "fraud", "4")
        other = DeploymentCounters(worker(board, number + 10), "fraud", "3")
        for code, times in failed.items():
            for _ in range(times):
                counters.failed(code)
        for _ in range(100):
            other.failed("CL-E999")
    assert watch.usual_error("fraud", 4) == f"{CODES['CL-E900'][0]} (CL-E900)"
    assert watch.usual_error("fraud", 3) == f"{CODES['CL-E999'][0]} (CL-E999)"
    assert watch.usual_error("churn", 4) is None


def test_what_callers_sent_wrong_is_no_usual_error(board: Board, watch: Watch) -> None:
    counters = DeploymentCounters(worker(board, 1), "fraud", "4")
    for code in ("CL-E104", "CL-E401", "CL-E305"):
        counters.failed(code)
    assert watch.usual_error("fraud", 4) is None


def test_a_code_of_a_newer_cloche_is_told_as_it_is(board: Board, watch: Watch) -> None:
    DeploymentCounters(worker(board, 1), "fraud", "4").failed("CL-E998")
    assert watch.usual_error("fraud", 4) == "CL-E998"
