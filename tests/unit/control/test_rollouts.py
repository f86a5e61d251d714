"""Rollouts as they are driven: a store, a board that the test counts in, and what becomes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from cloche.control.fleet import Fleet, Sight
from cloche.control.rollouts import CLOCHE, Known, Plan, Rollouts, begin, describe_trial, differences, judge
from cloche.control.watch import Watch, tally_path, trouble_path
from cloche.core.board import BLAMED, Board, Head, Role, Slot, State, series_hash
from cloche.core.errors import ConflictError, RefusedError
from cloche.core.marks import Marks
from cloche.monitoring.counters import DeploymentCounters
from cloche.registry import Registry
from cloche.rollout.abtest import Sums
from cloche.rollout.analysis import Evidence, Policy, Verdict
from cloche.rollout.counts import Counts
from cloche.rollout.machine import Phase, Rollout
from cloche.rollout.shadow import Tally
from cloche.rollout.strategy import Strategy, ab, blue_green, canary, now, shadow
from cloche.serving.callers import Callers
from cloche.serving.metered import UNITS, MeteredArm, sums_labels
from cloche.serving.split import Arm
from cloche.store.blobs import BundleFolder
from cloche.store.database import Store
from cloche.store.deployments import DeploymentRow, Deployments
from cloche.store.events import PAGE, Event, list_events
from cloche.store.machines import Lease, MachineReport, Machines

POLICY = Policy(least_s=2.0, objective=0.1)
STEPS = msgspec.structs.replace(canary(("5% for 4s", "50% for 4s", "100%")), ramp_s=2.0, bake_s=5.0)


class Decided:
    """A Decided is a Proof whose outcome the test decides."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.said: str | None = None
        self.closed = 0

    def outcome(self) -> str | None:
        assert not self.closed
        return self.said

    def close(self) -> None:
        self.closed += 1


class Machine:
    """A Machine is a board with one worker, which follows the store as far as the test lets it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.opened = 0
        self.open_board()

    def open_board(self) -> None:
        """A new board that has counted nothing; another process reads it as well as the worker does."""
        self.opened += 1
        self.board = Board(self.folder / f"board-{self.opened}")
        self.slot: Slot = self.board.claim(1, Role.WORKER, pid=1, start=1)
        self.slot.set(Head.STATE, State.READY)
        self.watch = Watch(self.board, self.folder)
        # as its worker does when it has a split
        self.count(3, "stable", 0)
        self.count(4, "candidate", 0)

    def count(self, version: int, arm: str, good: int, bad: int = 0) -> None:
        labels = {"deployment": "fraud", "version": str(version), "arm": arm}
        counted = Arm(self.slot, labels, 1.0)
        for status, times in ((200, good), (500, bad)):
            for _ in range(times):
                counted.count(status, 0.001)

    def follow(self, revision: int) -> None:
        self.slot.set(Head.REVISION, revision)


class World:
    """A World is a store in which fraud:3 is stable and asked for as fraud@champion, one machine, its rollouts."""

    def __init__(self, store: Store, clock: Any, machine: Machine) -> None:
        self.store = store
        self.clock = clock
        self.machine = machine
        self.deployments = Deployments(store)
        self.proofs: list[Decided] = []
        self.follows = True
        self.plan = Plan(policy=POLICY, warm_s=1_800, alias="champion")
        self.fleet = Fleet(machine.watch, "here", None)
        self.rollouts = self.new_process()

    def new_process(self, lease: Lease | None = None) -> Rollouts:
        """A controller that knows what is in the store, no more."""
        self.rollouts = Rollouts(
            self.store, self.fleet, lease=lease, plan=lambda row: self.plan, prove=self._prove
        )
        return self.rollouts

    def _prove(self, row: DeploymentRow, version: int) -> Decided:
        self.proofs.append(Decided(version))
        return self.proofs[-1]

    @property
    def row(self) -> DeploymentRow:
        return self.deployments.get("fraud")

    @property
    def phase(self) -> str:
        last = self.deployments.last_rollout("fraud")
        assert last is not None
        return str(last.state["phase"])

    @property
    def known(self) -> Known:
        last = self.deployments.last_rollout("fraud")
        assert last is not None
        return msgspec.convert(last.evidence, Known)

    @property
    def told(self) -> list[str]:
        return [one.action for one in list_events(self.store)]

    @property
    def last(self) -> Event:
        return list_events(self.store)[-1]

    def begin(self, strategy: Strategy = STEPS, version: int = 4) -> int:
        return begin(self.deployments, "fraud", version, strategy, self.store.now(), "ada", "")

    def turn(self, passed: float = 0.0) -> None:
        """One look of the controller, after so many seconds."""
        self.clock.now += passed
        self.machine.slot.beat()
        if self.follows:
            self.machine.follow(self.store.revision())
        self.rollouts.turn({row.name: row for row in self.deployments.list()})

    def admitted(self, strategy: Strategy = STEPS) -> int:
        """A rollout whose first load went well and which every worker has warm."""
        number = self.begin(strategy)
        self.turn()
        self.proofs[-1].said = ""
        self.turn(0.1)
        assert self.row.candidate == 4
        self.turn(0.1)
        assert (self.phase, self.row.weight > 0) == ("stepping", True)
        return number

    def ask(self, requests: int, bad: float = 0.0, stable_bad: float = 0.0) -> None:
        """So many requests, split by the candidate's share."""
        candidate = requests * self.row.weight // 10_000
        stable = requests - candidate
        for version, arm, all_, rate in ((4, "candidate", candidate, bad), (3, "stable", stable, stable_bad)):
            failed = round(all_ * rate)
            self.machine.count(version, arm, all_ - failed, failed)

    def serve(self, seconds: float, requests: int = 1_000, **rates: float) -> None:
        """Half a second after the other, with so many requests a second, as long as something is under way."""
        for _ in range(round(2 * seconds)):
            if self.row.rollout is None:
                return
            self.ask(requests // 2, **rates)
            self.turn(0.5)


@pytest.fixture
def store(tmp_path: Path, clock: Any, bundles: BundleFolder, keep_bundle: Callable[[str], str]) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path / 'state.db'}", clock=clock) as opened:
        registry = Registry(opened, bundles)
        for number in (1, 2, 3, 4, 5):
            registry.register(keep_bundle(f"{number:064x}"), "fraud")
        registry.set_alias("fraud:3", "champion")
        Deployments(opened).start("fraud", "fraud", "fraud@champion", 3, "ada")
        yield opened


