"""The supervisor with small real processes under it: started, killed, stuck, drained, orphaned, adopted."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.serving import until

from cloche.control.adopt import live_slots
from cloche.core.board import Board, Head, Role, State
from cloche.core.member import pass_json
from cloche.core.platform import is_alive

#: Answers each connection with who it is, and counts; as a host it only waits.
CHILD = """
import json, os, selectors, signal, socket, sys, time
from cloche.core.board import Head
from cloche.core.errors import ModelError, RefusedError
from cloche.core.member import Member

member = Member.from_fd(int(sys.argv[1]))
config = member.config
if config.get("refuses"):
    sys.exit(member.fail(RefusedError("this bundle is not to be trusted", code="CL-E404")))
if config.get("crashes"):
    os.abort()
if "once" in config and not os.path.exists(config["once"]):
    open(config["once"], "w").close()
    os.abort()
time.sleep(config.get("loads_for", 0))
wake, wakes = socket.socketpair()
member.on_drain(lambda: wake.send(b"."))
selector = selectors.DefaultSelector()
selector.register(wakes, selectors.EVENT_READ)
for listener in member.sockets:
    selector.register(listener, selectors.EVENT_READ)
answered = member.slot.series(name="answered")
member.slot.set(Head.EXECUTING, 77)
member.ready()
until = None
while until is None or time.monotonic() < until:
    for key, _ in selector.select(0.05 if until else None):
        if key.fileobj is wakes:
            selector.unregister(wakes)
            until = time.monotonic() + member.lame_duck_s
            continue
        try:
            connection, _ = key.fileobj.accept()
        except BlockingIOError:
            continue
        connection.setblocking(True)
        time.sleep(config.get("answers_in", 0))
        connection.sendall(json.dumps({"pid": os.getpid(), "slot": member.slot.number}).encode())
        connection.close()
        member.slot.cells[answered] += 1
if config.get("never_ends"):
    signal.pause()
"""


class Up:
    """An Up is one supervisor process, its wish, and what it wrote."""

    def __init__(self, runtime: Path, **wish: Any) -> None:
        self.runtime = runtime
        self.log = runtime / f"log-{time.monotonic_ns()}"
        descriptor = pass_json({"runtime": str(runtime), "data": "/data", **wish}, runtime)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cloche.control.supervisor", str(descriptor)],
                pass_fds=[descriptor],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        os.close(descriptor)

    def banner(self) -> str:
        """The line that is printed once all is ready; "" when the supervisor ended without."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def port(self) -> int:
        return int(self.banner().removeprefix("ready on "))

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def words(self) -> str:
        return self.log.read_text()

    def events(self, action: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.words().splitlines() if line.startswith("{")]
        return [line for line in lines if line["action"] == action]


