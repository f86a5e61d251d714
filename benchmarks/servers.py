"""A server under measurement: started on its own core, asked until it answers, weighed, and ended for good."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any, NamedTuple

from field import Row, Server

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
START_LIMIT_S = 90


class ServerFailedError(Exception):
    """The server did not start, or answered wrongly; the message says which."""


class Weight(NamedTuple):
    """What the processes of a server hold and have used."""

    processes: int
    rss_mib: float
    largest_mib: float
    cpu_s: float


class Running:
    """A Running is a started server and its processes."""

    def __init__(self, server: Server, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.server, self.process, self.port, self.log = server, process, port, log
        self.start_s = 0.0
        self.members: dict[int, int] = {}  # pid to start time, so that a reused pid is never taken for a member

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.server.path}"

    def ask(self, row: Row) -> Any:
        """The label that the server gives `row`; raises OSError or ServerFailedError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            body, headers = self.server.request(row)
            connection.request("POST", self.server.path, body, {"Content-Type": "application/json"} | headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise ServerFailedError(f"answered {answer.status}: {content[:200].decode(errors='replace')}")
            return self.server.label(json.loads(content))
        finally:
            connection.close()

    def verify(self, rows: list[Row], labels: list[Any], same: Callable[[Any, Any], bool]) -> None:
        """Raise ServerFailedError unless each row gets the model's own answer (the echo: its own bytes)."""
        for row, label in zip(rows, labels, strict=True):
            wanted = self.server.body(row) if self.server.family == "limit" else label
            if not same(got := self.ask(row), wanted):
                raise ServerFailedError(f"gave a wrong answer: {got!r}, the model says {wanted!r}")

    def weigh(self) -> Weight:
        """Count the server's living processes, their memory and the CPU time they have used."""
        rss, cpu = [], 0.0
        for pid in self.find():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                cpu += (int(fields[11]) + int(fields[12])) / TICKS
                rss.append(int(fields[21]) * PAGE / 2**20)
        return Weight(len(rss), sum(rss), max(rss, default=0.0), cpu)

    def find(self) -> list[int]:
        """The pids of the server: what it has started, also what has since lost its parent or left its session."""
        parents: dict[int, int] = {}
        started: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    if fields[0] != "Z":  # an orphan's corpse that nobody collects is no process any more
                        parents[int(entry.name)], started[int(entry.name)] = int(fields[1]), int(fields[19])
        self.members = {pid: began for pid, began in self.members.items() if started.get(pid) == began}
        if self.process.poll() is None and self.process.pid in started:
            self.members[self.process.pid] = started[self.process.pid]
        grown = True
        while grown:
            new = [pid for pid, parent in parents.items() if parent in self.members and pid not in self.members]
            self.members |= {pid: started[pid] for pid in new}
            grown = bool(new)
        return sorted(self.members)

    def wait(self, row: Row, began: float) -> None:
        """Wait for the first answer and note how long it took since `began`."""
        while True:
            if self.process.poll() is not None:
                raise ServerFailedError(f"ended with {self.process.returncode}: {self.last_words()}")
            try:
                self.ask(row)
                self.start_s = perf_counter() - began
                return
            except (OSError, http.client.HTTPException, ServerFailedError) as error:
                if perf_counter() - began > START_LIMIT_S:
                    raise ServerFailedError(
                        f"not up after {START_LIMIT_S} s: {error}; {self.last_words()}"
                    ) from error
            sleep(0.01)

    def last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it said nothing"

    def stop(self) -> None:
        """End every process of the server, kindly first; none is left behind."""
        self.find()
        for number, patience_s in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
            targets = [self.process.pid] if number == signal.SIGTERM else self.find()
            for pid in targets:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = monotonic() + patience_s
            while monotonic() < deadline:
                if self.process.poll() is not None and not self.find():
                    return
                sleep(0.02)


@contextlib.contextmanager
def started(
    server: Server, command: list[str], port: int, *, core: int, folder: Path, environ: Mapping[str, str], row: Row
) -> Iterator[Running]:
    """Start `command` with all it starts on `core`; yields once `row` was answered."""
    log = folder / "log"
    began = perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *command],
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Running(server, process, port, log)
    try:
        running.wait(row, began)
        yield running
    finally:
        running.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
