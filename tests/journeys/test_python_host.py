"""A model class in hosts of its own: killed under load, ended with their parent, and under a supervisor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.journeys.serving import Threads, until

import cloche
from cloche.bundle.bundle import Bundle
from cloche.control.children import Child
from cloche.core.board import Board, Head, Role, State
from cloche.core.errors import ClocheError, InputError
from cloche.core.platform import is_alive, process_start
from cloche.core.signature import Columns
from cloche.runtimes.hosted import HostedRuntime
from cloche.runtimes.local_host import LocalHost, start_host

CODE = """
from __future__ import annotations

import os
import signal
import time
from pathlib import Path


class Lengths:
    def load(self) -> None:
        self.extra = float((Path(__file__).parent / "extra.txt").read_text())

    def predict(self, text: list[str]) -> list[float]:
        if "die" in text:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.002)
        return [len(word) + self.extra for word in text]
"""
WORDS = ["a", "bb", "ccc", "dddd"] * 5


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    folder = tmp_path_factory.mktemp("class")
    (folder / "lengths_model.py").write_text(CODE)
    (folder / "extra.txt").write_text("0.5")
    path = list(sys.path)
    yield cloche.pack(
        f"{folder / 'lengths_model.py'}:Lengths",
        {"text": WORDS},
        name="lengths",
        code=[folder / "extra.txt"],
        directory=folder,
    )
    sys.path[:] = path
    del sys.modules["lengths_model"]


def texts(*words: str) -> Columns:
    return {"text": np.array(words, dtype=object)}


def start(bundle: Bundle) -> LocalHost:
    spec = bundle.manifest.runtime
    files = {name: bundle.read(name) for name in spec.files}
    return start_host(spec.entry, bundle.signature, files, bundle.digest)


def runtime_over(bundle: Bundle, *hosts: str) -> HostedRuntime:
    return HostedRuntime(bundle.signature, bundle.digest, timeout_s=15.0, hosts=hosts)


class Load(Threads):
    """Callers who ask without pause, each its own rows, and check every answer."""

    def __init__(self, runtime: HostedRuntime, callers: int) -> None:
        self.answered = 0
        self.wrong: list[Any] = []
        self.failed: list[ClocheError] = []
        self._runtime = runtime
        self._lock = threading.Lock()
        super().__init__(callers)

    def _ask(self, number: int) -> None:
        length = 10 * number
        while not self._stop.is_set():
            length += 1
            try:
                answer = self._runtime.run(texts("x" * length))["value"].tolist()
            except ClocheError as error:
                with self._lock:
                    self.failed.append(error)
                continue
            with self._lock:
                self.answered += 1
                if answer != [length + 0.5]:
                    self.wrong.append((length, answer))

    def goes_on(self, count: int = 50) -> None:
        """Wait for so many more answers."""
        wanted = self.answered + count
        until(lambda: self.answered >= wanted, f"{count} more answers")


def test_kill_9_of_the_host_in_use_costs_at_most_what_was_in_flight_and_the_next_succeed(
    bundle: Bundle,
) -> None:
    callers = 6
    first, second = start(bundle), start(bundle)
    runtime = runtime_over(bundle, first.socket, second.socket)
    try:
        with Load(runtime, callers) as load:
            load.goes_on()
            os.kill(first.pid, signal.SIGKILL)
            load.goes_on(200)
            failed = len(load.failed)
            load.goes_on(200)
    finally:
        runtime.close()
        first.close()
        second.close()

    assert failed <= callers
    assert len(load.failed) == failed, "failures ended with those in flight"
    assert not load.wrong


def test_kill_9_of_every_host_makes_callers_wait_for_the_next_and_fails_only_those_in_flight(
    bundle: Bundle, tmp_path: Path
) -> None:
    callers = 4
    first = start(bundle)
    path = tmp_path / "s"
    path.symlink_to(first.socket)
    runtime = runtime_over(bundle, str(path))
    try:
        with Load(runtime, callers) as load:
            load.goes_on()
            os.kill(first.pid, signal.SIGKILL)
            until(lambda: not is_alive(first.pid, 0), "the host is gone")
            second = start(bundle)
            path.unlink()
            path.symlink_to(second.socket)
            load.goes_on(100)
    finally:
        runtime.close()
        first.close()
        second.close()

    assert len(load.failed) <= callers
    assert not load.wrong


def test_a_row_that_kills_is_refused_while_others_are_answered(bundle: Bundle) -> None:
    with cloche.load(bundle, allow_code=True) as loaded:
        with pytest.raises(InputError) as caught:
            loaded.run({"text": ["die"]})
        assert loaded.predict({"text": ["bb", "a"]}).tolist() == [2.5, 1.5]

    assert caught.value.code == "CL-E118"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_local_host_ends_when_its_parent_is_gone(bundle: Bundle, tmp_path: Path, number: signal.Signals) -> None:
    program = (
        "import time\nfrom pathlib import Path\nimport cloche\nfrom cloche.bundle.bundle import Bundle\n"
        f"loaded = cloche.load(Bundle.open(Path({str(bundle.path)!r}), None), allow_code=True)\n"
        "runtime = loaded._runtimes[0]\n"
        "print(runtime.host_pid, runtime._host.socket, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert parent.stdout is not None
    try:
        pid, path = parent.stdout.readline().split()
        begun = process_start(int(pid))
        assert is_alive(int(pid), begun)
        parent.send_signal(number)
        parent.wait(10)
    finally:
        parent.kill()
        parent.stdout.close()

    until(lambda: not is_alive(int(pid), begun), "the host ends")
    assert not Path(path).parent.exists()


SCRIPT = """
import cloche


