"""A whole online door in the test's own process: an App over a small model, on a real loopback socket."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import uvloop

from cloche.core.board import Board, Role, Slot
from cloche.core.keys import KeyRing
from cloche.core.signature import Columns, Field, Signature
from cloche.engine.batcher import Batcher
from cloche.engine.cache import Cache
from cloche.engine.cost import CostLine
from cloche.engine.engine import Engine
from cloche.engine.validate import OnInvalid
from cloche.monitoring.counters import DeploymentCounters
from cloche.serving.guard import Guard, Policy
from cloche.serving.http import App
from cloche.serving.limits import RateLimiter
from cloche.serving.pages import Pages
from cloche.serving.predictions import Deployment, Predictions
from cloche.serving.protocols.base import Live, dialects_for
from cloche.serving.server import Server
from cloche.serving.split import Arm
from cloche.serving.state import WorkerState
from cloche.serving.table import Served, Table

SIGNATURE = Signature(
    inputs=(
        Field(name="age", datatype="INT64", shape=(-1,), minimum=0, maximum=120),
        Field(name="pay", datatype="FP64", shape=(-1,), missing=True),
        Field(name="job", datatype="BYTES", shape=(-1,), categories=("cook", "nurse")),
        Field(name="point", datatype="FP32", shape=(-1, 2)),
    ),
    outputs=(
        Field(name="label", datatype="BYTES", shape=(-1,), classes=("no", "yes")),
        Field(name="probabilities", datatype="FP32", shape=(-1, 2), classes=("no", "yes")),
    ),
)
EXAMPLES: Columns = {
    "age": np.array([41, 30]),
    "pay": np.array([1000.0, np.nan]),
    "job": np.array(["cook", "nurse"], object),
    "point": np.array([[0.5, 1.5], [0, 0]], np.float32),
}
ROW: dict[str, Any] = {"age": 41, "pay": 1000.0, "job": "cook", "point": [0.5, 1.5]}


class Scoring:
    """A Scoring is a runtime whose probability is age / 200; `acts` may do or raise something before."""

    in_process = True

    def __init__(self) -> None:
        self.rows = 0
        self.acts: Callable[[Columns], None] = lambda columns: None

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        self.acts(columns)
        p = (columns["age"] / 200).astype(np.float32)
        self.rows += len(p)
        label = np.array(["yes" if one > 0.5 else "no" for one in p], object)
        return {"label": label, "probabilities": np.stack([1 - p, p], axis=1)}

    def close(self) -> None: ...


def counts_of(arm: Arm) -> tuple[int, int]:
    """All that an arm has counted, and the bad ones among them."""
    good, bad, *_ = arm.told()
    return good + bad, bad


class Response(NamedTuple):
    """A Response is what came back over the socket."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A Client is one raw connection; it says exactly the bytes that it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hear(self, *, method: str = "GET", within: float = 10.0) -> Response:
        return await asyncio.wait_for(self._hear(method), within)

    async def _hear(self, method: str) -> Response:
        status = int((await self.reader.readuntil(b"\r\n")).split()[1])
        headers: dict[str, str] = {}
        while line := (await self.reader.readuntil(b"\r\n")).strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if status == 100:
            return Response(status, headers, b"")
        length = 0 if method == "HEAD" else int(headers["content-length"])
        return Response(status, headers, await self.reader.readexactly(length))

    async def is_closed(self, within: float = 10.0) -> bool:
        try:
            return await asyncio.wait_for(self.reader.read(1), within) == b""
        except ConnectionResetError:
            return True

    async def ask(
        self, path: str, body: Any = None, *, method: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """One request and its answer; a body that is not bytes goes as JSON."""
        method = method or ("GET" if body is None else "POST")
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = {
            "host": "test",
            **({"content-length": str(len(data))} if body is not None else {}),
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await self.say(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + data)
        return await self.hear(method=method)


class Door:
    """A Door is an App with everything in reach that a test may turn."""

    def __init__(
        self, board: Board, *, signature: Signature = SIGNATURE, examples: Columns = EXAMPLES, runtime: Any = None,
        policy: Policy | None = None, keys: KeyRing | None = None, on_invalid: OnInvalid = "flag",
        cache: Cache | None = None, max_body: int = 1_000_000, deadline_s: float = 5.0,
        cost: CostLine | None = None, version: int = 3, deployment: str = "fraud",
        neighbours: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.board = board
        self.slot: Slot = board.claim(1, Role.WORKER, pid=1, start=1)
        self.state = WorkerState()
        self.state.is_ready = True
        self.runtime = runtime or Scoring()
        self.engine = Engine(
            signature, self.runtime, ref=f"fraud-model:{version}", digest="d", on_invalid=on_invalid, cache=cache
        )
        self.counters = DeploymentCounters(self.slot, deployment, str(version))
        self.batcher = Batcher(self.engine, self.counters, cost or CostLine(1e-4, 1e-6), batch_s=deadline_s / 4)
        self.live = Live(
            deployment=deployment, model="fraud-model", version=version, signature=signature, platform="onnx",
            description="A model", examples=examples, is_ready=self.state.answers, neighbours=neighbours,
        )  # fmt: skip
        self.dialects = dialects_for(self.live)
        self.keys = keys or KeyRing()
        self.guard = Guard(
            policy or Policy(keys_required=False, loopback=True),
            lambda: self.keys,
            RateLimiter(board, self.slot, deployment),
        )
        deployed = Deployment(self.live, self.engine, self.batcher, self.counters, deadline_s=deadline_s)
        table = Table([Served(Predictions(deployed, self.dialects, self.guard))])
        self.pages = Pages(table, board, self.state)
        self.app = App(table, self.pages, self.state, max_body=max_body)
        self.server: Server | None = None
        self.address = ("", 0)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Door]:
        """Serve on a free port of loopback."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.address = listening.getsockname()
        self.server = Server(self.app, self.state, [listening])
        await self.server.start()
        try:
            yield self
        finally:
            await self.server.stop(5.0)
            self.batcher.close()
            listening.close()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()

    async def ask(self, path: str, body: Any = None, **options: Any) -> Response:
        """One request on a connection of its own."""
        async with self.connect() as client:
            return await client.ask(path, body, **options)

    async def call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        """One request without a socket, straight into the ASGI callable."""
        sent: list[Any] = []
        given = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()
        ]
        raw_path, _, query = path.partition("?")
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": method, "path": raw_path, "raw_path": raw_path.encode("latin-1"),
            "query_string": query.encode("latin-1"), "headers": given, "root_path": "",
        }  # fmt: skip
        await self.app(scope, receive, send)
        lines = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Response(sent[0]["status"], lines, b"".join(part.get("body", b"") for part in sent[1:]))


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "board")


@pytest.fixture
def make_door(board: Board) -> Callable[..., Door]:
    def make(**options: Any) -> Door:
        return Door(board, **options)

    return make


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a scenario in the loop that workers run in; one that hangs fails."""

    async def bounded(scenario: Coroutine[Any, Any, None]) -> None:
        await asyncio.wait_for(scenario, 30)

    return lambda scenario: uvloop.run(bounded(scenario))


@pytest.fixture
def signature() -> Signature:
    return SIGNATURE


@pytest.fixture
def row() -> dict[str, Any]:
    return dict(ROW)
