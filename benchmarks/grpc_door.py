"""How fast the gRPC door answers, beside HTTP's: a worker on one core, one row, 1 and 16 calls at a time.

The client speaks raw frames over one connection, so that it takes little of the other core; its answers are
checked for a status of OK. The server is a worker without supervisor and controller, on loopback.

    python benchmarks/grpc_door.py        # prints the table
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import load as generator
import msgspec
import numpy as np
import uvloop
from field import PEERS
from hpack import Encoder
from request_path import PATH, _cpu_s, _deployed, _row

from cloche.app.desired import Desired, Wished
from cloche.app.versions import Versions, load
from cloche.core.board import Board, Role
from cloche.core.keys import mint_key
from cloche.serving.grpc.inference import INFER
from cloche.serving.grpc.messages import ModelInferRequest
from cloche.serving.grpc.server import GrpcServer
from cloche.serving.http import App
from cloche.serving.keyring import FollowedKeys
from cloche.serving.pages import Pages
from cloche.serving.server import Server
from cloche.serving.state import WorkerState

STREAMS = (1, 16)
WINDOW_S = 1.0
DOORS = ("http", "grpc")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7


class Calls:
    """A Calls is one connection that keeps so many calls in flight, and notes how long each took."""

    def __init__(self, port: int, message: bytes, streams: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        encoder = Encoder()
        fields = [(":method", "POST"), (":scheme", "http"), (":path", INFER.decode()), (":authority", "a")]
        fields += [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "10S")]
        self._first, self._rest = encoder.encode(fields), encoder.encode(fields)
        self._data = struct.pack("!BI", 0, len(message)) + message
        self._streams = streams
        self._next = 1
        self._buffer = b""
        self._messages = 0  # that came, less the calls that ended: an error comes without one
        self._began: dict[int, int] = {}
        settings = struct.pack("!HI", 4, 2**31 - 1)  # answers need not wait for room
        window = struct.pack("!I", 2**31 - 1 - 65535)
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(8, 0, 0, window))

    def run(self, seconds: float) -> list[int]:
        """Nanoseconds of each call that was answered within the window."""
        took: list[int] = []
        ends = time.perf_counter_ns() + int(seconds * 1e9)
        self._socket.sendall(b"".join(self._call() for _ in range(self._streams - len(self._began))))
        while time.perf_counter_ns() < ends:
            answered = self._read()
            now = time.perf_counter_ns()
            took += [now - self._began.pop(stream) for stream in answered]
            self._socket.sendall(b"".join(self._call() for _ in answered))
        while self._began:
            for stream in self._read():
                del self._began[stream]
        return took

    def _call(self) -> bytes:
        stream, self._next = self._next, self._next + 2
        head = self._first if stream == 1 else self._rest
        self._began[stream] = time.perf_counter_ns()
        return _frame(_HEADERS, 4, stream, head) + _frame(0, 1, stream, self._data)

    def _read(self) -> list[int]:
        """The calls whose answers have ended."""
        data = self._buffer + self._socket.recv(1 << 18)
        ended, at = [], 0
        while len(data) - at >= 9:
            length, kind, flags, stream = int.from_bytes(data[at : at + 3]), data[at + 3], data[at + 4], 0
            if len(data) - at < 9 + length:
                break
            stream = int.from_bytes(data[at + 5 : at + 9])
            payload = data[at + 9 : at + 9 + length]
            at += 9 + length
            if kind in (_RESET, _GOAWAY):
                raise RuntimeError(f"the server gave up: {payload!r}")
            if kind == _SETTINGS and not flags & 1:
                self._socket.sendall(_frame(_SETTINGS, 1, 0, b""))
            elif kind == _PING and not flags & 1:
                self._socket.sendall(_frame(_PING, 1, 0, payload))
            elif kind == _DATA and length:
                self._messages += 1
            elif kind == _HEADERS and flags & 1:
                self._messages -= 1
                ended.append(stream)
                if self._messages < 0:
                    raise RuntimeError(f"a call failed: {payload!r}")
        self._buffer = data[at:]
        return ended


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def measure(*, seconds: float) -> list[dict[str, Any]]:
    """A line for each door and number of calls in flight; the windows of all are interleaved."""
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory(prefix="door-") as folder, contextlib.ExitStack() as stack:
        environ = os.environ | {"CLOCHE_DATA": f"{folder}/data"}
        prepare = [sys.executable, str(PEERS / "cloche" / "prepare.py"), folder]
        subprocess.run(prepare, env=environ, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        key = mint_key("bench", created=time.time())  # the part that is shared with request_path.py reads one
        (Path(folder) / "key.json").write_bytes(msgspec.json.encode(key.record))
        running = {door: stack.enter_context(_started(door, folder, environ)) for door in DOORS}
        seen: dict[tuple[str, int], list[dict[str, float]]] = {}
        for number in range(-1, max(3, round(seconds / WINDOW_S))):
            for door, streams in itertools.product(DOORS, STREAMS):
                port, pid = running[door]
                before = _cpu_s(pid)
                line = (_http if door == "http" else _grpc)(port, streams)
                line["cpu_us"] = (_cpu_s(pid) - before) / line.pop("requests") * 1e6
                if number >= 0:  # the first window warms up
                    seen.setdefault((door, streams), []).append(line)
    return [
        {"door": door, "streams": streams}
        | {name: statistics.median(one[name] for one in lines) for name in lines[0]}
        for (door, streams), lines in seen.items()
    ]


def _http(port: int, streams: int) -> dict[str, float]:
    result = generator.run(
        generator.target(f"http://127.0.0.1:{port}{PATH}", _row()), connections=streams, duration_s=WINDOW_S
    )
    assert not result.errors
    return {
        "rps": result.requests_per_second, "p50_ms": result.p50_ms, "p99_ms": result.p99_ms,
        "requests": result.requests,
    }  # fmt: skip


def _grpc(port: int, streams: int) -> dict[str, float]:
    row = np.array(json.loads(_row())["x"], np.float64)
    message = ModelInferRequest(model_name="cancer", raw_input_contents=[row.tobytes()])
    message.inputs.add(name="x", datatype="FP64", shape=[1, len(row)])
    calls = Calls(port, message.SerializeToString(), streams)
    took = sorted(calls.run(WINDOW_S))
    return {
        "rps": len(took) / WINDOW_S, "p50_ms": took[len(took) // 2] / 1e6,
        "p99_ms": took[int(len(took) * 0.99)] / 1e6, "requests": len(took),
    }  # fmt: skip


@contextlib.contextmanager
def _started(door: str, folder: str, environ: dict[str, str]) -> Iterator[tuple[int, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.listen(1024)
        command = ["taskset", "--cpu-list", "0", sys.executable, __file__, "--serve", door]
        command += ["--descriptor", str(listening.fileno()), "--folder", folder]
        process = subprocess.Popen(command, env=environ, pass_fds=[listening.fileno()], cwd=folder)
        port = listening.getsockname()[1]
    try:
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(10)


async def _serve(door: str, folder: Path, listening: socket.socket) -> None:
    deployed, trusted, records = _deployed(folder, with_key=False)
    with tempfile.TemporaryDirectory(prefix="board-") as place:
        board = Board(Path(place) / "board")
        member: Any = SimpleNamespace(board=board, slot=board.claim(0, Role.WORKER, os.getpid(), 1))
        state = WorkerState()
        loop = asyncio.get_running_loop()
        versions = Versions(
            lambda one: load(one, trusted, 60.0), member, state, FollowedKeys(records), loop, loopback=True
        )
        table = versions.table(Desired(revision=0, deployments=(Wished(stable=deployed),)))
        app = App(table, Pages(table, member.board, state), state, max_body=16_000_000)
        server: Any = (Server if door == "http" else GrpcServer)(app, state, [listening])
        await server.start()
        state.is_ready = True
        while True:
            server.tick()
            await asyncio.sleep(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of load on each line")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--descriptor", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(options.serve, options.folder, socket.socket(fileno=options.descriptor)))
    for line in measure(seconds=options.seconds):
        print(
            f"{line['door']:8} {line['streams']:3} at a time {line['rps']:8,.0f} req/s"
            f"  p50 {line['p50_ms']:.3f} ms  p99 {line['p99_ms']:.3f} ms {line['cpu_us']:6.1f} µs of CPU a request"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