@pytest.fixture
def world(store: Store, clock: Any, tmp_path: Path) -> World:
    return World(store, clock, Machine(tmp_path / "here"))


def champion(store: Store, bundles: BundleFolder) -> int:
    return Registry(store, bundles).aliases("fraud")["champion"]


# --- the way of a good one


def test_a_good_candidate_goes_from_step_to_step_and_is_promoted(
    world: World, store: Store, bundles: BundleFolder
) -> None:
    number = world.begin()
    assert world.last.why == "canary: 5 % → 50 % → 100 %"
    world.turn()
    assert (world.phase, world.row.candidate) == ("loading", None)
    world.proofs[0].said = ""
    world.turn(0.1)
    assert (world.proofs[0].version, world.proofs[0].closed, world.row.candidate) == (4, 1, 4)
    shares = []
    for _ in range(120):
        world.serve(0.5)
        shares.append(world.row.weight)
        if world.row.rollout is None:
            break
    assert shares[:-1] == sorted(shares[:-1])
    assert {500, 5_000, 10_000} < set(shares)
    row = world.row
    assert (row.stable, row.previous, row.candidate, row.rollout, row.resolved) == (4, 3, None, None, 4)
    assert row.warm_until == store.now() + 1_800
    assert champion(store, bundles) == 4
    assert world.told[1:] == ["began", "stepped", "stepped", "stepped", "stepped", "promoted"]
    first, second, third, bakes = [one for one in list_events(store) if one.action == "stepped"]
    assert first.why == "on to 5 %: every worker has it warm"
    assert second.why.startswith("on to 50 %: not worse than stable by 0.005: 0.00% bad of ")
    assert bakes.why == "baking at 100 %: it has all of the traffic"
    # each is held for its time, after its ramp
    assert second.time - first.time >= 6
    assert third.time - second.time >= 6
    assert re.fullmatch(
        r"nothing was seen against it: 0 of [\d,]+ requests to fraud:4 went wrong, 0 of [\d,]+ to fraud:3 in the "
        r"same time",
        world.last.why,
    )
    assert world.last.who == CLOCHE
    assert world.phase == "succeeded"
    assert world.deployments.rollout(number).ended == world.last.time


def test_all_that_was_answered_is_evidence_once(world: World) -> None:
    world.machine.count(4, "candidate", 70, 70)  # of an earlier rollout: not this one's
    world.admitted()
    for _ in range(5):
        world.machine.count(4, "candidate", 9, 1)
        world.machine.count(3, "stable", 99, 1)
        world.turn(1.0)
    evidence = world.known.evidence
    assert (evidence.candidate, evidence.candidate_bad, evidence.stable, evidence.stable_bad) == (50, 5, 500, 5)
    assert evidence.seconds == pytest.approx(5.0, abs=0.3)


def test_a_second_in_which_nobody_asked_the_candidate_is_none(world: World) -> None:
    world.admitted()
    for _ in range(50):
        world.machine.count(3, "stable", 10)
        world.turn(1.0)
    assert (world.known.evidence.seconds, world.known.evidence.stable) == (0.0, 500)
    assert world.row.weight == 500


def test_nothing_goes_on_before_every_worker_has_it(world: World) -> None:
    world.begin()
    world.turn()
    world.proofs[0].said = ""
    world.follows = False
    for _ in range(20):
        world.turn(1.0)
    assert (world.phase, world.row.candidate, world.row.weight) == ("loading", 4, 0)
    world.follows = True
    world.turn(0.1)
    assert world.phase == "stepping"


def test_a_first_load_that_goes_on_is_waited_for(world: World) -> None:
    world.begin()
    for _ in range(20):
        world.turn(10.0)
    assert (world.phase, world.row.candidate, len(world.proofs)) == ("loading", None, 1)


def test_a_ramp_grows_in_the_store_as_time_passes(world: World) -> None:
    world.admitted()
    shares = []
    for _ in range(12):
        world.turn(0.2)
        shares.append(world.row.weight)
    assert shares == sorted(shares)
    assert len(set(shares)) >= 8
    assert shares[-1] == 500
    # who is told of ten moves is told of none
    assert world.told.count("stepped") == 1


@pytest.mark.parametrize(("strategy", "stepped"), [(blue_green(), 2), (now(), 2)])
def test_all_at_once(world: World, strategy: Strategy, stepped: int) -> None:
    world.admitted(strategy)
    assert world.row.weight == 10_000
    world.serve(70, requests=10)
    assert (world.row.stable, world.told[-1]) == (4, "promoted")
    assert world.told.count("stepped") == stepped


