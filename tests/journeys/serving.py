"""A project folder, `cloche up` as a real process, and a load on it: what the journeys are made of."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cloche.app.up import runtime_folder
from cloche.core.board import Board, Head, Role
from cloche.settings import load_settings

LOAD = Path(__file__).parents[2] / "benchmarks" / "load.py"
#: Stands in the environment of all processes of a project, and tells them from other projects'.
_MARK = "JOURNEY_IN"
COMMAND = str(Path(sys.executable).parent / "cloche")


def until(condition: Callable[[], Any], what: str = "what was waited for", seconds: float = 20.0) -> Any:
    """The first true value of the condition; fails when there is none in time."""
    ends = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < ends, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return value


def cloche(
    folder: Path, *arguments: str, check: bool = True, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command of the CLI in a folder."""
    done = subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


@dataclass
class Answer:
    """An Answer is a status, headers with lower-case names, and a body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Serving:
    """A Serving is one `cloche up`: its process is the supervisor."""

    def __init__(
        self,
        folder: Path,
        process: subprocess.Popen[bytes],
        log: Path,
        url: str,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.context = context
        self.folder = folder
        self.process = process
        self.log = log
        self.url = url
        #: Load generators that a test which failed may have left behind.
        self.loads: list[subprocess.Popen[bytes]] = []

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
    ) -> Answer:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        named = {"content-type": "application/json"} if data is not None else {}
        request = urllib.request.Request(
            self.url + path, data, {**named, **(headers or {})}, method=method or ("POST" if data else "GET")
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=self.context) as answer:
                return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.ask("/readyz", timeout=2).status == 200
        return False

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        total = 0.0
        for line in self.ask("/metrics").body.decode().splitlines():
            is_it = line.startswith((f"{name}{{", f"{name} "))
            if is_it and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rpartition(" ")[2])
        return total

    def children(self) -> dict[str, list[int]]:
        """The living processes of this project's workers and hosts, by kind, whoever their parent is."""
        found: dict[str, list[int]] = {"worker": [], "host": [], "controller": []}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                kind = next((kind for kind in found if f"cloche.app.{kind}".encode() in words), None)
                is_zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
                if (
                    kind
                    and not is_zombie
                    and f"{_MARK}={self.folder}\0".encode() in (entry / "environ").read_bytes()
                ):
                    found[kind].append(int(entry.name))
        return found

    def standing(self, kind: str) -> list[int]:
        """Those of `children` that stand on the board: workers among them hold the sockets, whoever dies."""
        settings = load_settings(directory=self.folder, environ=os.environ)
        board = Board(runtime_folder(settings) / "board")
        known = {board.head(slot, Head.PID) for slot in board.heads(Role[kind.upper()])}
        return [pid for pid in self.children()[kind] if pid in known]

    def stop(self, how: int = signal.SIGTERM, seconds: float = 30.0) -> int:
        """Ask the supervisor to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(seconds)

    def kill_all(self) -> None:
        """End whatever of it still runs, by process id."""
        for pid in [self.process.pid, *(pid for pids in self.children().values() for pid in pids)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


@contextlib.contextmanager
def up(
    folder: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    context: ssl.SSLContext | None = None,
) -> Iterator[Serving]:
    """`cloche up …` on a free port, ready; nothing of it is left afterwards."""
    process, log = _start(folder, arguments, env)
    serving = Serving(folder, process, log, "", context)
    try:
        serving.url = _announced(process, log)
        until(serving.is_ready, "readyz")
        yield serving
        serving.stop()
    except BaseException:
        for load in serving.loads:
            load.kill()
            load.communicate()
        raise
    finally:
        serving.kill_all()


def again(serving: Serving, *arguments: str, new_address: bool = False) -> None:
    """`cloche up` once more after its supervisor's death; it takes over what runs, address and all."""
    serving.process, serving.log = _start(serving.folder, arguments)
    url = _announced(serving.process, serving.log)
    assert new_address or url == serving.url
    serving.url = url


def _start(
    folder: Path, arguments: tuple[str, ...], env: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], Path]:
    log = folder / f"up-{time.monotonic_ns()}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [COMMAND, "up", *arguments, "--port", "0"],
            cwd=folder,
            env={**os.environ, _MARK: str(folder), **(env or {})},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    return process, log


def _announced(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address that the banner names, once it is there."""

    def url() -> str | None:
        assert process.poll() is None, f"cloche up ended with {process.returncode}:\n{log.read_text()}"
        found = re.search(r"(https?://[^/\s]+)/predict/", log.read_text())
        return found[1] if found else None

    return str(until(url, "cloche up is ready", 60.0))


class Load:
    """A Load is the load generator running beside the test."""

    def __init__(self, serving: Serving, path: str, body: Any, *options: str) -> None:
        file = serving.folder / f"body-{time.monotonic_ns()}.json"
        file.write_bytes(json.dumps(body).encode())
        self._process = subprocess.Popen(
            [sys.executable, str(LOAD), "--url", serving.url + path, "--body", str(file), *options],
            stdout=subprocess.PIPE,
        )
        serving.loads.append(self._process)

    def result(self) -> dict[str, Any]:
        out, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0
        return json.loads(out)


class Threads:
    """A Threads is callers that go on from `with` until its end, in threads of their own; each runs `_ask`."""

    def __init__(self, count: int) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, number: int) -> None:
        raise NotImplementedError


def in_background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