class World:
    """A World is a runtime folder and everything that was started on it; nothing outlives the test."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self.ups: list[Up] = []
        self.program = runtime / "child.py"
        self.program.write_text(CHILD)

    def group(self, kind: str = "worker", count: int = 1, **config: Any) -> dict[str, Any]:
        return {
            "kind": kind,
            "count": count,
            "argv": [sys.executable, "-P", str(self.program)],
            "config": config,
        }

    def up(self, *groups: dict[str, Any], **wish: Any) -> Up:
        wish = {
            "listen": [["127.0.0.1", 0]],
            "groups": list(groups) or [self.group()],
            "lame_duck_s": 0.2,
            "banner": "ready on {port}\n",
            "model": "fraud:1",
            **wish,
        }
        self.ups.append(Up(self.runtime, **wish))
        return self.ups[-1]

    def board(self) -> Board:
        return Board(self.runtime / "board")

    def pids(self, role: Role = Role.WORKER) -> set[int]:
        """The processes of a role that live and are ready."""
        board = self.board()
        return {
            board.head(slot, Head.PID)
            for slot in live_slots(board)
            if board.head(slot, Head.ROLE) == role and board.head(slot, Head.STATE) == State.READY
        }

    def sum(self, **labels: str) -> int:
        return sum(value for found, value in self.board().labelled() if found == labels)

    def close(self) -> None:
        for up in self.ups:
            if up.process.poll() is None:
                up.process.kill()
                up.process.wait()
            assert up.process.stdout is not None
            up.process.stdout.close()
        board = self.board()
        for slot in live_slots(board):
            os.kill(board.head(slot, Head.PID), signal.SIGKILL)
        until(lambda: not live_slots(board))


@contextlib.contextmanager
def open_world() -> Iterator[World]:
    # a short path: that of a unix socket has at most 104 bytes
    folder = Path(tempfile.mkdtemp(prefix="cl-", dir="/tmp"))
    world = World(folder)
    try:
        yield world
    finally:
        world.close()
        shutil.rmtree(folder)


@pytest.fixture
def world() -> Iterator[World]:
    with open_world() as world:
        yield world


def ask(port: int) -> dict[str, Any]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        said = b"".join(iter(lambda: connection.recv(4096), b""))
    answer: dict[str, Any] = json.loads(said)
    return answer


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # its last holder is just closing it
    return False


# ── start ─────────────────────────────────────────────────────────────────────


def test_it_starts_hosts_before_workers_and_announces_once_all_are_ready(world: World) -> None:
    up = world.up(world.group("worker", 2), world.group("host", 2, loads_for=0.2))
    port = up.port()
    assert len(world.pids(Role.HOST)) == 2
    assert len(world.pids(Role.WORKER)) == 2
    board = world.board()
    assert [board.head(slot, Head.ROLE) for slot in range(5)] == [
        Role.SUPERVISOR,
        Role.HOST,
        Role.HOST,
        Role.WORKER,
        Role.WORKER,
    ]
    assert ask(port)["pid"] in world.pids()
    note = json.loads((world.runtime / "supervisor.json").read_text())
    assert note["pid"] == up.process.pid
    assert note["addresses"] == [f"http://127.0.0.1:{port}"]
    assert up.end() == 143


def test_it_imports_the_standard_library_and_that_part_of_core_only() -> None:
    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, cloche.control.supervisor; print(*{name.partition('.')[0] for name in sys.modules})",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    # what the interpreter loads by itself (site, .pth files) is not ours
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], check=True, capture_output=True, text=True
    )
    strangers = set(shown.stdout.split()) - sys.stdlib_module_names - set(bare.stdout.split()) - {"cloche"}
    assert not strangers


def test_its_memory_is_small(world: World) -> None:
    up = world.up(world.group(count=2))
    up.port()
    if sys.platform == "linux":
        resident_kb = int(Path(f"/proc/{up.process.pid}/status").read_text().split("VmRSS:")[1].split()[0])
        assert resident_kb < 32_000
    assert up.end() == 143


def test_a_child_that_refuses_at_the_first_start_stops_everything_with_its_words_and_code(world: World) -> None:
    up = world.up(world.group(count=3, refuses=True))
    assert up.process.wait(10) == 4
    assert up.banner() == ""
    assert up.words().count("error[CL-E404]: this bundle is not to be trusted") == 1
    until(lambda: not live_slots(world.board()))
    assert not (world.runtime / "supervisor.json").exists()


def test_a_child_that_crashes_again_and_again_at_the_first_start_stops_everything(world: World) -> None:
    up = world.up(world.group(crashes=True))
    assert up.process.wait(10) == 1
    assert "killed by SIGABRT, for the 4th time before everything was ready" in up.words()
    assert len(up.events("died")) == 3


def test_a_child_that_crashes_once_at_the_first_start_gets_another_chance(world: World) -> None:
    up = world.up(world.group(once=str(world.runtime / "crashed")))
    assert ask(up.port())["slot"] == 1
    assert up.end() == 143


def test_a_child_that_is_not_ready_in_time_stops_the_first_start(world: World) -> None:
    up = world.up(world.group(loads_for=60), load_timeout_s=0.3)
    assert up.process.wait(10) == 6
    assert "worker was not ready within 0.3 s" in up.words()


def test_a_program_that_is_not_there_is_said(world: World) -> None:
    group = {**world.group(), "argv": ["/nowhere/python"]}
    up = world.up(group)
    assert up.process.wait(10) == 1
    assert "/nowhere/python" in up.words()


def test_a_taken_port_is_a_conflict(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        up = world.up(listen=[["127.0.0.1", port]])
        assert up.process.wait(10) == 5
    assert f"error[CL-E503]: port {port} of 127.0.0.1 is taken by another program" in up.words()


def test_a_second_supervisor_on_the_same_folder_is_a_conflict(world: World) -> None:
    first = world.up()
    port = first.port()
    second = world.up()
    assert second.process.wait(10) == 5
    assert f"error[CL-E501]: fraud:1 at http://127.0.0.1:{port} is running already" in second.words()
    assert f"kill {first.process.pid}" in second.words()
    ask(port)
    assert first.end() == 143


def test_each_process_of_a_group_can_have_a_config_of_its_own(world: World) -> None:
    group = {**world.group(count=2), "config": [{}, {"loads_for": 0.3}]}
    up = world.up(group)
    up.port()
    assert len(world.pids()) == 2
    assert up.end() == 143


# ── replace ───────────────────────────────────────────────────────────────────


def test_a_killed_worker_is_replaced_on_its_slot_and_its_counts_stay(world: World) -> None:
    up = world.up(world.group())
    port = up.port()
    for _ in range(5):
        first = ask(port)
    until(lambda: world.sum(name="answered") == 5)
    assert world.sum(name="cloche_worker_restarts_total", kind="worker") == 0
    os.kill(first["pid"], signal.SIGKILL)
    second = ask(port)  # waits in the backlog until the new process takes it
    assert second["pid"] != first["pid"]
    assert second["slot"] == first["slot"] == 1
    until(lambda: world.sum(name="answered") == 6)
    assert world.sum(name="cloche_worker_restarts_total", kind="worker") == 1
    (died,) = up.events("died")
    assert died["executing"] == 77
    assert up.end() == 143


def test_no_connection_is_refused_or_lost_while_the_only_worker_is_replaced_again_and_again(world: World) -> None:
    up = world.up(world.group())
    port = up.port()
    answers: list[dict[str, Any]] = []
    failures: list[Exception] = []
    done = threading.Event()

    def keep_asking() -> None:
        while not done.is_set():
            try:
                answers.append(ask(port))
            except (OSError, ValueError) as error:  # ValueError: closed by the kill, before an answer
                failures.append(error)

    thread = threading.Thread(target=keep_asking)
    thread.start()
    kills = 4
    for _ in range(kills):
        (pid,) = until(world.pids)
        count = len(answers)
        until(lambda count=count: len(answers) > count)
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: world.pids() and world.pids() != {pid})
    done.set()
    thread.join()
    # at most what was in flight in the killed process
    assert len(failures) <= kills
    assert not any(isinstance(failure, ConnectionRefusedError) for failure in failures)
    assert len({answer["pid"] for answer in answers}) >= kills
    assert up.end() == 143


def test_a_killed_host_is_replaced(world: World) -> None:
    up = world.up(world.group("host", 2), world.group())
    up.port()
    before = world.pids(Role.HOST)
    os.kill(min(before), signal.SIGKILL)
    until(lambda: len(world.pids(Role.HOST)) == 2 and world.pids(Role.HOST) != before)
    assert world.sum(name="cloche_worker_restarts_total", kind="host") == 1
    assert up.end() == 143


def test_a_stuck_worker_is_killed_and_replaced(world: World) -> None:
    up = world.up(world.group(), stuck_s=2.0)
    port = up.port()
    (stuck,) = world.pids()
    os.kill(stuck, signal.SIGSTOP)
    assert ask(port)["pid"] != stuck
    assert up.events("killed")[0]["pid"] == stuck
    assert up.end() == 143


def test_one_stuck_worker_holds_up_no_other(world: World) -> None:
    up = world.up(world.group(count=2), stuck_s=30.0)
    up.port()
    stuck, other = sorted(world.pids())
    os.kill(stuck, signal.SIGSTOP)
    os.kill(other, signal.SIGKILL)
    until(lambda: other not in world.pids() and len(world.pids()) == 2, seconds=5)
    os.kill(stuck, signal.SIGCONT)
    assert up.end() == 143


# ── stop ──────────────────────────────────────────────────────────────────────


def test_sigterm_drains_workers_then_hosts(world: World) -> None:
    up = world.up(world.group("host"), world.group("worker", 2, answers_in=0.5), lame_duck_s=1.0)
    port = up.port()
    in_flight: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: in_flight.append(ask(port)))
    thread.start()
    (host,) = world.pids(Role.HOST)
    time_of_signal = time.monotonic()
    up.process.send_signal(signal.SIGTERM)
    until(lambda: not world.pids())  # draining now
    late = ask(port)  # the lame duck still accepts
    assert is_alive(host, 0)
    assert up.process.wait(10) == 143
    thread.join()
    assert late["slot"] in (2, 3)
    assert in_flight[0]["slot"] in (2, 3)
    assert time.monotonic() - time_of_signal >= 1.0
    assert not live_slots(world.board())
    until(lambda: is_refused(port))
    assert "/data" in up.events("stopped")[0]["message"]
    left = {path.name.partition("-")[0] for path in world.runtime.iterdir()}
    assert left == {"board", "board.labels", "child.py", "log", "supervisor.lock"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a gap of microseconds is left")
def test_a_stop_under_load_resets_no_connection(world: World) -> None:
    up = world.up(world.group(count=2), lame_duck_s=0.5)
    port = up.port()
    answers: list[int] = []
    resets: list[OSError | ValueError] = []

    def keep_asking() -> None:
        while True:
            try:
                answers.append(ask(port)["pid"])
            except ConnectionRefusedError:
                return
            except (OSError, ValueError) as error:
                resets.append(error)

    threads = [threading.Thread(target=keep_asking) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(answers) > 100)
    assert up.end() == 143
    for thread in threads:
        thread.join()
    assert resets == []


def test_sigint_drains_as_well_and_a_second_one_stops_at_once(world: World) -> None:
    up = world.up(world.group(never_ends=True))
    up.port()
    up.process.send_signal(signal.SIGINT)
    until(lambda: up.events("draining"))
    time.sleep(0.3)  # past the lame duck: the child goes on all the same
    assert up.process.poll() is None
    assert up.end(signal.SIGINT) == 130
    until(lambda: not live_slots(world.board()))


def test_what_does_not_drain_in_time_is_killed(world: World) -> None:
    up = world.up(world.group(never_ends=True), drain_s=0.3)
    up.port()
    assert up.end() == 143
    assert up.events("killed_late")


def test_a_stop_before_everything_is_ready_does_not_wait(world: World) -> None:
    up = world.up(world.group(loads_for=60))
    until(lambda: live_slots(world.board()))
    began = time.monotonic()
    assert up.end(signal.SIGINT) == 130
    assert time.monotonic() - began < 3
    assert up.banner() == ""


def test_a_hang_up_drains_too(world: World) -> None:
    up = world.up()
    up.port()
    assert up.end(signal.SIGHUP) == 129
    assert not live_slots(world.board())


# ── orphans ───────────────────────────────────────────────────────────────────


def kill_supervisor(up: Up) -> None:
    up.process.kill()
    up.process.wait(10)


def test_children_serve_on_without_a_supervisor_and_a_new_one_adopts_them(world: World) -> None:
    groups = world.group("host"), world.group("worker", 2)
    first = world.up(*groups)
    port = first.port()
    workers, hosts = world.pids(), world.pids(Role.HOST)
    for _ in range(3):
        ask(port)
    kill_supervisor(first)
    assert ask(port)["pid"] in workers
    until(lambda: world.sum(name="answered") == 4)

    second = world.up(*groups)
    assert second.port() == port
    assert (world.pids(), world.pids(Role.HOST)) == (workers, hosts)
    assert ask(port)["pid"] in workers
    until(lambda: world.sum(name="answered") == 5)  # the board was kept
    assert second.events("adopted")[0]["count"] == 3

    victim = min(workers)
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in world.pids() and len(world.pids()) == 2)
    assert world.sum(name="cloche_worker_restarts_total", kind="worker") == 1
    assert {ask(port)["pid"] for _ in range(20)} <= world.pids()
    assert second.end() == 143
    until(lambda: is_refused(port))


def test_the_sockets_survive_the_death_of_the_supervisor_and_of_the_adopted_workers(world: World) -> None:
    first = world.up(world.group())
    port = first.port()
    kill_supervisor(first)
    second = world.up(world.group())
    second.port()
    (adopted,) = world.pids()
    os.kill(adopted, signal.SIGKILL)
    assert ask(port)["pid"] != adopted
    kill_supervisor(second)
    third = world.up(world.group())
    assert third.port() == port
    ask(port)
    assert third.end() == 143


def test_a_worker_that_died_without_a_supervisor_is_started_by_the_next(world: World) -> None:
    first = world.up(world.group(count=2))
    port = first.port()
    kill_supervisor(first)
    victim = min(world.pids())
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in world.pids())
    second = world.up(world.group(count=2))
    assert second.port() == port
    assert len(world.pids()) == 2
    assert second.end() == 143


def test_a_stuck_orphan_is_not_adopted(world: World) -> None:
    first = world.up(world.group(count=2))
    port = first.port()
    kill_supervisor(first)
    stuck, other = sorted(world.pids())
    os.kill(stuck, signal.SIGSTOP)
    second = world.up(world.group(count=2), stuck_s=3.0)
    assert second.port() == port
    assert stuck not in world.pids()
    assert other in world.pids()
    assert second.end() == 143


def test_another_wish_does_not_adopt_and_says_what_runs(world: World) -> None:
    first = world.up(world.group(count=2))
    port = first.port()
    workers = world.pids()
    kill_supervisor(first)
    other = world.up(world.group(count=1), model="churn:2")
    assert other.process.wait(20) == 5
    assert f"fraud:1 at http://127.0.0.1:{port} still runs without a supervisor" in other.words()
    assert all(str(pid) in other.words() for pid in workers)
    assert ask(port)["pid"] in workers


def test_orphans_drain_after_a_while(world: World) -> None:
    up = world.up(world.group("host"), world.group("worker", 2), orphan_s=0.5)
    port = up.port()
    kill_supervisor(up)
    until(lambda: not live_slots(world.board()))
    until(lambda: is_refused(port))


def test_an_adopted_orphan_does_not_drain(world: World) -> None:
    first = world.up(world.group(), orphan_s=1.0)
    first.port()
    workers = world.pids()
    kill_supervisor(first)
    second = world.up(world.group(), orphan_s=1.0)
    second.port()
    with pytest.raises(AssertionError, match="what was waited for"):
        until(lambda: world.pids() != workers, seconds=1.5)
    assert second.end() == 143


def test_a_board_that_nothing_lives_on_is_begun_anew(world: World) -> None:
    first = world.up()
    ask(first.port())
    assert first.end() == 143
    assert world.sum(name="answered") == 1
    second = world.up()
    second.port()
    assert world.sum(name="answered") == 0
    assert second.end() == 143


def test_the_control_socket_is_private(world: World) -> None:
    up = world.up()
    up.port()
    path = world.runtime / "member-1.sock"
    assert path.stat().st_mode & 0o077 == 0
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.connect(str(path))
        hello, descriptors, _, _ = socket.recv_fds(connection, 4096, 4)
    for descriptor in descriptors:
        os.close(descriptor)
    assert json.loads(hello)["slot"] == 1
    assert len(descriptors) == 1
    assert up.end() == 143
