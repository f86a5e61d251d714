"""A small and very fast HTTP/1.1 load generator on raw sockets, faster on one core than any server it measures.

Closed loop: each of `--connections` kept-alive connections sends its next request when its answer has come.
Open loop (`--rate`): requests are due at fixed times, whatever the server does, and each latency counts from the
moment its request was due, so a server that stalls can't hide the requests it kept waiting (coordinated omission).

    python benchmarks/load.py --url http://127.0.0.1:8080/predict/fraud --body row.json --connections 16

Prints one JSON object. What went wrong is told apart: `non_2xx` (an answer came), `resets` (the connection broke
before the answer), `refused` (no connection was to be had), `timeouts` (no answer in `--timeout` seconds).
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import select
import socket
from array import array
from collections import deque
from pathlib import Path
from time import perf_counter_ns, thread_time_ns
from urllib.parse import urlsplit

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
RECEIVE = 65_536
RETRY_S = 0.005  # between attempts to connect to a server that refuses
SWEEP = SECOND // 10  # between looks for requests that have waited too long


@dataclasses.dataclass(frozen=True)
class Target:
    """A Target is an address and the bytes of the one request that is sent to it."""

    host: str
    port: int
    request: bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A Result is what one run saw; latencies are in milliseconds, of the 2xx answers."""

    connections: int
    rate: float | None
    seconds: float
    requests: int
    requests_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    statuses: dict[str, int]
    non_2xx: int
    resets: int
    refused: int
    timeouts: int
    ended_s: float  #: when the last request could be sent, by `time.monotonic`
    client_cpu_us: float  #: of the generator itself, a request; an open loop spins, so there it says nothing

    @property
    def errors(self) -> int:
        """Everything that was not a 2xx answer."""
        return self.non_2xx + self.resets + self.refused + self.timeouts