# --- those that are taken back


def test_a_candidate_that_fails_is_taken_off_and_blocked_and_the_history_says_by_what(
    world: World, store: Store, bundles: BundleFolder
) -> None:
    number = world.admitted()
    counters = DeploymentCounters(world.machine.slot, "fraud", "4")
    for code, times in (("CL-E900", 7), ("CL-E602", 2), ("CL-E104", 99)):
        for _ in range(times):
            counters.failed(code)
    world.serve(30, bad=0.5)
    row = world.row
    assert (row.stable, row.candidate, row.weight, row.rollout) == (3, None, 0, None)
    assert (world.last.action, world.last.who, world.last.version) == ("aborted", CLOCHE, 4)
    found = re.fullmatch(
        r"fraud:4 harms: (\d+) of (\d+) requests to fraud:4 went wrong, 0 of [\d,]+ to fraud:3 in the same time; "
        r"most often: (.+) \(CL-E900\)",
        world.last.why,
    )
    assert found is not None
    bad, asked = (int(text) for text in found.groups()[:2])
    assert 0 < bad < asked < 100
    assert champion(store, bundles) == 3
    assert world.deployments.rollout(number).ended is not None
    with pytest.raises(RefusedError, match="fraud:4 was taken back: fraud:4 harms"):
        world.begin()


def test_a_candidate_over_the_objective_is_taken_off_where_it_has_all_of_the_traffic(world: World) -> None:
    world.admitted(blue_green())
    world.serve(30, bad=0.4)
    assert (world.told[-1], world.row.stable) == ("aborted", 3)
    assert re.match(r"fraud:4 harms: [\d,]+ of [\d,]+ requests to fraud:4 went wrong", world.last.why)
    with pytest.raises(RefusedError):
        world.begin()


def test_one_that_fails_while_it_bakes_is_taken_off(world: World) -> None:
    world.admitted()
    for _ in range(120):
        world.serve(0.5)
        if world.phase == "baking":
            break
    assert world.row.weight == 10_000
    world.serve(5, bad=1.0)
    assert (world.told[-1], world.row.stable) == ("aborted", 3)


def test_a_first_load_that_fails_ends_it_and_blocks_nothing(world: World) -> None:
    world.begin()
    world.turn()
    world.proofs[0].said = "fraud:4 can't be loaded: no memory"
    world.turn(0.1)
    assert (world.last.action, world.last.why) == ("aborted", "fraud:4 can't be loaded: no memory")
    assert (world.row.candidate, world.proofs[0].closed) == (None, 1)
    world.begin()


def test_a_worker_that_can_not_load_it_ends_it_and_blocks_nothing(world: World) -> None:
    world.begin()
    world.turn()
    world.proofs[0].said = ""
    world.follows = False
    world.machine.follow(world.row.revision)
    world.turn(0.1)
    told = {"revision": world.row.revision, "words": "the golden examples differ"}
    trouble_path(world.machine.folder, 1).write_text(json.dumps(told))
    world.turn(1.0)
    assert (world.last.action, world.last.why) == ("aborted", "the golden examples differ")
    world.begin()


def test_trouble_of_long_ago_ends_nothing(world: World) -> None:
    told = {"revision": world.row.revision, "words": "the golden examples differ"}
    trouble_path(world.machine.folder, 1).write_text(json.dumps(told))
    world.admitted()
    world.serve(60)
    assert world.told[-1] == "promoted"


def test_a_worker_that_trips_ends_it_at_once(world: World) -> None:
    number = world.admitted()
    world.turn(1.0)
    world.machine.count(4, "candidate", 15, 6)
    world.machine.count(3, "stable", 402)
    world.machine.slot.set(Head.TRIPPED, number)
    world.turn(0.1)  # it does not wait for the next second
    assert world.last.action == "aborted"
    assert world.last.why == (
        "fraud:4 harms: 6 of 21 requests to fraud:4 went wrong, 0 of 402 to fraud:3 in the same time"
    )
    with pytest.raises(RefusedError):
        world.begin()


def test_a_worker_that_tripped_in_another_rollout_ends_nothing(world: World) -> None:
    world.machine.slot.set(Head.TRIPPED, 77)
    world.admitted()
    world.serve(60)
    assert world.told[-1] == "promoted"


def blame(machine: Machine, version: int) -> None:
    executing = series_hash({"deployment": "fraud", "version": str(version)})
    machine.slot.cells[machine.slot.series(name=BLAMED, executing=str(executing))] += 1


def test_a_process_that_ends_with_it_ends_it(world: World) -> None:
    world.admitted()
    world.turn(1.0)
    blame(world.machine, 4)
    world.turn(1.0)
    assert (world.last.action, world.last.why) == ("aborted", "a process ended while it ran fraud:4")
    with pytest.raises(RefusedError):
        world.begin()


def test_a_process_that_ends_while_it_loads_it_ends_it(world: World) -> None:
    world.begin()
    world.turn()
    world.proofs[0].said = ""
    world.follows = False
    world.turn(1.0)
    blame(world.machine, 4)
    world.turn(1.0)
    assert (world.last.action, world.last.why) == ("aborted", "a process ended while it ran fraud:4")


