"""Clients that mean no good: each of these once broke the door."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from cloche.core.board import Head
from cloche.engine.cost import CostLine
from cloche.serving import server

Run = Callable[[Any], None]
MakeDoor = Callable[..., Any]
INFER = "/v2/models/fraud/infer"


def request(body: bytes, *lines: str, path: str = "/predict/fraud", version: str = "1.1") -> bytes:
    head = "".join(f"{line}\r\n" for line in ("host: test", f"content-length: {len(body)}", *lines))
    return f"POST {path} HTTP/{version}\r\n{head}\r\n".encode() + body


def on_a_thread() -> CostLine:
    cost = CostLine()
    for _ in range(100):
        cost.observe(1, 0.01)
    return cost


@pytest.mark.parametrize("depth", [10, 300, 495, 700, 900, 980, 5_000, 100_000])
def test_lists_nested_deeply_where_a_number_is_expected_are_refused(
    run: Run, make_door: MakeDoor, row: Any, depth: int
) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            body = json.dumps(row).replace("41", "[" * depth + "]" * depth).encode()
            answer = await door.ask("/predict/fraud", body)
            assert answer.status in (400, 413, 422), answer.body
            data = "[" * depth + "1" + "]" * depth
            tensor = f'{{"inputs":[{{"name":"age","shape":[1],"datatype":"INT64","data":{data}}}]}}'
            answer = await door.ask(INFER, tensor.encode())
            assert answer.status in (400, 413, 422), answer.body

    run(scenario())


@pytest.mark.parametrize("datatype", ["INT64", "FP64", "FP32", "UINT64", "BOOL", "BYTES"])
@pytest.mark.parametrize("value", [b"9" * 5_000, b"1e5000", b'"\\ud800"', b'"\xff"', b"[[1e999]]"])
def test_a_value_that_no_type_holds_is_refused(run: Run, make_door: MakeDoor, datatype: str, value: bytes) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            tensor = b'{"inputs":[{"name":"age","shape":[1],"datatype":"%s","data":[%s]}]}'
            answer = await door.ask(INFER, tensor % (datatype.encode(), value))
            assert answer.status in (400, 422), answer.body

    run(scenario())


@pytest.mark.parametrize("shape", [[10**4000] * 8, [10**4000, -1], [0, 10**4000], [10**4000]])
def test_dimensions_of_thousands_of_digits_are_refused_shortly(run: Run, make_door: MakeDoor, shape: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            tensor = {"name": "age", "shape": shape, "datatype": "INT64", "data": []}
            answer = await door.ask(INFER, {"inputs": [tensor]})
            assert answer.status in (400, 413, 422), answer.body
            assert len(answer.body) < 1_000

    run(scenario())


@pytest.mark.parametrize("before", [1, 3])
@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("rest", [b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\na: " + b"b" * 20_000 + b"\r\n\r\n"])
def test_what_came_before_garbage_is_answered_first(
    run: Run, make_door: MakeDoor, row: Any, before: int, slow: bool, rest: bytes
) -> None:
    async def scenario() -> None:
        door = make_door(cost=on_a_thread() if slow else None)
        async with door.open(), door.connect() as client:
            await client.say(request(json.dumps(row).encode()) * before + rest)
            for _ in range(before):
                assert (await client.hear()).status == 200
            assert (await client.hear()).status in (400, 431)
            assert await client.is_closed()
            assert door.slot.get(Head.IN_FLIGHT) == 0

    run(scenario())


def test_a_body_that_turns_to_garbage_behind_a_slow_request_does_not_take_its_answer(
    run: Run, make_door: MakeDoor, row: Any
) -> None:
    async def scenario() -> None:
        door = make_door(cost=on_a_thread())
        door.runtime.acts = lambda columns: time.sleep(0.2)
        async with door.open(), door.connect() as client:
            chunked = b"POST /predict/fraud HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"
            await client.say(request(json.dumps(row).encode()) + chunked + b"5\r\nhello\r\nGARBAGE\r\n")
            assert (await client.hear()).status == 200
            assert (await client.hear()).status == 400
            assert await client.is_closed()

    run(scenario())


def test_http_1_0_is_answered_and_closed_even_if_it_asks_for_more(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            await client.say(request(json.dumps(row).encode(), "connection: keep-alive", version="1.0"))
            answer = await client.hear()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await client.is_closed()

    run(scenario())


@pytest.mark.parametrize("body", [b"{", b"good"])
def test_what_stands_behind_the_last_answer_of_a_connection_is_not_run(
    run: Run, make_door: MakeDoor, row: Any, body: bytes
) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            door.state.is_draining = True
            good = json.dumps(row).encode()
            await client.say(request(good if body == b"good" else body) * 5)
            answer = await client.hear()
            assert answer.headers["connection"] == "close"
            assert await client.is_closed()
            assert door.runtime.rows <= 1
            assert door.slot.get(Head.IN_FLIGHT) == 0

    run(scenario())


@pytest.mark.parametrize("tail", [b"x: y\r\n" * 1000, b"x: " + b"y" * 5000])
def test_trailers_without_end_are_refused(run: Run, make_door: MakeDoor, row: Any, tail: bytes) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            body = json.dumps(row).encode()
            head = b"POST /predict/fraud HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"
            await client.say(head + b"%x\r\n%s\r\n0\r\n" % (len(body), body))
            with contextlib.suppress(ConnectionError):
                await client.say(tail)
                for _ in range(1_000):
                    await client.say(tail if tail.endswith(b"\n") else b"y" * 5_000)
            assert await _is_refused(client)

    run(scenario())


async def _is_refused(client: Any) -> bool:
    try:
        return (await client.hear()).status == 431
    except (ConnectionError, asyncio.IncompleteReadError):
        return True


def test_who_sends_faster_than_is_answered_waits(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        door = make_door(cost=on_a_thread())
        door.runtime.acts = lambda columns: time.sleep(0.002)
        async with door.open(), door.connect() as client:
            sent = request(json.dumps(row).encode())
            client.writer.write(sent * 20_000)
            most = 0
            for _ in range(200):
                assert (await client.hear()).status == 200
                (connection,) = door.server._state.connections
                most = max(most, len(connection.pipeline))
            assert most * len(sent) < 600_000  # two chunks of what uvloop reads at once
            client.writer.transport.abort()

    run(scenario())


def test_who_does_not_read_is_let_go(run: Run, make_door: MakeDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "UNREAD_S", 0.05)

    async def scenario() -> None:
        async with make_door().open() as door:
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(door.address)
            client.setblocking(False)
            for _ in range(200):
                with contextlib.suppress(BlockingIOError):
                    client.send(b"GET /openapi.json HTTP/1.1\r\nhost: test\r\n\r\n" * 20)
                await asyncio.sleep(0.01)
                door.server.tick()
                if door.server.connections == 0:
                    break
            assert door.server.connections == 0
            client.close()

    run(scenario())


def test_a_reset_while_the_model_runs_leaves_nothing_behind(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        door = make_door(cost=on_a_thread())
        door.runtime.acts = lambda columns: time.sleep(0.05)
        async with door.open():
            for _ in range(5):
                client = socket.create_connection(door.address)
                client.sendall(request(json.dumps(row).encode()) * 3)
                await asyncio.sleep(0.02)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
            await asyncio.sleep(0.3)
            assert door.slot.get(Head.IN_FLIGHT) == 0
            assert door.server.connections == 0
            assert (await door.ask("/predict/fraud", row)).status == 200

    run(scenario())


@pytest.mark.parametrize("said", [0, 30])
def test_who_connected_just_before_the_end_of_a_drain_is_answered(
    run: Run, make_door: MakeDoor, row: Any, said: int
) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client, door.connect() as silent:
            sent = request(json.dumps(row).encode())
            if said:
                await client.say(sent[:said])
            await asyncio.sleep(0.05)
            door.state.is_draining = True
            stopping = asyncio.ensure_future(door.server.stop(5.0))
            await asyncio.sleep(0.1)
            await client.say(sent[said:])
            answer = await client.hear()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await silent.is_closed(within=2.0)
            await asyncio.wait_for(stopping, 2.0)

    run(scenario())
