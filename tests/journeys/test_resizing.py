"""The supervisor with small real processes under it, told to have more of them or fewer while it runs."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.journeys.serving import until
from tests.journeys.test_supervisor import Up, World, ask, kill_supervisor, open_world

from cloche.control.adopt import live_slots
from cloche.core.board import Head, Role, State

#: A controller that asks for as many workers as the file says, once a change.
CONTROLLER = """
import json, os, sys, time
from cloche.core.member import Member

member = Member.from_fd(int(sys.argv[1]))
member.ready()
said = None
while not member.draining():
    if os.path.exists(member.config["file"]):
        words = open(member.config["file"]).read()
        if words != said and words.endswith("\\n"):
            said = words
            member._tell(json.loads(words))
    time.sleep(0.02)
"""


class Elastic:
    """An Elastic is a world with a controller that can be told what to ask for."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.file = world.runtime / "ask.json"
        self.program = world.runtime / "controller.py"
        self.program.write_text(CONTROLLER)

    def up(self, count: int = 1, most: int = 6, hosts: int = 0, **options: Any) -> Up:
        wish = {key: options.pop(key) for key in ("lame_duck_s", "drain_s") if key in options}
        workers = {**self.world.group(count=count, **options), "most": most}
        controller = self.world.group("controller", file=str(self.file))
        controller["argv"] = [*controller["argv"][:-1], str(self.program)]
        seats = {**self.world.group("host", 0), "config": [], "most": hosts}
        return self.world.up(seats, workers, controller, digest="d", **wish)

    def ask(self, count: object, kind: str = "worker") -> None:
        self.say(f'{{"event": "scale", "kind": "{kind}", "count": {count}, "at": {time.monotonic_ns()}}}')

    def ask_for_hosts(self, *configs: object) -> None:
        self.say(json.dumps({"event": "hosts", "configs": configs, "at": time.monotonic_ns()}))

    def say(self, message: str) -> None:
        words = f"{message}\n"
        partial = self.file.with_suffix(".new")
        partial.write_text(words)
        partial.replace(self.file)

    def hosts(self) -> dict[int, int]:
        """By slot the processes of hosts that are ready, once none starts or drains."""
        board = self.world.board()
        slots = [slot for slot in live_slots(board) if board.head(slot, Head.ROLE) == Role.HOST]
        is_ready = all(board.head(slot, Head.STATE) == State.READY for slot in slots)
        return {slot: board.head(slot, Head.PID) for slot in slots} if is_ready else {}

    def workers(self) -> int:
        """How many serve, once none starts or drains."""
        board = self.world.board()
        slots = [slot for slot in board.heads(Role.WORKER) if board.head(slot, Head.STATE) != State.READY]
        return 0 if slots else len(self.world.pids())

    def become(self, count: int) -> None:
        self.ask(count)
        until(lambda: self.workers() == count, f"{count} workers")


@pytest.fixture
def elastic() -> Iterator[Elastic]:
    with open_world() as world:
        yield Elastic(world)


def test_it_grows_and_shrinks_as_the_controller_says_and_the_newest_leave(elastic: Elastic) -> None:
    up = elastic.up(lame_duck_s=0.1)
    port = up.port()
    (first,) = elastic.world.pids()
    elastic.become(4)
    assert first in elastic.world.pids()
    assert {ask(port)["pid"] for _ in range(20)} <= elastic.world.pids()
    second = sorted(elastic.world.board().heads(Role.WORKER))[1]
    elastic.become(2)
    assert first in elastic.world.pids()
    assert second in elastic.world.board().heads(Role.WORKER), "of those that came together the last leave"
    elastic.become(1)
    assert elastic.world.pids() == {first}
    assert not up.events("died")
    assert elastic.world.sum(name="cloche_worker_restarts_total", kind="worker") == 0
    assert up.end() == 143


def test_the_counters_of_who_left_stay(elastic: Elastic) -> None:
    up = elastic.up(count=2, lame_duck_s=0.0)
    port = up.port()
    for _ in range(20):
        ask(port)
    elastic.become(1)
    assert elastic.world.sum(name="answered") == 20
    elastic.become(2)
    assert elastic.world.sum(name="answered") == 20
    assert up.end() == 143