def test_processes_that_ended_before_or_with_another_version_end_nothing(world: World) -> None:
    for version in (4, 4, 3):
        blame(world.machine, version)
    world.admitted()
    world.turn(1.0)
    blame(world.machine, 3)
    world.serve(60)
    assert world.told[-1] == "promoted"


# --- stable that fails by itself


def test_where_stable_fails_nothing_begins_until_it_does_not_any_more(world: World) -> None:
    world.begin()
    world.turn()
    world.proofs[0].said = ""
    world.machine.count(3, "stable", 50, 50)
    world.turn(1.0)
    for _ in range(5):
        world.machine.count(3, "stable", 45, 55)
        world.turn(1.0)
    assert (world.phase, world.row.weight) == ("loading", 0)
    assert (world.told.count("held"), world.told.count(PAGE)) == (1, 1)
    world.new_process()  # it knows that somebody was asked to look
    world.turn(1.0)
    assert world.told.count(PAGE) == 1
    held = next(one for one in list_events(world.store) if one.action == "held")
    assert re.fullmatch(
        r"held: \d\d% of the answers of fraud:3 are bad, and it is not the candidate's doing", held.why
    )
    for _ in range(30):
        world.machine.count(3, "stable", 100)
        world.turn(1.0)
    assert world.phase == "stepping"


def test_one_caller_that_fails_on_stable_holds_nothing_up(world: World) -> None:
    """Where callers are told apart: a third of the answers are its own, and bad."""
    world.begin()
    world.turn()
    world.proofs[0].said = ""
    labels = {"deployment": "fraud", "version": "3", "arm": "stable"}
    callers = Callers(b"x-user-id", 1, Marks(world.machine.folder / "callers"))
    stable = Arm(world.machine.slot, labels, 1.0, callers=callers)
    for _ in range(5):
        for number in range(99):
            heavy = number % 3 == 0
            stable.count(500 if heavy else 200, 0.001, {b"x-user-id": b"heavy" if heavy else b"%d" % number})
        world.turn(1.0)
    assert world.phase == "stepping"
    assert "held" not in world.told


def test_what_can_not_be_counted_is_held_and_says_why_before_it_has_traffic(world: World) -> None:
    number = 0
    slot = world.machine.board.claim(2, Role.WORKER, pid=2, start=1)
    slot.set(Head.STATE, State.READY)
    while slot.series(name="other", number=str(number)) != slot.place(Head.DROPPED):
        number += 1
    world.begin()
    world.turn()
    world.proofs[0].said = ""
    for _ in range(20):
        world.turn(0.5)
        slot.beat()
        slot.set(Head.REVISION, world.store.revision())
    assert (world.phase, world.row.weight) == ("loading", 0)
    assert (world.told.count("held"), world.told.count(PAGE)) == (1, 1)
    assert world.last.why == (
        "held: worker 2 has no room left to count in: start cloche up anew, or deploy with --now"
    )
    assert judge(world.known, POLICY).verdict is Verdict.ERROR
    world.machine.board.release(2)  # it ended; who counts in its place has room
    for _ in range(4):
        world.turn(0.5)
    assert world.phase == "stepping"


def test_where_stable_begins_to_fail_the_candidate_goes_first_and_is_not_blocked(world: World) -> None:
    world.admitted()
    world.serve(3)
    world.serve(10, stable_bad=0.5)
    assert world.last.action == "aborted"
    assert world.last.why.endswith(
        "% of the answers of fraud:3 are bad since the candidate has traffic: that goes first"
    )
    world.begin()


# --- by order


def test_who_pauses_and_resumes_is_told_and_it_stays_meanwhile(world: World) -> None:
    world.admitted()
    world.serve(3)
    world.deployments.order("fraud", "pause", "bob")
    world.turn(0.1)
    assert (world.last.action, world.last.who, world.last.why) == ("paused", "bob", "paused by hand")
    world.serve(60)
    assert (world.phase, world.row.weight) == ("stepping", 500)
    world.deployments.order("fraud", "resume", "eve")
    world.turn(0.1)
    assert (world.last.action, world.last.who, world.last.why) == ("resumed", "eve", "resumed by hand")
    world.serve(60)
    assert world.told[-1] == "promoted"


def test_who_pauses_within_a_ramp_is_told_as_well(world: World) -> None:
    """The share moves in the same look."""
    world.admitted()
    world.deployments.order("fraud", "pause", "bob")
    before = world.row.weight
    world.turn(0.5)
    assert world.row.weight > before
    assert "paused" in world.told
    # the ramp that has begun is finished
    for _ in range(5):
        world.turn(0.5)
    assert world.row.weight == 500


def test_harm_ends_a_paused_one_too(world: World) -> None:
    world.admitted()
    world.serve(3)
    world.deployments.order("fraud", "pause", "bob")
    world.serve(30, bad=0.5)
    assert world.told[-1] == "aborted"


def test_who_promotes_gives_it_all_and_then_makes_it_stable(
    world: World, store: Store, bundles: BundleFolder
) -> None:
    world.admitted()
    world.deployments.order("fraud", "promote", "bob")
    world.turn(0.1)
    assert (world.last.action, world.last.who) == ("stepped", "bob")
    assert world.last.why == "on to 100 %: promoted by hand"
    for _ in range(10):
        world.turn(0.5)
    assert (world.row.stable, world.row.weight) == (3, 10_000)
    world.deployments.order("fraud", "promote", "eve")
    world.turn(0.1)
    assert (world.last.action, world.last.who) == ("promoted", "eve")
    assert world.last.why.startswith("promoted by hand: 0 of 0 requests to fraud:4 went wrong")
    assert champion(store, bundles) == 4


