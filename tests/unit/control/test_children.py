"""Processes as their supervisor holds them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloche.control.children import Child, backoff_s, describe_exit
from cloche.core.platform import process_start

#: Takes its task as a member does, says a line over the leash and ends with the code in its config.
TALKER = (
    sys.executable,
    "-c",
    "import json, os, socket, sys\n"
    "task = json.load(os.fdopen(int(sys.argv[1])))\n"
    "leash = socket.socket(fileno=task['leash'])\n"
    "leash.sendall(task['says'].encode())\n"
    "sys.exit(task['code'])",
)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [
        (0, 0.0),
        (1, 0.0),  # the first replacement comes at once
        (2, 0.1),
        (3, 0.2),
        (7, 3.2),
        (8, 5.0),
        (1_000_000, 5.0),  # never longer
    ],
)
def test_backoff_grows_to_five_seconds(failures: int, seconds: float) -> None:
    assert backoff_s(failures) == seconds


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-9, "killed by SIGKILL"),
        (-99, "killed by signal 99"),
        (None, "its exit code is not known"),
    ],
)
def test_an_exit_in_words(status: int | None, words: str) -> None:
    assert describe_exit(status) == words


def test_a_dead_childs_last_words_and_code_are_kept(tmp_path: Path) -> None:
    says = '{"event": "ready"}\nnoise\n[1]\n{"event": "failed", "words": "no, because"}\n'
    child = Child.spawn(TALKER, {"says": says, "code": 4}, [], tmp_path)
    wait_for(child.is_dead)
    child.close()
    assert (child.status, child.words) == (4, "no, because")


def test_a_line_without_end_is_not_kept_without_end(tmp_path: Path) -> None:
    child = Child.spawn(TALKER, {"says": "x" * 200_000, "code": 0}, [], tmp_path)
    wait_for(lambda: not child.listen())
    wait_for(child.is_dead)
    child.close()
    assert child.words == ""
    assert len(child._said) <= 65536


def test_a_child_is_signalled_and_found_dead(tmp_path: Path) -> None:
    child = Child.spawn((sys.executable, "-c", "import time; time.sleep(60)"), {}, [], tmp_path)
    assert not child.is_dead()
    assert os.getsid(child.pid) == child.pid  # Ctrl-C in our terminal does not reach it
    child.signal(signal.SIGKILL)
    wait_for(child.is_dead)
    child.signal(signal.SIGKILL)  # to nobody
    child.close()
    assert child.status == -signal.SIGKILL


def test_an_adopted_process_is_watched_without_being_ours_to_reap(monkeypatch: pytest.MonkeyPatch) -> None:
    for with_pidfd in (True, False):
        if not with_pidfd:
            monkeypatch.delattr(os, "pidfd_open", raising=False)  # as on macOS
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process, theirs:
            child = Child(process.pid, process_start(process.pid), ours)
            assert (child.pidfd is not None) == (with_pidfd and sys.platform == "linux")
            assert not child.is_dead()
            child.signal(signal.SIGKILL)
            process.wait()
            assert child.is_dead()
            assert child.status is None
            child.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the start of a process is read from /proc")
def test_a_process_with_the_same_id_but_another_start_is_not_ours() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        child = Child(os.getpid(), process_start(os.getpid()) + 1, ours)
        assert child.is_dead()
        assert child.pidfd is None
        child.signal(signal.SIGKILL)  # would end this test
        child.close()


def test_a_program_that_is_not_there_leaves_nothing_open(tmp_path: Path) -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        Child.spawn(("/nowhere/python",), {}, [], tmp_path)
    assert len(list(Path("/dev/fd").iterdir())) == before