class Halves:
    def load(self) -> None: ...

    def predict(self, n: list[float]) -> list[float]:
        return [value / 2 for value in n]

"""
PACKING = 'bundle = cloche.pack(Halves, [1.0, 2.0], name="halves")\nprint(bundle.manifest.runtime.entry)\n'


def run_script(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "halves.py").write_text(script)
    return subprocess.run(
        [sys.executable, "halves.py"], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_script_may_pack_the_class_that_it_defines_under_a_main_guard(tmp_path: Path) -> None:
    guarded = SCRIPT + 'if __name__ == "__main__":\n' + "".join(f"    {line}\n" for line in PACKING.splitlines())

    done = run_script(tmp_path, guarded)
    assert (done.stdout, done.returncode) == ("code/halves.py:Halves\n", 0), done.stderr

    done = run_script(tmp_path, SCRIPT + PACKING)
    assert done.returncode != 0
    assert "packs or loads it when it is imported" in done.stderr


class Supervised:
    """What a supervisor gives a host, without the supervisor."""

    def __init__(self, folder: Path, bundle: Bundle, trusted: list[str]) -> None:
        self.board = Board(folder / "board")
        self.socket = folder / "host-0.sock"
        self._folder = folder
        self._task = {
            "slot": 1,
            "role": "host",
            "board": str(self.board.path),
            "control": str(folder / "control-1"),
            "digest": "wish",
            "orphan_s": 600.0,
            "lame_duck_s": 0.0,
            "config": {
                "digest": bundle.digest,
                "bundle": str(bundle.path),
                "socket": str(self.socket),
                "trusted": trusted,
            },
        }
        self.children: list[Child] = []

    def start(self) -> Child:
        argv = (sys.executable, "-P", "-m", "cloche.app.host")
        no_sockets: list[socket.socket] = []
        child = Child.spawn(argv, self._task, no_sockets, self._folder)
        self.children.append(child)
        return child

    def wait_ready(self, child: Child) -> None:
        def is_ready() -> bool:
            assert not child.is_dead(), "the host ended before it was ready"
            return self.board.head(1, Head.PID) == child.pid and self.board.head(1, Head.STATE) == State.READY

        until(is_ready, "the host is ready")

    def close(self) -> None:
        for child in self.children:
            if not child.is_dead():
                child.signal(signal.SIGKILL)
                until(child.is_dead, "the host is dead")
            child.close()
        self.board.cells.release()


@pytest.fixture
def supervised(bundle: Bundle, tmp_path: Path) -> Iterator[Supervised]:
    held = Supervised(tmp_path, bundle, [bundle.signer])
    yield held
    held.close()


def test_a_supervised_host_serves_its_bundle_and_drains_on_sigterm(bundle: Bundle, supervised: Supervised) -> None:
    child = supervised.start()
    supervised.wait_ready(child)
    assert supervised.board.heads(Role.HOST) == [1]
    runtime = runtime_over(bundle, str(supervised.socket))
    assert runtime.run(texts("a", "bb"))["value"].tolist() == [1.5, 2.5]
    runtime.close()

    child.signal(signal.SIGTERM)
    until(child.is_dead, "the host ends")

    assert child.status == 0
    assert not supervised.socket.exists()


def test_a_supervised_host_that_is_killed_and_started_again_takes_its_place(
    bundle: Bundle, supervised: Supervised
) -> None:
    first = supervised.start()
    supervised.wait_ready(first)
    runtime = runtime_over(bundle, str(supervised.socket))
    callers = 4
    with Load(runtime, callers) as load:
        load.goes_on()
        first.signal(signal.SIGKILL)
        until(first.is_dead, "the host is dead")
        supervised.wait_ready(supervised.start())
        load.goes_on()
    runtime.close()

    assert len(load.failed) <= callers
    assert not load.wrong


def test_a_supervised_host_refuses_a_bundle_that_nobody_trusted_signed_and_says_so(
    bundle: Bundle, tmp_path: Path
) -> None:
    held = Supervised(tmp_path, bundle, ["0" * 64])
    try:
        child = held.start()
        until(child.is_dead, "the host ends")
        while child.listen():
            pass
        assert child.status == 4
        assert "CL-E405" in child.words
        assert not held.socket.exists()
    finally:
        held.close()