def target(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Target:
    """Make the request for `url`: a POST of JSON where there is a body, else a GET."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = {"Host": f"{host}:{port}", "Accept": "application/json"}
    if body is not None:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    fields |= headers or {}
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
    return Target(host, port, "\r\n".join([*lines, "", ""]).encode() + (body or b""))


def run(
    to: Target,
    *,
    connections: int = 16,
    duration_s: float = 5.0,
    rate: float | None = None,
    warmup_s: float = 0.0,
    timeout_s: float = 10.0,
    naps: bool = False,
) -> Result:
    """Send requests for `warmup_s` + `duration_s` seconds and say how the last `duration_s` of them went.

    With `rate` the loop is open, and `connections` is how many it may hold at most. Requests in flight at the
    end are waited for (up to `timeout_s`), so that one lost at the end is seen. An open loop that `naps` sleeps a
    millisecond at a time: the core is the server's meanwhile, and times are exact to two milliseconds.
    """
    load = _Load(to, connections, timeout_s)
    gc.collect()
    gc.disable()
    spent = thread_time_ns()
    started = perf_counter_ns()
    begin = started + int(warmup_s * SECOND)
    end = begin + int(duration_s * SECOND)
    try:
        if rate is None:
            load.closed_loop(begin, end)
        else:
            load.open_loop(started, begin, end, rate, MILLISECOND if naps else 0)
    finally:
        gc.enable()
        load.close()
    return load.result(rate, duration_s, thread_time_ns() - spent)


class _Connection:
    """One kept-alive connection with at most one request in flight."""

    __slots__ = ("closes", "fd", "partial", "socket", "started", "unsent")

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.fd = -1
        self.started = 0  # when the request in flight was sent, or was due; 0 while idle
        self.partial = b""  # of an answer that has not all come
        self.unsent = b""  # of a request that did not fit into the socket's buffer
        self.closes = False  # the last answer said that the connection ends with it


class _Load:
    """The state of one run: connections, what they wait for, and the counts."""

    def __init__(self, to: Target, connections: int, timeout_s: float) -> None:
        self.to = to
        self.timeout = int(timeout_s * SECOND)
        self.limit = connections
        self.poller = select.epoll()  # Linux only, and a third faster than `selectors`
        self.by_fd: dict[int, _Connection] = {}
        self.latencies = array("q")
        self.statuses: dict[bytes, int] = {}
        self.resets = self.refused = self.timeouts = self.in_window = self.sent = 0
        self.begin = self.end = self.sweep_at = 0
        self.length_field = b"\r\ncontent-length: "

    def connect(self, connection: _Connection) -> bool:
        """Connect, or count a refusal."""
        try:
            opened = socket.create_connection((self.to.host, self.to.port), timeout=2)
        except OSError:
            if self.begin <= perf_counter_ns() < self.end:
                self.refused += 1
            return False
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setblocking(False)
        connection.socket, connection.fd = opened, opened.fileno()
        connection.partial = connection.unsent = b""
        connection.started, connection.closes = 0, False
        self.by_fd[connection.fd] = connection
        self.poller.register(connection.fd, select.EPOLLIN)
        return True

    def drop(self, connection: _Connection) -> None:
        if connection.socket is not None:
            self.poller.unregister(connection.fd)
            del self.by_fd[connection.fd]
            connection.socket.close()
            connection.socket = None
            connection.started = 0

    def send(self, connection: _Connection, started: int) -> None:
        """Send the request; what the kernel can't take now is sent when it can."""
        connection.started = started
        self.sent += 1
        self.push(connection, self.to.request)

    def push(self, connection: _Connection, data: bytes) -> None:
        assert connection.socket is not None
        try:
            sent = connection.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.lost(connection)
            return
        if sent < len(data):
            connection.unsent = data[sent:]
            self.poller.modify(connection.fd, select.EPOLLIN | select.EPOLLOUT)
        elif connection.unsent:
            connection.unsent = b""
            self.poller.modify(connection.fd, select.EPOLLIN)

    def lost(self, connection: _Connection) -> None:
        """The connection broke: a reset where a request was in flight, nothing where it was idle."""
        if connection.started and connection.started >= self.begin:
            self.resets += 1
        self.drop(connection)

    def answered(self, connection: _Connection) -> bool:
        """Read what came; True when the whole answer is there, and then it has been counted."""
        assert connection.socket is not None
        try:
            data = connection.socket.recv(RECEIVE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.lost(connection)
            return False
        data, connection.partial = connection.partial + data, b""
        head = data.find(b"\r\n\r\n")
        if head >= 0:
            at = data.find(self.length_field, 0, head)
            if at >= 0:
                at += len(self.length_field)
                whole = head + 4 + int(data[at : data.find(b"\r", at)]) <= len(data)
            else:
                whole = self.whole(data, head)
            if whole:
                now = perf_counter_ns()
                status = data[9:12]
                if connection.started >= self.begin:
                    self.statuses[status] = self.statuses.get(status, 0) + 1
                if status[0] == 50:  # "2"
                    self.in_window += self.begin <= now < self.end
                    if connection.started >= self.begin:
                        self.latencies.append(now - connection.started)
                connection.started = 0
                said_close = data.find(b"lose", 0, head) >= 0 and b"\nconnection: close" in data[:head].lower()
                connection.closes = said_close or bool(connection.unsent)
                return True
        connection.partial = data
        return False

    def whole(self, data: bytes, head: int) -> bool:
        """The slow way, for servers that spell Content-Length otherwise (it is learnt) or answer in chunks."""
        lower = data[:head].lower()
        at = lower.find(b"\r\ncontent-length:")
        if at >= 0:
            end = at + len(b"\r\ncontent-length:")
            length = lower[end:].split(b"\r", 1)[0]
            self.length_field = data[at : end + len(length) - len(length.lstrip())]
            return head + 4 + int(length) <= len(data)
        if b"\r\ntransfer-encoding: chunked" not in lower:
            return data[9:12] in (b"204", b"304")
        at = head + 4
        while (line := data.find(b"\r\n", at)) >= 0:
            size = int(data[at:line].split(b";")[0], 16)
            at = line + 2 + size + 2
            if size == 0:
                return at <= len(data)
        return False

    def closed_loop(self, begin: int, end: int) -> None:
        """Each connection sends its next request when its answer has come."""
        self.begin, self.end = begin, end
        everyone = [_Connection() for _ in range(self.limit)]
        idle = list(everyone)
        now = perf_counter_ns()
        while now < end:
            for _ in range(len(idle)):
                connection = idle.pop(0)
                if self.connect(connection):
                    self.send(connection, perf_counter_ns())
                if connection.socket is None:
                    idle.append(connection)
            self.collect(RETRY_S if idle else 0.1, idle, again=True)
            now = self.sweep(everyone, idle)
        self.finish(everyone)

    def open_loop(self, started: int, begin: int, end: int, rate: float, least: int) -> None:
        """Send at `rate` a second, on connections that are free, or else as soon as one is."""
        self.begin, self.end = begin, end
        interval = SECOND / rate
        waiting: deque[int] = deque()
        everyone: list[_Connection] = []
        idle: list[_Connection] = []
        count, due = 0, started
        now = perf_counter_ns()
        while now < end:
            while due <= now and due < end:
                waiting.append(due)
                count += 1
                due = started + int(count * interval)
            while waiting and (idle or len(everyone) < self.limit):
                if not idle:
                    everyone.append(_Connection())
                    idle.append(everyone[-1])
                connection, scheduled = idle.pop(), waiting.popleft()
                if connection.socket is not None or self.connect(connection):
                    self.send(connection, scheduled)
                if connection.socket is None:
                    idle.append(connection)
            # the finest sleep is a millisecond, so the last one is spent looking
            self.collect(max(least, due - now - MILLISECOND) // MILLISECOND / 1000, idle)
            now = self.sweep(everyone, idle)
        self.finish(everyone)
        # those that were due and never sent waited as well, and without an answer
        self.timeouts += sum(due >= begin for due in waiting)

    def collect(self, wait_s: float, idle: list[_Connection], *, again: bool = False) -> None:
        """Take in what comes within `wait_s`; who got an answer asks `again`, or joins `idle`."""
        for fd, event in self.poller.poll(wait_s):
            connection = self.by_fd[fd]
            was_idle = not connection.started
            if event & select.EPOLLOUT:
                self.push(connection, connection.unsent)
            elif self.answered(connection):
                if connection.closes or was_idle:  # an idle connection is told nothing but that it ends
                    self.drop(connection)
                elif again:
                    self.send(connection, perf_counter_ns())
                else:
                    idle.append(connection)
            if connection.socket is None and not was_idle:
                idle.append(connection)

    def sweep(self, everyone: list[_Connection], idle: list[_Connection]) -> int:
        """Give up on requests that have waited too long; looks ten times a second, and returns the time."""
        now = perf_counter_ns()
        if now >= self.sweep_at:
            self.sweep_at = now + SWEEP
            for connection in everyone:
                if connection.started and now - connection.started > self.timeout:
                    self.timeouts += connection.started >= self.begin
                    self.drop(connection)
                    idle.append(connection)
        return now

    def finish(self, everyone: list[_Connection]) -> None:
        """Wait for what is in flight, so that a request lost at the end counts."""
        while any(c.started for c in everyone):
            self.collect(0.05, [])
            self.sweep(everyone, [])

    def close(self) -> None:
        for connection in list(self.by_fd.values()):
            self.drop(connection)
        self.poller.close()

    def result(self, rate: float | None, seconds: float, cpu: int) -> Result:
        ordered = sorted(self.latencies)
        statuses = {status.decode("latin-1"): count for status, count in sorted(self.statuses.items())}
        good = sum(count for status, count in statuses.items() if status[0] == "2")
        return Result(
            connections=self.limit,
            rate=rate,
            seconds=seconds,
            requests=good,
            requests_per_second=round(self.in_window / seconds, 1),
            p50_ms=_percentile(ordered, 0.50),
            p90_ms=_percentile(ordered, 0.90),
            p99_ms=_percentile(ordered, 0.99),
            max_ms=_percentile(ordered, 1.0),
            statuses=statuses,
            non_2xx=sum(statuses.values()) - good,
            resets=self.resets,
            refused=self.refused,
            timeouts=self.timeouts,
            ended_s=self.end / SECOND,
            client_cpu_us=round(cpu / 1000 / max(1, self.sent), 1),
        )


def _percentile(ordered: list[int], share: float) -> float:
    """The value that `share` of the values don't exceed, nanoseconds to milliseconds; 0 without values."""
    if not ordered:
        return 0.0
    return round(ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))] / MILLISECOND, 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--body", type=Path, help="a file whose bytes are posted; without it a GET is sent")
    parser.add_argument("--header", action="append", default=[], help="K:V, may be repeated")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--duration", type=float, default=5.0, help="seconds")
    parser.add_argument("--warmup", type=float, default=0.0, help="seconds before counting starts")
    parser.add_argument("--rate", type=float, help="requests a second, whatever the server does (open loop)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds until a request is given up")
    parser.add_argument("--nap", action="store_true", help="leave the core to others between two requests")
    parser.add_argument("--core", type=int, help="the core to run on")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    headers = {name.strip(): value.strip() for name, _, value in (each.partition(":") for each in options.header)}
    result = run(
        target(options.url, options.body.read_bytes() if options.body else None, headers),
        connections=options.connections,
        duration_s=options.duration,
        rate=options.rate,
        warmup_s=options.warmup,
        timeout_s=options.timeout,
        naps=options.nap,
    )
    print(json.dumps(dataclasses.asdict(result)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
