"""A host answers many callers by few calls of its model, and none of them with another's rows."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cloche.app.host import end_when_stuck
from cloche.core.board import Board, Head, Role
from cloche.core.errors import ConfigError, InputError
from cloche.core.signature import Columns, Field, Signature
from cloche.runtimes import host as host_module
from cloche.runtimes.frames import (
    Begun,
    FrameReader,
    Header,
    Reply,
    Request,
    Tensor,
    pack_columns,
    pack_frame,
    read_columns,
)
from cloche.runtimes.host import Host, listen
from cloche.runtimes.hosted import HostedRuntime
from cloche.runtimes.model_class import ModelClass

DIGEST = "d" * 64
SIGNATURE = Signature(
    inputs=(Field(name="n", datatype="INT64", shape=(-1,)),),
    outputs=(Field(name="value", datatype="FP64", shape=(-1,)),),
)


def numbers(*values: int) -> Columns:
    return {"n": np.array(values, dtype=np.int64)}


class Doubling:
    """Doubles; keeps what it was given; waits while `gate` is closed; raises for 13; 16 takes 0.4 s."""

    calls: list[list[int]]
    gate: threading.Event
    busy: threading.Event

    def load(self) -> None:
        type(self).calls = []
        type(self).gate = threading.Event()
        type(self).busy = threading.Event()
        self.gate.set()

    def predict(self, n: list[int]) -> list[float]:
        self.calls.append(n)
        self.busy.set()
        if not self.gate.wait(10):
            raise TimeoutError("the test never opened the gate")
        if 16 in n:
            time.sleep(0.4)
        if 13 in n:
            raise ValueError("thirteen")
        if 14 in n:
            return [1.0]
        if 15 in n:
            raise SystemExit(3)
        return [2.0 * value for value in n]


class RawCaller:
    """Sends frames and reads replies, as slowly and as wrongly as a test wants."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self.reader = FrameReader()
        self._ids = itertools.count(1)

    def send(self, columns: Columns, *, digest: str = DIGEST, left_s: float = 10.0, alone: bool = False) -> int:
        number = next(self._ids)
        self.socket.sendall(self.frame(columns, number, digest, left_s, alone))
        return number

    def frame(
        self, columns: Columns, number: int = 1, digest: str = DIGEST, left_s: float = 10.0, alone: bool = False
    ) -> bytes:
        tensors, body = pack_columns(columns)
        deadline_ns = time.monotonic_ns() + int(left_s * 1e9)
        return pack_frame(Request(number, digest, deadline_ns, tensors, alone), body)

    def next(self) -> tuple[Header, bytearray]:
        while (frame := self.reader.next()) is None:
            self.reader.receive(self.socket)
        return frame

    def reply(self) -> tuple[Reply, Columns]:
        header, body = self.next()
        assert isinstance(header, Reply)
        return header, read_columns(header.tensors, body)

    def values(self) -> list[float]:
        reply, columns = self.reply()
        assert reply.problem is None, reply.problem
        return list(columns["value"].tolist())

    def problem(self) -> tuple[str, str]:
        problem = self.reply()[0].problem
        assert problem is not None
        return problem.code, problem.message

    def is_closed(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


@contextlib.contextmanager
def running(path: Path, model: type = Doubling, digest: str = DIGEST) -> Iterator[Host]:
    """A host at `path` that serves in a thread until the block ends."""
    host = Host(ModelClass(model), SIGNATURE, digest, path)
    thread = threading.Thread(target=host.serve)
    thread.start()
    try:
        yield host
    finally:
        host.drain()
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "host.sock"


@pytest.fixture
def host(path: Path) -> Iterator[Host]:
    with running(path) as host:
        yield host


@pytest.fixture
def call(host: Host, path: Path) -> Iterator[Callable[[], RawCaller]]:
    callers: list[RawCaller] = []

    def make() -> RawCaller:
        callers.append(RawCaller(path))
        return callers[-1]

    yield make
    for caller in callers:
        caller.socket.close()


def hold(caller: RawCaller) -> None:
    """Keep the model busy with the row 0 of this caller until the gate is opened."""
    Doubling.gate.clear()
    Doubling.busy.clear()
    caller.send(numbers(0))
    assert Doubling.busy.wait(10)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.002)