def test_who_promotes_what_is_not_warm_changes_nothing(world: World) -> None:
    world.begin()
    world.turn()
    world.deployments.order("fraud", "promote", "bob")
    world.turn(0.1)
    assert (world.phase, world.told[-1]) == ("loading", "began")
    number = world.row.rollout
    assert number is not None
    assert world.deployments.rollout(number).command is None  # it was heard


@pytest.mark.parametrize("when", ["before the first load", "with traffic"])
def test_who_aborts_blocks_nothing(world: World, when: str) -> None:
    if when == "with traffic":
        world.admitted()
    else:
        world.begin()
        world.turn()
    world.deployments.order("fraud", "abort", "bob")
    world.turn(0.1)
    assert (world.last.action, world.last.who, world.last.why) == ("aborted", "bob", "aborted by hand")
    assert world.row.candidate is None
    world.turn(0.1)
    assert world.proofs[0].closed == 1
    world.begin()


def test_who_aborts_what_harms_as_well_has_done_so_by_hand(world: World) -> None:
    """It is the person's word that counts: nothing is blocked."""
    number = world.admitted()
    world.machine.slot.set(Head.TRIPPED, number)
    world.deployments.order("fraud", "abort", "bob")
    world.turn(0.1)
    assert (world.last.action, world.last.who, world.last.why) == ("aborted", "bob", "aborted by hand")
    world.begin()


def test_an_order_is_obeyed_once(world: World) -> None:
    world.admitted()
    world.deployments.order("fraud", "promote", "bob")
    world.turn(0.1)
    world.turn(0.1)
    assert (world.phase, world.row.stable) == ("stepping", 3)


def test_one_that_somebody_else_ended_is_let_go(world: World) -> None:
    world.begin()
    world.turn()
    world.deployments.roll_back("fraud", 3, "bob", "no", alias="champion")
    told = world.told
    for _ in range(3):
        world.turn(1.0)
    assert (world.told, world.proofs[0].closed) == (told, 1)


# --- other processes, other machines


def test_a_new_process_goes_on_from_what_is_written_down(world: World) -> None:
    world.admitted()
    world.serve(3)
    before = world.known.evidence
    share = world.row.weight
    world.rollouts.close()
    world.ask(200)  # while there is no controller
    world.new_process()
    assert world.row.weight == share
    world.turn(0.1)
    after = world.known.evidence
    assert (after.candidate, after.stable) == (before.candidate + 10, before.stable + 190)
    assert len(world.proofs) == 1  # it is loaded already
    world.serve(60)
    assert world.told[1:] == ["began", "stepped", "stepped", "stepped", "stepped", "promoted"]


def test_a_new_process_begins_the_first_load_anew(world: World) -> None:
    world.begin()
    world.turn()
    world.rollouts.close()
    assert world.proofs[0].closed == 1
    world.new_process()
    world.turn(0.1)
    assert [proof.version for proof in world.proofs] == [4, 4]
    world.proofs[1].said = ""
    world.turn(0.1)
    assert world.row.candidate == 4


def test_a_paused_one_is_paused_in_a_new_process(world: World) -> None:
    world.admitted()
    world.serve(3)
    world.deployments.order("fraud", "pause", "bob")
    world.turn(0.1)
    world.new_process()
    world.serve(30)
    assert (world.phase, world.row.weight) == ("stepping", 500)


@pytest.mark.parametrize(("phase", "action"), [(Phase.ABORTED, "aborted"), (Phase.SUCCEEDED, "promoted")])
def test_a_new_process_finishes_what_the_old_one_had_decided(world: World, phase: Phase, action: str) -> None:
    """It was killed between writing it down and doing it."""
    number = world.admitted()
    stored = world.deployments.rollout(number)
    decided = msgspec.structs.replace(msgspec.convert(stored.state, Rollout), phase=phase, why="decided")
    world.deployments.keep(number, msgspec.to_builtins(decided), stored.evidence or {}, None)
    world.new_process()
    world.turn(0.1)
    assert (world.row.rollout, world.last.action) == (None, action)
    assert world.last.why.startswith("decided")


