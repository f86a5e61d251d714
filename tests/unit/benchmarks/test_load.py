"""The load generator tells the truth about servers that misbehave."""

from __future__ import annotations

import itertools
import json
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the load generator needs epoll")

LOAD = Path(__file__).parents[3] / "benchmarks" / "load.py"
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def server(answer: Callable[[int], list[bytes]]) -> Iterator[int]:
    """A server whose n-th answer is sent in the pieces that `answer(n)` gives; an empty list hangs up."""
    numbers = itertools.count()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while head := self._head():
                length = next((int(h.split(b":")[1]) for h in head if h.lower().startswith(b"content-length")), 0)
                self.rfile.read(length)
                pieces = answer(next(numbers))
                for piece in pieces:
                    self.wfile.write(piece)
                if not pieces or b"connection: close" in pieces[0].lower():
                    return

        def _head(self) -> list[bytes]:
            try:
                return [line for line in iter(self.rfile.readline, b"\r\n") if line] if self._more() else []
            except OSError:
                return []

        def _more(self) -> bool:
            return bool(self.rfile.peek(1))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield listening.server_address[1]
        finally:
            listening.shutdown()
            thread.join()


def load(port: int, tmp_path: Path, *options: str, duration: float = 0.4) -> dict[str, Any]:
    body = tmp_path / "body.json"
    body.write_text("{}")
    command = [sys.executable, str(LOAD), "--url", f"http://127.0.0.1:{port}/", "--body", str(body)]
    command += ["--duration", str(duration), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize(
    "pieces",
    [
        [GOOD],
        [b"HTTP/1.1 200 OK\r\ncontent-LENGTH:2\r\n\r\n", b"o", b"k"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"0\r\n\r\n"],
        [b"HTTP/1.1 204 No Content\r\n\r\n"],
    ],
    ids=["whole", "in pieces", "in chunks", "without a body"],
)
def test_answers_of_every_form_are_counted_once(pieces: list[bytes], tmp_path: Path) -> None:
    served = itertools.count()

    def answer(number: int) -> list[bytes]:
        next(served)
        return pieces

    with server(answer) as port:
        result = load(port, tmp_path, "--connections", "4")
    assert result["requests"] == next(served) > 20
    assert result["non_2xx"] == result["resets"] == result["refused"] == result["timeouts"] == 0


def test_refusals_by_answer_are_told_apart_from_broken_connections(tmp_path: Path) -> None:
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    counts = {"refusals": 0, "broken": 0}

    def answer(number: int) -> list[bytes]:
        if number % 5 == 0:
            counts["broken"] += 1
            return []
        if number % 3 == 0:
            counts["refusals"] += 1
            return [refusal]
        return [GOOD]

    with server(answer) as port:
        result = load(port, tmp_path, "--connections", "2")
    assert result["statuses"]["503"] == result["non_2xx"] == counts["refusals"] > 0
    assert result["resets"] == counts["broken"] > 0


def test_a_connection_that_the_server_announces_to_close_loses_nothing(tmp_path: Path) -> None:
    closing = GOOD.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
    with server(lambda number: [closing if number % 4 == 0 else GOOD]) as port:
        result = load(port, tmp_path, "--connections", "4")
    assert result["requests"] > 20
    assert result["resets"] == result["refused"] == 0


def test_an_open_loop_counts_the_wait_of_requests_that_a_stall_kept_from_being_sent(tmp_path: Path) -> None:
    def answer(number: int) -> list[bytes]:
        if number == 20:
            time.sleep(0.4)
        return [GOOD]

    options = ["--connections", "1", "--rate", "100"]
    with server(answer) as port:
        result = load(port, tmp_path, *options, duration=1.0)
    # 40 of 100 requests were due during the stall; a generator that waits with the server sees one slow answer
    assert result["requests"] + result["timeouts"] == 100
    assert result["p90_ms"] > 200
    assert result["p99_ms"] > 350


def test_a_request_without_an_answer_is_given_up_and_counted(tmp_path: Path) -> None:
    never = threading.Event()

    def answer(number: int) -> list[bytes]:
        if number == 3:
            never.wait(5)
        return [GOOD]

    with server(answer) as port:
        result = load(port, tmp_path, "--connections", "1", "--timeout", "0.2", duration=0.6)
        never.set()
    assert result["timeouts"] == 1
    assert result["requests"] > 3


def test_a_server_that_is_not_there_refuses(free_port: int, tmp_path: Path) -> None:
    result = load(free_port, tmp_path, "--connections", "1")
    assert result["requests"] == 0
    assert result["refused"] > 1