def test_an_answer_carries_the_requests_number_and_the_bundles_digest(call: Callable[[], RawCaller]) -> None:
    caller = call()
    for _ in range(3):
        number = caller.send(numbers(1, 2))
        reply, columns = caller.reply()
        assert (reply.id, reply.digest, reply.problem) == (number, DIGEST, None)
        assert columns["value"].tolist() == [2.0, 4.0]


def test_what_waits_while_the_model_works_is_one_call_and_everybody_gets_their_own_rows(
    call: Callable[[], RawCaller],
) -> None:
    first, others = call(), [call() for _ in range(5)]
    hold(first)
    for number, caller in enumerate(others):
        caller.send(numbers(*range(10 * number, 10 * number + number + 1)))
    Doubling.gate.set()

    assert first.values() == [0.0]
    for number, caller in enumerate(others):
        assert caller.values() == [2.0 * value for value in range(10 * number, 10 * number + number + 1)]
    assert [len(rows) for rows in Doubling.calls] == [1, 1 + 2 + 3 + 4 + 5]


def test_a_poisonous_row_fails_alone(call: Callable[[], RawCaller]) -> None:
    first, good, bad, short, leaves = (call() for _ in range(5))
    hold(first)
    good.send(numbers(1))
    bad.send(numbers(13))
    short.send(numbers(14, 1))
    leaves.send(numbers(15))
    Doubling.gate.set()

    assert first.values() == [0.0]
    assert good.values() == [2.0]
    assert bad.problem() == ("CL-E900", "ValueError: thirteen")
    assert short.problem()[0] == "CL-E901"
    assert leaves.problem() == ("CL-E900", "SystemExit: 3")
    assert good.send(numbers(2))
    assert good.values() == [4.0]


def test_a_request_whose_deadline_passed_while_it_waited_is_not_run(call: Callable[[], RawCaller]) -> None:
    first, late, patient = call(), call(), call()
    hold(first)
    late.send(numbers(5), left_s=0.02)
    patient.send(numbers(6))
    time.sleep(0.05)  # the deadline itself is what is waited for
    Doubling.gate.set()

    assert late.problem()[0] == "CL-E602"
    assert patient.values() == [12.0]
    assert 5 not in [value for rows in Doubling.calls for value in rows]


def test_who_is_too_late_when_a_joined_call_failed_is_not_run_by_itself(call: Callable[[], RawCaller]) -> None:
    first, poisonous, late = call(), call(), call()
    hold(first)
    poisonous.send(numbers(13))
    late.send(numbers(16), left_s=0.3)
    Doubling.gate.set()
    first.values()
    assert poisonous.problem()[0] == "CL-E900"
    assert late.problem() == ("CL-E602", "the deadline passed before its turn")
    assert [len(rows) for rows in Doubling.calls] == [1, 2, 1]


def test_the_request_of_a_caller_who_left_is_not_run(call: Callable[[], RawCaller]) -> None:
    first, gone, patient = call(), call(), call()
    hold(first)
    gone.send(numbers(5))
    gone.socket.close()
    patient.send(numbers(6))
    Doubling.gate.set()

    assert patient.values() == [12.0]
    assert 5 not in [value for rows in Doubling.calls for value in rows]


def test_a_request_that_wants_to_be_alone_is_and_hears_when_it_begins(call: Callable[[], RawCaller]) -> None:
    first, before, alone, after = (call() for _ in range(4))
    hold(first)
    # one connection at a time, so that they are read in this order or another: alone is alone in any
    before.send(numbers(1))
    number = alone.send(numbers(2), alone=True)
    after.send(numbers(3))
    Doubling.gate.set()

    assert alone.next()[0] == Begun(number, DIGEST)
    assert alone.values() == [4.0]
    assert before.values() == [2.0]
    assert after.values() == [6.0]
    assert [2] in Doubling.calls


def test_rows_of_another_form_are_not_joined(call: Callable[[], RawCaller]) -> None:
    first, narrow, wide = call(), call(), call()
    hold(first)
    narrow.send(numbers(1))
    wide.send({"n": np.array([3, 4], dtype=np.int32)})
    Doubling.gate.set()

    assert narrow.values() == [2.0]
    assert wide.values() == [6.0, 8.0]
    assert [len(rows) for rows in Doubling.calls] in ([1, 1, 2], [1, 2, 1])