@pytest.mark.parametrize("seen", ["a death", "a worker that tripped"])
def test_what_was_taken_back_for_what_it_did_is_blocked_by_whoever_finishes_it(
    world: World, monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    """The process was killed between writing down what it had decided and doing it; who saw it is gone as well."""
    number = world.admitted()
    world.turn(1.0)
    if seen == "a death":
        blame(world.machine, 4)
    else:
        world.machine.slot.set(Head.TRIPPED, number)
    with monkeypatch.context() as killed:
        killed.setattr(Deployments, "abort", lambda *_, **__: True)
        world.turn(1.0)
    assert (world.phase, world.row.rollout) == ("aborted", number)
    world.machine.slot.set(Head.TRIPPED, 0)
    world.new_process()
    world.turn(0.1)
    assert (world.row.rollout, world.last.action) == (None, "aborted")
    with pytest.raises(RefusedError):
        world.begin()


def test_a_board_that_counts_from_nothing_loses_no_evidence(world: World) -> None:
    world.admitted()
    world.serve(3)
    before = world.known.evidence
    world.machine.open_board()
    world.fleet = Fleet(world.machine.watch, "here", None)
    world.new_process()
    world.machine.count(4, "candidate", 6)
    world.machine.count(3, "stable", 100)
    world.turn(1.0)
    after = world.known.evidence
    assert (after.candidate, after.stable) == (before.candidate + 6, before.stable + 100)


def test_who_does_not_lead_any_more_changes_nothing(world: World, store: Store) -> None:
    world.admitted()
    mine, other = Lease(store, "here"), Lease(store, "there")
    mine.take()
    world.new_process(mine)
    world.turn(0.1)
    world.clock.now += 60
    other.take()
    before, told = world.row, world.told
    world.deployments.order("fraud", "abort", "bob")
    with pytest.raises(ConflictError) as caught:
        world.turn(0.1)
    assert caught.value.code == "CL-E506"
    assert (world.row, world.told) == (before, told)


class Two:
    """A Two is a World with a second machine on the same store."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.there = Machine(folder)
        self.follows = True
        world.fleet = Fleet(world.machine.watch, "here", Machines(world.store, "here"))
        world.new_process()
        self.fleet = Fleet(self.there.watch, "there", Machines(world.store, "there"))

    def turn(self, passed: float = 0.0, *, lives: bool = True) -> None:
        world = self.world
        world.clock.now += passed
        for machine, follows in ((world.machine, world.follows), (self.there, self.follows)):
            machine.slot.beat()
            if follows:
                machine.follow(world.store.revision())
        rows = world.deployments.list()
        going = [(row, world.deployments.rollout(row.rollout)) for row in rows if row.rollout is not None]
        for fleet in (self.fleet, world.fleet) if lives else (world.fleet,):
            fleet.exchange(going, world.store.revision())
        world.rollouts.turn({row.name: row for row in rows})

    def admitted(self) -> int:
        number = self.world.begin()
        self.turn()
        self.world.proofs[-1].said = ""
        for _ in range(4):
            self.turn(1.0)
        assert self.world.phase == "stepping"
        return number


@pytest.fixture
def two(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Two:
    # how often machines speak to each other is by the same clock as all else here
    monkeypatch.setattr("cloche.control.fleet.time", SimpleNamespace(monotonic=world.clock))
    return Two(world, tmp_path / "there")


def test_what_two_machines_see_is_added(two: Two) -> None:
    two.admitted()
    two.world.machine.count(4, "candidate", 5, 1)
    two.world.machine.count(3, "stable", 100)
    two.there.count(4, "candidate", 7, 2)
    two.there.count(3, "stable", 200, 3)
    for _ in range(3):
        two.turn(1.0)
    evidence = two.world.known.evidence
    assert (evidence.candidate, evidence.candidate_bad, evidence.stable, evidence.stable_bad) == (15, 3, 303, 3)
    assert set(two.world.known.counts) == {"here", "there"}


def test_it_begins_when_both_have_it(two: Two) -> None:
    two.world.begin()
    two.turn()
    two.world.proofs[0].said = ""
    two.follows = False
    for _ in range(10):
        two.turn(1.0)
    assert two.world.phase == "loading"
    two.follows = True
    for _ in range(3):
        two.turn(1.0)
    assert two.world.phase == "stepping"


def test_a_machine_without_workers_is_not_waited_for(two: Two) -> None:
    empty = Machines(two.world.store, "empty")
    two.world.begin()
    two.turn()
    two.world.proofs[0].said = ""
    for _ in range(3):
        empty.report(MachineReport(workers=0, revision=0))
        two.turn(1.0)
    assert "empty" in Machines(two.world.store, "here").others()
    assert two.world.phase == "stepping"


def test_a_machine_without_a_sign_of_life_is_not_waited_for(two: Two) -> None:
    two.world.begin()
    two.turn()
    two.world.proofs[0].said = ""
    two.follows = False
    two.turn(1.0)
    assert two.world.phase == "loading"
    for _ in range(10):
        two.turn(1.0, lives=False)
    assert two.world.phase == "stepping"


def test_a_worker_of_another_machine_that_trips_is_enough(two: Two) -> None:
    """Whatever the sum of all says."""
    number = two.admitted()
    two.there.slot.set(Head.TRIPPED, number)
    for _ in range(3):
        two.turn(1.0)
    assert two.world.last.action == "aborted"


def test_harm_on_either_machine_ends_it(two: Two) -> None:
    number = two.admitted()
    two.there.count(4, "candidate", 1, 9)
    two.there.slot.set(Head.TRIPPED, number)
    for _ in range(3):
        two.turn(1.0)
    assert two.world.last.action == "aborted"
    assert "9 of 10 requests to fraud:4 went wrong" in two.world.last.why
    with pytest.raises(RefusedError):
        two.world.begin()


def test_trouble_on_the_other_machine_ends_it(two: Two) -> None:
    two.world.begin()
    two.turn()
    two.world.proofs[0].said = ""
    two.follows = False
    two.turn(1.0)
    told = {"revision": two.world.row.revision, "words": "no room there"}
    trouble_path(two.there.folder, 1).write_text(json.dumps(told))
    for _ in range(3):
        two.turn(1.0)
    assert (two.world.last.action, two.world.last.why) == ("aborted", "no room there")


def test_a_death_on_the_other_machine_ends_it(two: Two) -> None:
    two.admitted()
    two.turn(1.0)
    blame(two.there, 4)
    for _ in range(3):
        two.turn(1.0)
    assert two.world.last.why == "a process ended while it ran fraud:4"


def test_what_a_machine_that_comes_later_had_counted_is_not_of_this_rollout(two: Two) -> None:
    two.there.count(4, "candidate", 0, 500)
    blame(two.there, 4)
    two.world.begin()
    two.turn(lives=False)
    two.world.proofs[-1].said = ""
    for _ in range(4):
        two.turn(1.0, lives=False)
    assert two.world.phase == "stepping"
    two.turn(1.0)
    two.there.count(4, "candidate", 5)
    for _ in range(3):
        two.turn(1.0)
    assert two.world.phase == "stepping"
    evidence = two.world.known.evidence
    assert (evidence.candidate, evidence.candidate_bad) == (5, 0)


def test_what_a_machine_that_is_gone_had_seen_stays(two: Two) -> None:
    two.admitted()
    two.there.count(4, "candidate", 5)
    for _ in range(3):
        two.turn(1.0)
    for _ in range(20):
        two.turn(1.0, lives=False)
    assert two.world.known.evidence.candidate == 5
    two.there.count(4, "candidate", 3)
    for _ in range(3):
        two.turn(1.0)
    assert two.world.known.evidence.candidate == 8


def test_alone_on_its_store_a_machine_tells_nobody(world: World, store: Store) -> None:
    world.fleet.exchange([], 1)
    assert Machines(store, "other").others() == {}


def test_a_sight_is_what_the_board_says(world: World) -> None:
    number = world.admitted()
    world.machine.count(4, "candidate", 3, 1)
    blame(world.machine, 4)
    stored = world.deployments.rollout(number)
    sight = world.fleet.own_sight(world.row, stored)
    assert sight.counts == Counts(candidate=4, candidate_bad=1)
    assert (sight.deaths, sight.tripped, sight.trouble, sight.usual_error) == (1, False, None, None)
    assert msgspec.convert(msgspec.to_builtins(sight), Sight) == sight


# --- trials


def test_a_shadow_ends_with_a_report_and_stable_has_all_of_the_traffic(
    world: World, store: Store, bundles: BundleFolder
) -> None:
    number = world.admitted(shadow("20% for 10s"))
    assert world.row.weight == 2_000
    tally = Tally(requests=50, rows=100, agree=99, difference_sum=0.3, difference_most=0.2)
    tally_path(world.machine.folder, 1).write_bytes(msgspec.json.encode({number: tally, 77: Tally(rows=9)}))
    for _ in range(11):
        world.turn(1.0)
    assert (world.last.action, world.last.who, world.phase) == ("reported", CLOCHE, "reported")
    assert world.last.why == (
        "its time is over: agrees on 99.00% of 100 rows, differs by 0.003 on average and 0.2 at most"
    )
    row = world.row
    assert (row.stable, row.candidate, row.weight, row.rollout) == (3, None, 0, None)
    assert champion(store, bundles) == 3
    assert world.known.tally == tally
    world.begin()  # nothing is blocked


def metered(
    world: World, number: int, stable: float, candidate: float, times: int, *, dealt: tuple[int, int] | None = None
) -> None:
    """So many answers of each version with such scores, to as many callers, or to those that were `dealt`."""
    chance = np.random.default_rng(0)
    deal(world, number, *(dealt or (times, times)))
    for version, arm, mean in ((3, "stable", stable), (4, "candidate", candidate)):
        labels = {"deployment": "fraud", "version": str(version), "arm": arm}
        counted = MeteredArm(world.machine.slot, labels, 1.0, trial=number)
        for score in chance.normal(mean, 0.05, times).tolist():
            counted.answered(None, ({"probabilities": np.array([[1 - score, score]])}, 0.0, 0.001))
            counted.count(200, 0.01 + score / 100)


def deal(world: World, number: int, stable: int, candidate: int) -> None:
    """So many callers fell to each version."""
    slot = world.machine.slot
    for version, arm, callers in ((3, "stable", stable), (4, "candidate", candidate)):
        labels = {"deployment": "fraud", "version": str(version), "arm": arm}
        slot.cells[slot.series(**sums_labels(labels, UNITS, number)[0])] += callers


@pytest.mark.parametrize("metric", ["score", ""])
def test_an_ab_whose_callers_are_badly_dealt_says_so_and_nothing_else(world: World, metric: Any) -> None:
    number = world.admitted(ab("50% for 1h", metric))
    metered(world, number, 0.3, 0.6, 900, dealt=(900, 600))
    world.turn(1.0)
    assert world.phase == "stepping"  # though the metric differs clearly
    world.turn(3_600.0)
    assert world.last.why == (
        "its time is over: the candidate was dealt 600 of 1,500, 40.0% of the callers, not 50.0%: "
        "nothing can be concluded"
    )


def test_an_ab_of_a_few_callers_who_ask_often_says_nothing(world: World) -> None:
    number = world.admitted(ab("50% for 1h", "score"))
    metered(world, number, 0.3, 0.6, 900, dealt=(120, 99))
    world.turn(1.0)
    assert world.phase == "stepping"
    world.turn(3_600.0)
    assert world.last.why.endswith("fewer than 100 callers in one of the arms: nothing can be said")


@pytest.mark.parametrize("metric", ["score", ""])
def test_an_ab_ends_as_soon_as_its_metric_differs_or_at_its_time(world: World, metric: Any) -> None:
    number = world.admitted(ab("50% for 1h", metric))
    assert world.row.weight == 5_000
    for _ in range(3):
        metered(world, number, 0.3, 0.6, 300)
        world.turn(1.0)
    if not metric:
        assert world.phase == "stepping"
        world.turn(3_600.0)
    assert world.last.action == "reported"
    begins = "score differ clearly: " if metric else "its time is over: "
    assert world.last.why.startswith(begins)
    assert re.search(r"score \+0\.3\d* \(\+0\.2\d* to \+0\.3\d*\)", world.last.why)
    assert re.search(r"errors \+0 pp \(-\S+ to \+\S+\), which may be nothing", world.last.why)
    assert re.search(r"latency \+\S+ ms ", world.last.why)
    assert (world.row.stable, world.row.candidate) == (3, None)


def test_an_ab_that_harms_is_taken_off_and_blocked(world: World) -> None:
    world.admitted(ab("50% for 1h"))
    world.serve(20, bad=0.6)
    assert world.told[-1] == "aborted"
    with pytest.raises(RefusedError):
        world.begin()


def test_the_winner_of_an_ab_is_taken_over_by_hand(world: World) -> None:
    world.admitted(ab("50% for 1h"))
    world.serve(2)
    world.deployments.order("fraud", "promote", "bob")
    world.turn(0.1)
    assert (world.last.action, world.last.who, world.row.stable) == ("promoted", "bob", 4)


def test_what_a_trial_has_summed_outlives_the_board(world: World) -> None:
    """Evidence stands in the store: after everything was killed a trial goes on with what it knew."""
    number = world.admitted(ab("50% for 1h"))
    metered(world, number, 0.3, 0.6, 300)
    world.turn(1.0)
    before = world.known.sums["score"][1].n
    assert before == 300
    world.machine.open_board()
    world.fleet = Fleet(world.machine.watch, "here", None)
    world.new_process()
    metered(world, number, 0.3, 0.6, 10)
    world.turn(1.0)
    assert world.known.sums["score"][1].n == before + 10


def test_what_a_shadow_has_compared_outlives_its_worker(world: World) -> None:
    """A worker that takes the slot of one that ended begins to compare from nothing."""
    number = world.admitted(shadow("20% for 1h"))
    file = tally_path(world.machine.folder, 1)
    file.write_bytes(msgspec.json.encode({number: Tally(requests=50, rows=100, agree=99)}))
    world.turn(1.0)
    assert world.known.tally.rows == 100
    file.write_bytes(msgspec.json.encode({number: Tally(requests=1, rows=2, agree=2)}))
    world.turn(1.0)
    assert world.known.tally.rows == 102


def test_what_a_machine_that_is_gone_had_summed_stays(two: Two) -> None:
    world = two.world
    world.begin(ab("50% for 1h"))
    two.turn()
    world.proofs[-1].said = ""
    for _ in range(4):
        two.turn(1.0)
    number = world.row.rollout
    assert number is not None
    here, world.machine = world.machine, two.there
    metered(world, number, 0.3, 0.6, 300)
    world.machine = here
    for _ in range(3):
        two.turn(1.0)
    assert world.known.sums["score"][1].n == 300
    for _ in range(20):
        two.turn(1.0, lives=False)
    assert world.known.sums["score"][1].n == 300


@pytest.mark.parametrize(
    ("strategy", "known", "words"),
    [
        (shadow(), Known(), "nothing yet"),
        (ab(), Known(), "fewer than 100 answers in one of the arms: nothing can be said"),
        (ab(), Known(Evidence(stable=99, candidate=1_000)), "fewer than 100 answers in one of the arms"),
        (ab(), Known(Evidence(stable=100, candidate=100)), "errors +0 pp (-"),
        (ab(), Known(Evidence(stable=10_000, candidate=10_000, candidate_bad=5_000)), "errors +50 pp (+"),
    ],
)
def test_what_a_trial_says(strategy: Strategy, known: Known, words: str) -> None:
    assert describe_trial(strategy, known).startswith(words)


def test_intervals_share_the_chance_to_be_wrong() -> None:
    evidence = Evidence(stable=1_000, candidate=1_000, stable_bad=10, candidate_bad=10)
    alone = differences(Known(evidence))["errors"]
    arms = (Sums(1_000, 10.0, 0.5), Sums(1_000, 10.0, 0.5))
    among = differences(Known(evidence, sums={"latency": arms, "score": arms}))
    assert set(among) == {"errors", "latency", "score"}
    assert among["errors"].low < alone.low < alone.high < among["errors"].high
    # and one that has too few values keeps its share
    few = differences(Known(evidence, sums={"latency": arms, "score": (Sums(), Sums())}))
    assert set(few) == {"errors", "latency"}
    assert few["errors"] == among["errors"]


def test_a_rollout_says_how_it_goes_out_and_why(store: Store) -> None:
    begin(Deployments(store), "fraud", 4, shadow("12.5% for 1h"), store.now(), "bob", "champion was moved")
    event = list_events(store)[-1]
    assert (event.who, event.why) == ("bob", "shadow: 12.5 %; champion was moved")


def test_two_deployments_go_on_beside_each_other(world: World) -> None:
    world.deployments.start("other", "fraud", "fraud:1", 1, "ada")
    world.begin()
    begin(world.deployments, "other", 2, STEPS, world.store.now(), "ada", "")
    world.turn()
    assert [proof.version for proof in world.proofs] == [4, 2]
    world.proofs[1].said = "no"
    world.proofs[0].said = ""
    world.turn(0.1)
    assert world.row.candidate == 4
    assert world.deployments.get("other").rollout is None
