"""The server on a real socket: what it takes, what it refuses before reading, how it drains."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from cloche.core.signature import Columns
from cloche.engine.cost import CostLine
from cloche.serving import server

Run = Callable[[Any], None]
MakeDoor = Callable[..., Any]


def slow_cost() -> CostLine:
    """A cost that calls for the model thread and is not forgotten after one quick answer."""
    cost = CostLine()
    for _ in range(100):
        cost.observe(1, 0.01)
    return cost


def request(body: bytes, *lines: str, path: str = "/predict/fraud") -> bytes:
    head = "".join(f"{line}\r\n" for line in ("host: test", *lines))
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def test_a_connection_answers_again_and_again(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            ids = set()
            for _ in range(5):
                answer = await client.ask("/predict/fraud", row)
                assert answer.status == 200
                assert "connection" not in answer.headers
                assert "date" in answer.headers
                ids.add(answer.headers["cloche-prediction-id"])
            assert len(ids) == 5
            assert door.server.connections == 1

    run(scenario())


def test_pipelined_requests_are_answered_in_order(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            sent = b""
            for age in (10, 20, 30):
                body = json.dumps({**row, "age": age}).encode()
                sent += request(body, f"content-length: {len(body)}")
            await client.say(sent)
            for age in (10, 20, 30):
                prediction = (await client.hear()).json()["prediction"]
                assert prediction["probabilities"]["yes"] == pytest.approx(age / 200)

    run(scenario())


def test_a_request_may_come_byte_by_byte(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            body = json.dumps(row).encode()
            for byte in request(body, f"content-length: {len(body)}"):
                await client.say(bytes([byte]))
            assert (await client.hear()).status == 200

    run(scenario())


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


def test_a_chunked_body_is_taken(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            body = json.dumps(row).encode()
            await client.say(request(chunked(body[:10], body[10:]), "transfer-encoding: chunked"))
            assert (await client.hear()).status == 200
            assert (await client.ask("/predict/fraud", row)).status == 200

    run(scenario())


@pytest.mark.parametrize("parts", [1, 100])
def test_a_chunked_body_over_the_cap_is_refused(run: Run, make_door: MakeDoor, parts: int) -> None:
    async def scenario() -> None:
        async with make_door(max_body=50_000).open() as door, door.connect() as client:
            part = b"x" * (60_000 // parts)
            await client.say(request(chunked(*[part] * parts), "transfer-encoding: chunked"))
            answer = await client.hear()
            assert (answer.status, answer.json()["code"]) == (413, "CL-E114")
            assert answer.headers["connection"] == "close"

    run(scenario())


def test_a_body_that_is_claimed_too_large_is_refused_before_it_is_read(run: Run, make_door: MakeDoor) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            await client.say(request(b"", "content-length: 1000000000"))
            answer = await client.hear()
            assert answer.status == 413
            assert "1,000,000,000 bytes; at most 1,000,000" in answer.json()["detail"]
            assert await client.is_closed()

    run(scenario())


def test_who_expects_a_sign_to_go_on_gets_it_only_for_a_body_that_is_taken(
    run: Run, make_door: MakeDoor, row: Any
) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            body = json.dumps(row).encode()
            async with door.connect() as client:
                await client.say(request(b"", f"content-length: {len(body)}", "expect: 100-continue"))
                assert (await client.hear()).status == 100
                await client.say(body)
                assert (await client.hear()).status == 200
            async with door.connect() as client:
                await client.say(request(b"", "content-length: 1000000000", "expect: 100-continue"))
                assert (await client.hear()).status == 413

    run(scenario())


@pytest.mark.parametrize("name", ["Upgrade", "upgrade", "UPGRADE"])
def test_a_client_that_would_like_http2_is_answered_all_the_same(
    run: Run, make_door: MakeDoor, row: Any, name: str
) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            body = json.dumps(row).encode()
            lines = ("connection: Upgrade, HTTP2-Settings", f"{name}: h2c", "http2-settings: AAMAAABkAARAAAAA")
            await client.say(request(body, f"content-length: {len(body)}", *lines))
            assert (await client.hear()).status == 200
            assert (await client.ask("/predict/fraud", row)).status == 200

    run(scenario())


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"hello\r\n\r\n",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT host:443 HTTP/1.1\r\nhost: host\r\n\r\n",
        b"GET http://host HTTP/1.1\r\nhost: host\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: test\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost : test\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: test\r\n folded\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nx: a\0b\r\n\r\n",
        request(b"{}", "content-length: 2", "transfer-encoding: chunked"),
        request(b"{}", "content-length: 2", "content-length: 3"),
        request(b"{}", "content-length: +2"),
        request(b"{}", "content-length: -2"),
        request(b"{}", "content-length: 0x2"),
        request(b"{}", "content-length: 99999999999999999999999"),
        request(b"zz\r\n{}\r\n0\r\n\r\n", "transfer-encoding: chunked"),
        request(b"-1\r\n{}\r\n0\r\n\r\n", "transfer-encoding: chunked"),
        request(b"fffffffffffffffffff\r\n{}", "transfer-encoding: chunked"),
    ],
)
def test_what_is_not_http_or_ambiguous_is_refused(run: Run, make_door: MakeDoor, sent: bytes) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            async with door.connect() as client:
                await client.say(sent)
                answer = await client.hear()
                assert answer.status in (400, 413)
                assert answer.json()["code"].startswith("CL-E1")
                assert await client.is_closed()
            assert (await door.ask("/livez")).status == 200

    run(scenario())


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (b"GET /livez HTTP/1.1\r\nx: " + b"a" * 17_000, 431, "larger than 16 KiB"),  # and no end in sight
        (b"GET /livez HTTP/1.1\r\nx: " + b"a" * 17_000 + b"\r\n\r\n", 431, "larger than 16 KiB"),
        (b"GET /livez HTTP/1.1\r\n" + b"x: a\r\n" * 101 + b"\r\n", 431, "more than 100 header fields"),
        (b"GET /livez?" + b"a" * 9_000 + b" HTTP/1.1\r\nhost: test\r\n\r\n", 414, "longer than 8 KiB"),
    ],
)
def test_a_head_has_limits(run: Run, make_door: MakeDoor, sent: bytes, status: int, words: str) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            await client.say(sent)
            answer = await client.hear()
            assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
            assert words in answer.json()["detail"]
            assert await client.is_closed()

    run(scenario())


def test_a_large_body_is_not_taken_for_a_large_head(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            for _ in range(2):
                assert (await client.ask("/predict/fraud", {"rows": [row] * 1000})).status == 200

    run(scenario())


def test_a_large_head_is_found_behind_another_request_too(run: Run, make_door: MakeDoor) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            good = b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n"
            await client.say(good + b"GET /livez HTTP/1.1\r\nx: " + b"a" * 17_000 + b"\r\n\r\n")
            assert 431 in [(await client.hear()).status, await _status_or_closed(client)]

    run(scenario())


def test_an_overloaded_model_refuses_before_it_reads(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        go = threading.Event()
        async with make_door(cost=slow_cost()).open() as door:
            door.runtime.acts = lambda columns: go.wait(5)
            asked = [asyncio.ensure_future(door.ask("/predict/fraud", row)) for _ in range(3)]
            while not (door.batcher._thread_is_busy and door.batcher._waiting):
                await asyncio.sleep(0.001)
            refused = await door.ask("/predict/fraud", b"no JSON", headers={"cloche-deadline": "1ms"})
            assert (refused.status, refused.json()["code"]) == (503, "CL-E601")
            assert int(refused.headers["retry-after"]) >= 1
            go.set()
            assert [one.status for one in await asyncio.gather(*asked)] == [200] * 3

    run(scenario())


async def _status_or_closed(client: Any) -> int:
    try:
        return int((await client.hear()).status)
    except asyncio.IncompleteReadError:
        return 0


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /livez HTTP/1.1\r\nhost: te",  # a head that does not end
        b"",  # a connection that says nothing
        request(b"{", "content-length: 100000"),  # a body that trickles
    ],
)
def test_who_is_too_slow_is_refused(
    run: Run, make_door: MakeDoor, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            await client.say(sent)
            await asyncio.sleep(0.05)
            door.server.tick()
            monkeypatch.setattr(server, "HEADER_S", 0.01)
            monkeypatch.setattr(server, "BODY_BYTES_PER_S", 1_000_000)
            door.server.tick()
            answer = await client.hear()
            assert (answer.status, answer.json()["code"]) == (408, "CL-E119")
            assert await client.is_closed()

    run(scenario())


def test_who_waits_for_an_answer_or_keeps_a_connection_open_is_not_too_slow(
    run: Run, make_door: MakeDoor, monkeypatch: pytest.MonkeyPatch, row: Any
) -> None:
    monkeypatch.setattr(server, "HEADER_S", 0.0)

    async def scenario() -> None:
        door = make_door(cost=slow_cost())
        door.runtime.acts = lambda columns: time.sleep(0.1)
        async with door.open(), door.connect() as client:
            asked = asyncio.ensure_future(client.ask("/predict/fraud", row))
            while not asked.done():
                await asyncio.sleep(0.01)
                if door.runtime.rows == 0 and door.counters._cells[door.counters._in_flight]:
                    door.server.tick()
            assert (await asked).status == 200
            door.server.tick()
            assert (await client.ask("/livez")).status == 200

    run(scenario())


def test_more_connections_than_are_kept_are_told_to_come_back(
    run: Run, make_door: MakeDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 1)

    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as first:
            assert (await first.ask("/livez")).status == 200
            async with door.connect() as second:
                answer = await second.hear()
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert (await first.ask("/livez")).status == 200

    run(scenario())


def test_head_has_headers_only(run: Run, make_door: MakeDoor) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            for path, status in (("/livez", 200), ("/openapi.json", 200), ("/predict/fraud", 405), ("/nope", 404)):
                assert (await client.ask(path, method="HEAD")).status == status
            assert (await client.ask("/livez")).body == b""

    run(scenario())


@pytest.mark.parametrize("rows", [1, 2000])  # a small body goes the short way, a large one over ASGI
def test_a_connection_is_closed_when_that_is_asked(run: Run, make_door: MakeDoor, row: Any, rows: int) -> None:
    async def scenario() -> None:
        body = json.dumps([row] * rows).encode()
        async with make_door().open() as door:
            async with door.connect() as client:
                await client.say(request(body, f"content-length: {len(body)}", "connection: close"))
                answer = await client.hear()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                assert await client.is_closed()
            async with door.connect() as client:
                old = request(body, f"content-length: {len(body)}").replace(b"HTTP/1.1", b"HTTP/1.0")
                await client.say(old)
                answer = await client.hear()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                assert await client.is_closed()

    run(scenario())


def test_both_ways_answer_with_the_same_headers(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            short = await door.ask("/predict/fraud", row, headers={"x-request-id": "a"})
            long = await door.ask("/predict/fraud", [row] * 2000, headers={"x-request-id": "a"})
            assert set(short.headers) == set(long.headers)

    run(scenario())


@pytest.mark.parametrize("rows", [1, 2000])
def test_a_caller_who_goes_away_is_no_bug(run: Run, make_door: MakeDoor, row: Any, caplog: Any, rows: int) -> None:
    async def scenario() -> None:
        door = make_door(cost=slow_cost())
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(columns: Columns) -> None:
            loop.call_soon_threadsafe(begun.set)
            time.sleep(0.1)

        door.runtime.acts = slow
        async with door.open():
            async with door.connect() as client:
                body = json.dumps([row] * rows).encode()
                await client.say(request(body, f"content-length: {len(body)}"))
                await begun.wait()
            while door.counters._cells[door.counters._in_flight]:
                await asyncio.sleep(0.01)
            door.runtime.acts = lambda columns: None
            assert (await door.ask("/predict/fraud", row)).status == 200
            counted = (await door.ask("/metrics")).body.decode()
        assert 'code="499",deployment="fraud",dialect="cloche",version="3"} 1.0' in counted
        assert caplog.records == []

    run(scenario())


def test_a_caller_who_breaks_off_with_answers_under_way_is_no_bug(
    run: Run, make_door: MakeDoor, caplog: Any
) -> None:
    """The loop knows that the connection is gone before it says so, and the next answer is begun in between."""

    async def scenario() -> None:
        async with make_door().open() as door:
            for attempt in range(6):
                with socket.create_connection(door.address) as caller:
                    caller.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            caller.send(b"GET /openapi.json HTTP/1.1\r\nhost: test\r\n\r\n" * 5000)
                            await asyncio.sleep(0.001)
                    await asyncio.sleep(0.001 * attempt)
                    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            while door.server.connections:
                await asyncio.sleep(0.01)
            assert (await door.ask("/livez")).status == 200
        assert caplog.records == []

    run(scenario())


def test_a_caller_who_goes_away_before_the_model_has_time_is_not_run(
    run: Run, make_door: MakeDoor, row: Any
) -> None:
    async def scenario() -> None:
        door = make_door(cost=slow_cost())
        door.runtime.acts = lambda columns: time.sleep(0.2)
        async with door.open():
            first = asyncio.ensure_future(door.ask("/predict/fraud", row))
            while not door.batcher._thread_is_busy:
                await asyncio.sleep(0.001)
            async with door.connect() as client:
                body = json.dumps(row).encode()
                await client.say(request(body, f"content-length: {len(body)}"))
                while not door.batcher._waiting:
                    await asyncio.sleep(0.001)
            assert (await first).status == 200
            assert (await door.ask("/predict/fraud", row)).status == 200
            assert door.runtime.rows == 2

    run(scenario())


def test_draining_closes_connections_with_their_answers_and_loses_nothing(
    run: Run, make_door: MakeDoor, row: Any
) -> None:
    async def scenario() -> None:
        door = make_door(cost=slow_cost())
        async with door.open():
            async with door.connect() as kept:
                assert "connection" not in (await kept.ask("/predict/fraud", row)).headers
                door.state.is_draining = True
                assert (await door.ask("/readyz")).status == 503
                assert (await door.ask("/v2/health/ready")).status == 503
                assert (await door.ask("/livez")).status == 200
                # phase one: still answered, on old connections and new, and closed with the answer
                for answer in (await kept.ask("/predict/fraud", row), await door.ask("/predict/fraud", row)):
                    assert (answer.status, answer.headers["connection"]) == (200, "close")
                assert await kept.is_closed()
            # phase two: what is in flight is finished
            door.runtime.acts = lambda columns: time.sleep(0.1)
            async with door.connect() as idle, door.connect() as busy:
                asked = [asyncio.ensure_future(busy.ask("/predict/fraud", row))]
                while not door.batcher._thread_is_busy:
                    await asyncio.sleep(0.001)
                await door.server.stop(5.0)
                assert (await asked[0]).status == 200
                assert await idle.is_closed()
                with pytest.raises(ConnectionRefusedError):
                    await door.ask("/livez")

    run(scenario())


def test_a_stop_waits_for_an_answer_that_is_still_being_taken(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        door = make_door(max_body=10_000_000)
        async with door.open(), door.connect() as client:
            body = json.dumps({"rows": [row] * 60_000}).encode()  # its answer is more than buffers hold
            await client.say(request(body, f"content-length: {len(body)}"))
            head = await client.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            stopping = asyncio.ensure_future(door.server.stop(10.0))
            await asyncio.sleep(0.2)  # a stop that does not wait is over by then
            assert not stopping.done()
            assert len(await client.reader.readexactly(length)) == length
            await stopping

    run(scenario())


def test_nobody_waits_while_a_large_body_is_decoded(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        door = make_door()
        decoding, go_on = threading.Event(), threading.Event()
        dialect = door.app.table.ways[b"/predict/fraud"].dialect
        decode = dialect.decode

        def slow(body: bytes, headers: Any) -> Any:
            if len(body) > 100_000:
                decoding.set()
                assert go_on.wait(10)
            return decode(body, headers)

        dialect.decode = slow
        async with door.open(), door.connect() as large, door.connect() as small:
            asked = asyncio.ensure_future(large.ask("/predict/fraud", {"rows": [row] * 8_000}))
            while not decoding.is_set():
                await asyncio.sleep(0.001)
            assert (await small.ask("/predict/fraud", row)).status == 200
            assert not asked.done()
            assert door.batcher.quiet_from == math.inf, "what batches take now says nothing of the model"
            go_on.set()
            answer = await asked
            assert (answer.status, len(answer.json()["predictions"])) == (200, 8_000)
            assert door.batcher.quiet_from <= time.monotonic()

    run(scenario())


def test_connections_above_the_share_are_closed_with_their_answers(
    run: Run, make_door: MakeDoor, row: Any
) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            door.state.excess = 1
            async with door.connect() as one, door.connect() as other:
                assert (await one.ask("/predict/fraud", row)).headers["connection"] == "close"
                assert "connection" not in (await other.ask("/predict/fraud", row)).headers
                assert "connection" not in (await other.ask("/livez")).headers

    run(scenario())