def test_no_more_rows_are_joined_than_the_limit(
    call: Callable[[], RawCaller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "MAX_ROWS", 3)
    first, others = call(), [call() for _ in range(4)]
    hold(first)
    for caller in others:
        caller.send(numbers(1, 2))
    Doubling.gate.set()

    assert [caller.values() for caller in others] == [[2.0, 4.0]] * 4
    assert [len(rows) for rows in Doubling.calls] == [1, 2, 2, 2, 2]


def test_more_than_may_wait_is_refused_at_once(
    call: Callable[[], RawCaller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "MAX_WAITING", 2)
    first, others = call(), [call() for _ in range(3)]
    hold(first)
    for caller in others:
        caller.send(numbers(1))
    Doubling.gate.set()

    codes = []
    for caller in others:
        problem = caller.reply()[0].problem
        codes.append(problem.code if problem else None)
    assert sorted(codes, key=str) == ["CL-E601", None, None]


def test_a_request_for_another_bundle_is_refused(call: Callable[[], RawCaller]) -> None:
    caller = call()
    caller.send(numbers(1), digest="e" * 64)

    reply, _ = caller.reply()
    assert reply.digest == DIGEST
    assert reply.problem is not None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff" * 8, id="a huge frame"),
        pytest.param(b"\x00\x00\x00\x01\x00\x00\x00\x00\xc1", id="no header"),
        pytest.param(pack_frame(Begun(1, DIGEST)), id="not a request"),
        pytest.param(
            pack_frame(Request(1, DIGEST, 2**62, (Tensor("n", "INT64", (2**40,), 8),)), bytes(8)),
            id="a shape that its bytes don't have",
        ),
    ],
)
def test_a_malformed_frame_ends_its_connection_and_no_other(call: Callable[[], RawCaller], data: bytes) -> None:
    bad, good = call(), call()
    bad.socket.sendall(data)

    assert bad.is_closed()
    good.send(numbers(1))
    assert good.values() == [2.0]


def test_a_caller_who_sends_half_a_frame_keeps_nobody_waiting(call: Callable[[], RawCaller]) -> None:
    slow, other = call(), call()
    frame = slow.frame(numbers(7))
    slow.socket.sendall(frame[:20])
    other.send(numbers(1))
    assert other.values() == [2.0]
    slow.socket.sendall(frame[20:])
    assert slow.values() == [14.0]


def test_a_caller_who_does_not_read_keeps_nobody_waiting(call: Callable[[], RawCaller]) -> None:
    deaf, other = call(), call()
    many = numbers(*range(100, 200_100))
    deaf.send(many)
    other.send(numbers(1))

    assert other.values() == [2.0]
    assert len(deaf.values()) == 200_000


def test_an_answer_of_the_wrong_fields_is_the_models_error(path: Path) -> None:
    class Odd:
        def load(self) -> None: ...

        def predict(self, n: list[int]) -> dict[str, list[str]]:
            return {"other": ["\ud800" for _ in n]}

    with running(path, Odd):
        caller = RawCaller(path)
        caller.send(numbers(1))
        assert caller.problem() == ("CL-E901", "predict gave other; it gives value")
        caller.socket.close()


def test_a_drain_answers_what_has_come_and_then_lets_go(path: Path) -> None:
    with running(path) as host:
        caller, waiting = RawCaller(path), RawCaller(path)
        hold(caller)
        waiting.send(numbers(4))
        host.drain()
        Doubling.gate.set()

        assert caller.values() == [0.0]
        assert waiting.values() == [8.0]
        assert caller.is_closed()
        assert waiting.is_closed()
    assert not path.exists()
    caller.socket.close()
    waiting.socket.close()


