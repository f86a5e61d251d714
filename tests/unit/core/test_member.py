"""A child process as its supervisor sees it: slot, heartbeat, leash, drain."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloche.core.board import Board, Head, Role, State
from cloche.core.errors import RefusedError
from cloche.core.member import pass_json, read_json

#: Says what happens to it, a line each, and ends when it is told to.
CHILD = """
import sys, threading
from cloche.core.errors import RefusedError
from cloche.core.member import Member

member = Member.from_fd(int(sys.argv[1]))
print("claimed", member.slot.number, member.config, len(member.sockets), flush=True)
if member.config.get("fails"):
    sys.exit(member.fail(RefusedError("no", code="CL-E404")))
if not member.config.get("loads"):
    member.ready()
drained = threading.Event()
member.on_drain(lambda: (print("drain", flush=True), drained.set()))
while not drained.wait(0.02):
    pass
if member.config.get("late"):
    again = threading.Event()
    member.on_drain(again.set)
    again.wait()
    member.ready()
    print("late", member.draining(), flush=True)
"""


class Child:
    """A Child is one process with the test as its supervisor."""

    def __init__(self, folder: Path, *, orphan_s: float = 60.0, **config: Any) -> None:
        self.folder = folder
        self.board = Board(folder / "board")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.leash, theirs = socket.socketpair()
        self.leash.settimeout(10)
        task = {
            "slot": 2,
            "role": "worker",
            "board": str(folder / "board"),
            "control": str(folder / "m.sock"),
            "sockets": [self.listener.fileno()],
            "leash": theirs.fileno(),
            "digest": "d1",
            "orphan_s": orphan_s,
            "lame_duck_s": 0.0,
            "config": config,
        }
        descriptor = pass_json(task, folder)
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(descriptor)],
            pass_fds=[descriptor, theirs.fileno(), self.listener.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.close(descriptor)
        theirs.close()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def head(self, item: Head) -> int:
        return self.board.head(2, item)

    def connect(self) -> tuple[socket.socket, dict[str, Any], list[int]]:
        """A leash as a later supervisor takes it, the child's hello and the listening sockets."""
        leash = socket.socket(socket.AF_UNIX)
        leash.settimeout(10)
        leash.connect(str(self.folder / "m.sock"))
        hello, descriptors, _, _ = socket.recv_fds(leash, 4096, 4)
        return leash, json.loads(hello), descriptors

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.leash.close()
        self.listener.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    children: list[Child] = []
    # a short path: that of a unix socket has at most 104 bytes
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as folder:

        def start(**options: Any) -> Child:
            children.append(Child(Path(folder), **options))
            return children[-1]

        yield start
        for child in children:
            child.close()


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


def test_it_claims_its_slot_and_becomes_ready(start: Callable[..., Child]) -> None:
    child = start(colour="blue")
    assert child.line() == "claimed 2 {'colour': 'blue'} 1"
    assert json.loads(child.leash.recv(4096)) == {"event": "ready"}
    assert child.head(Head.PID) == child.process.pid
    assert child.head(Head.ROLE) == Role.WORKER
    assert child.head(Head.STATE) == State.READY


def test_its_heart_beats_though_its_main_thread_does_not_help(start: Callable[..., Child]) -> None:
    child = start()
    child.line()
    first = child.head(Head.HEARTBEAT_NS)
    wait_for(lambda: child.head(Head.HEARTBEAT_NS) > first + 500_000_000)


def test_sigterm_drains_once_and_sigint_does_nothing(start: Callable[..., Child]) -> None:
    child = start(late=True)
    child.line()
    child.leash.recv(4096)
    child.process.send_signal(signal.SIGINT)
    child.process.send_signal(signal.SIGTERM)
    child.process.send_signal(signal.SIGTERM)
    assert child.line() == "drain"
    assert child.line() == "late True"  # a callback that comes late is called at once
    assert child.process.wait(10) == 0
    assert child.head(Head.STATE) == State.DRAINING  # though it said again that it is ready


def test_a_child_that_is_still_loading_can_be_drained(start: Callable[..., Child]) -> None:
    child = start(loads=True)
    child.line()
    assert child.head(Head.STATE) == State.STARTING
    child.process.send_signal(signal.SIGTERM)
    assert child.line() == "drain"
    assert child.process.wait(10) == 0


def test_it_says_why_it_can_not_start_over_the_leash(start: Callable[..., Child]) -> None:
    child = start(fails=True)
    said = json.loads(child.leash.recv(4096))
    assert said == {"event": "failed", "words": RefusedError("no", code="CL-E404").render()}
    assert child.process.communicate()[1] == b""
    assert child.process.returncode == 4


def test_without_a_supervisor_for_a_while_it_drains(start: Callable[..., Child]) -> None:
    child = start(orphan_s=0.2)
    child.line()
    child.leash.close()
    assert child.line() == "drain"
    assert child.process.wait(10) == 0


def test_a_supervisor_that_dies_before_the_claim_takes_its_child_with_it(
    start: Callable[..., Child],
) -> None:
    child = start()
    child.leash.close()  # long before the interpreter has started
    assert child.process.wait(10) == 143
    assert child.line() == ""
    assert child.head(Head.PID) == 0


def test_a_new_supervisor_gets_the_sockets_and_holds_the_leash(start: Callable[..., Child]) -> None:
    child = start(orphan_s=0.5)
    child.line()
    leash, hello, descriptors = child.connect()
    assert hello["pid"] == child.process.pid
    assert (hello["slot"], hello["role"], hello["digest"]) == (2, "worker", "d1")
    address = child.listener.getsockname()
    with contextlib.closing(socket.socket(fileno=descriptors[0])) as given:
        assert given.getsockname() == address
    child.leash.close()
    with pytest.raises(subprocess.TimeoutExpired):
        child.process.wait(1.2)  # longer than an orphan lives
    leash.close()
    assert child.line() == "drain"


def test_no_more_than_eight_hold_its_leash(start: Callable[..., Child]) -> None:
    child = start()
    child.line()
    with contextlib.ExitStack() as stack:
        for _ in range(7):
            leash, _, descriptors = child.connect()
            stack.callback(leash.close)
            for descriptor in descriptors:
                os.close(descriptor)
        ninth = stack.enter_context(socket.socket(socket.AF_UNIX))
        ninth.connect(str(child.folder / "m.sock"))
        assert ninth.recv(4096) == b""


def test_its_children_inherit_neither_leash_nor_sockets(start: Callable[..., Child]) -> None:
    child = start()
    child.line()
    if sys.platform != "linux":
        pytest.skip("close-on-exec is read from /proc")
    folder = Path(f"/proc/{child.process.pid}")
    inherited = []
    for entry in (folder / "fd").iterdir():
        if int(entry.name) > 2 and str(entry.readlink()).startswith("socket:"):
            flags = int((folder / "fdinfo" / entry.name).read_text().split("flags:")[1].split()[0], 8)
            if not flags & os.O_CLOEXEC:
                inherited.append(entry.name)
    assert inherited == []


def test_json_of_any_size_goes_through_a_descriptor_and_leaves_no_file(tmp_path: Path) -> None:
    value = {"rows": ["x" * 1000] * 1000, "ä": None}
    descriptor = pass_json(value, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not os.get_inheritable(descriptor)
    assert read_json(descriptor) == value
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_json_comes_through_a_pipe_as_well() -> None:
    reader, writer = os.pipe()
    os.write(writer, b'{"a": 1}')
    os.close(writer)
    assert read_json(reader) == {"a": 1}