def test_nobody_is_refused_or_lost_while_it_changes_again_and_again(elastic: Elastic) -> None:
    up = elastic.up(lame_duck_s=0.2)
    port = up.port()
    answers: list[dict[str, Any]] = []
    failures: list[Exception] = []
    done = threading.Event()

    def keep_asking() -> None:
        while not done.is_set():
            try:
                answers.append(ask(port))
            except (OSError, ValueError) as error:
                failures.append(error)

    threads = [threading.Thread(target=keep_asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    for count in (4, 1, 6, 2, 5, 1):
        elastic.ask(count)
        seen = len(answers)
        until(lambda seen=seen: len(answers) > seen + 20)
    elastic.become(3)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len({answer["slot"] for answer in answers}) > 1
    assert up.end() == 143


@pytest.mark.parametrize("asked", ["true", "2.0", '"3"', "null"])
def test_what_is_no_count_is_not_heard(elastic: Elastic, asked: str) -> None:
    up = elastic.up(count=2)
    up.port()
    elastic.ask(asked)
    elastic.ask(1, kind="controller")
    elastic.become(3)
    assert [event["count"] for event in up.events("resized")] == [3]
    assert up.end() == 143


def test_only_the_controller_is_heard(elastic: Elastic) -> None:
    host = elastic.world.group("host", file=str(elastic.file))
    host["argv"] = [*host["argv"][:-1], str(elastic.program)]
    up = elastic.world.up(host, {**elastic.world.group(count=1), "most": 3})
    up.port()
    elastic.ask(3)
    with pytest.raises(AssertionError, match="what was waited for"):
        until(lambda: len(elastic.world.pids()) > 1, seconds=1.0)
    assert up.end() == 143


def test_hosts_come_and_go_as_the_controller_says_and_who_is_still_wanted_stays(elastic: Elastic) -> None:
    up = elastic.up(hosts=3, lame_duck_s=0.1)
    up.port()
    assert elastic.hosts() == {}
    elastic.ask_for_hosts({"socket": "a"}, {"socket": "b"})
    until(lambda: len(elastic.hosts()) == 2, "two hosts")
    first = elastic.hosts()
    elastic.ask_for_hosts({"socket": "b"}, {"socket": "c"}, {"socket": "d"})
    # the seat that a leaves is d's when it is asked for again
    until(lambda: len(elastic.hosts()) == 2 and elastic.hosts() != first, "c for a")
    elastic.ask_for_hosts({"socket": "b"}, {"socket": "c"}, {"socket": "d"})
    until(lambda: len(elastic.hosts()) == 3, "three hosts")
    assert len({*first.values()} & {*elastic.hosts().values()}) == 1, "b stayed"
    assert [event["slot"] for event in up.events("host_left")] == [1]
    elastic.ask_for_hosts("nonsense")
    elastic.ask(2)
    until(lambda: elastic.workers() == 2, "it hears on")
    assert len(elastic.hosts()) == 3
    os.kill(elastic.hosts()[1], signal.SIGKILL)
    until(lambda: len(up.events("died")) == 1 and len(elastic.hosts()) == 3, "the dead one is replaced")
    elastic.ask_for_hosts()
    until(lambda: not elastic.world.board().heads(Role.HOST), "none is left")
    assert len(up.events("died")) == 1
    assert up.end() == 143


def test_a_host_that_still_loads_is_ended_at_once_when_it_is_not_needed(elastic: Elastic) -> None:
    up = elastic.up(hosts=1, lame_duck_s=0.1, drain_s=60.0)
    up.port()
    elastic.ask_for_hosts({"socket": "a", "loads_for": 60.0})
    until(lambda: elastic.world.board().heads(Role.HOST), "it loads")
    elastic.ask_for_hosts()
    until(lambda: not elastic.world.board().heads(Role.HOST), "it is gone")
    assert not up.events("died")
    assert up.end() == 143


def test_there_are_at_least_one_and_at_most_as_many_as_there_are_seats(elastic: Elastic) -> None:
    up = elastic.up(count=2, most=3, lame_duck_s=0.0)
    up.port()
    elastic.ask(1000)
    until(lambda: elastic.workers() == 3)
    elastic.ask(-1)
    until(lambda: elastic.workers() == 1)
    assert up.end() == 143


def test_who_leaves_when_more_are_wanted_again_is_replaced_where_there_is_no_other_seat(elastic: Elastic) -> None:
    up = elastic.up(count=2, most=2, lame_duck_s=0.5)
    up.port()
    before = elastic.world.pids()
    elastic.ask(1)
    until(lambda: len(elastic.world.pids()) == 1)
    elastic.become(2)
    assert len(elastic.world.pids() & before) == 1
    assert elastic.world.sum(name="cloche_worker_restarts_total", kind="worker") == 0
    assert up.end() == 143


def test_who_does_not_drain_in_time_is_killed_and_not_replaced(elastic: Elastic) -> None:
    up = elastic.up(count=2, never_ends=True, lame_duck_s=0.1, drain_s=0.2)
    up.port()
    elastic.become(1)
    (killed,) = up.events("killed")
    assert "had not drained in time" in killed["message"]
    assert not up.events("died")
    up.process.kill()


def test_a_new_supervisor_takes_over_however_many_there_are(elastic: Elastic) -> None:
    first = elastic.up()
    port = first.port()
    elastic.become(3)
    pids = elastic.world.pids()
    elastic.file.unlink()
    kill_supervisor(first)
    second = elastic.up()
    assert second.port() == port
    assert elastic.world.pids() == pids
    elastic.become(2)
    assert elastic.world.pids() < pids
    assert second.end() == 143


def test_who_was_draining_is_taken_over_as_one_that_leaves(elastic: Elastic) -> None:
    first = elastic.up(count=1, lame_duck_s=3.0)
    first.port()
    elastic.become(2)
    elastic.ask(1)
    until(lambda: len(elastic.world.pids()) == 1)
    elastic.file.unlink()
    kill_supervisor(first)
    second = elastic.up(count=1, lame_duck_s=3.0)
    second.port()
    until(lambda: elastic.workers() == 1)
    assert not second.events("died")
    assert elastic.world.sum(name="cloche_worker_restarts_total", kind="worker") == 0
    assert second.end() == 143