def test_a_model_that_does_not_come_back_is_stuck_once_everybody_has_given_up(
    host: Host, call: Callable[[], RawCaller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "STUCK_S", 0.0)
    Doubling.gate.clear()
    Doubling.busy.clear()
    caller = call()
    caller.send(numbers(0), left_s=0.3)
    assert Doubling.busy.wait(10)
    assert not host.is_stuck()
    wait_for(host.is_stuck)
    ended: list[int] = []
    end_when_stuck(host, ended.append)
    wait_for(lambda: ended == [1])

    Doubling.gate.set()
    assert caller.values() == [0.0]
    wait_for(lambda: not host.is_stuck())


def test_a_successor_takes_the_path_and_keeps_it(path: Path) -> None:
    with running(path):
        with running(path, digest="e" * 64):
            pass
        # the successor is gone with its socket; the first had lost the path to it
        assert not path.exists()
    with running(path), running(path, digest="e" * 64) as second:
        caller = RawCaller(path)
        caller.send(numbers(1), digest="e" * 64)
        assert caller.values() == [2.0]
        caller.socket.close()
        assert second.path.exists()


def test_the_socket_is_this_users_alone(host: Host, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["host.sock"]


def test_a_caller_of_another_user_is_turned_away(
    call: Callable[[], RawCaller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "peer_uid", lambda connection: 12345)

    assert call().is_closed()


def test_a_path_too_long_for_a_socket_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long for a unix socket"):
        listen(tmp_path / ("x" * 120))


def test_the_board_shows_what_is_run(path: Path, tmp_path: Path) -> None:
    board = Board(tmp_path / "board")
    slot = board.claim(1, Role.HOST, 1, 1)
    host = Host(ModelClass(Doubling), SIGNATURE, DIGEST, path, slot, executing=7)
    thread = threading.Thread(target=host.serve)
    thread.start()
    caller = RawCaller(path)
    try:
        hold(caller)
        assert slot.get(Head.IN_FLIGHT) == 1
        assert slot.get(Head.EXECUTING) == 7
        Doubling.gate.set()
        caller.values()
        wait_for(lambda: slot.get(Head.EXECUTING) == 0)
        assert slot.get(Head.IN_FLIGHT) == 0
    finally:
        Doubling.gate.set()
        caller.socket.close()
        host.drain()
        thread.join(10)
    board.cells.release()


def test_many_callers_at_once_get_their_own_answers(call: Callable[[], RawCaller]) -> None:
    wrong: list[tuple[int, list[float]]] = []

    def ask(caller: RawCaller, base: int) -> None:
        for value in range(base, base + 200):
            caller.send(numbers(value))
            if (got := caller.values()) != [2.0 * value]:
                wrong.append((value, got))

    threads = [threading.Thread(target=ask, args=(call(), 1000 * (number + 1))) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert not wrong
    assert sum(len(rows) for rows in Doubling.calls) == 1200


def test_connections_beyond_the_limit_are_turned_away(
    call: Callable[[], RawCaller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "MAX_CONNECTIONS", 1)
    first = call()
    first.send(numbers(1))
    assert first.values() == [2.0]

    assert call().is_closed()
    assert isinstance(first.socket, socket.socket)


class Refusing:
    """A graph whose step refuses a row: with words, a hint and details, odd ones where the first number is 1."""

    def run(self, columns: Columns, signature: Signature) -> Columns:
        odd = columns["n"][0] == 1
        details = [{"row": 0, "field": "n", "code": "CL-E106", "odd": object() if odd else "no token"}]
        raise InputError("row 0, n: no token", code="CL-E106", hint="send a word", details=details)


def test_a_row_that_a_step_refuses_is_refused_with_all_that_it_says(path: Path) -> None:
    host = Host(Refusing(), SIGNATURE, DIGEST, path)
    thread = threading.Thread(target=host.serve)
    thread.start()
    runtime = HostedRuntime(SIGNATURE, DIGEST, timeout_s=10.0, hosts=(str(path),))
    try:
        with pytest.raises(InputError) as caught:
            runtime.run(numbers(0))
        assert (caught.value.code, caught.value.message) == ("CL-E106", "row 0, n: no token")
        assert caught.value.hint == "send a word"
        assert caught.value.details == ({"row": 0, "field": "n", "code": "CL-E106", "odd": "no token"},)
        with pytest.raises(InputError, match="no token") as caught:
            runtime.run(numbers(1))
        assert caught.value.details == (), "what can't be sent is left out, and the host lives"
    finally:
        runtime.close()
        host.drain()
        thread.join(10)
