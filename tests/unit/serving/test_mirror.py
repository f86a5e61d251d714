"""A shadow in a worker: copies of requests for the candidate, which nobody notices, and both answers compared."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from cloche.core.board import Board
from cloche.core.errors import BusyError, ModelError
from cloche.core.signature import Columns, Field, Signature
from cloche.engine.batcher import Batcher
from cloche.engine.cache import Cache
from cloche.engine.cost import CostLine
from cloche.engine.engine import Engine, Prepared
from cloche.monitoring.counters import DeploymentCounters
from cloche.rollout.shadow import Tally
from cloche.serving.http import App
from cloche.serving.mirror import Mirror, Pair
from cloche.serving.pages import Pages
from cloche.serving.predictions import Deployment, Predictions
from cloche.serving.protocols.base import dialects_for
from cloche.serving.split import ARMS
from cloche.serving.table import Served, Table

Run = Callable[[Coroutine[Any, Any, None]], None]


class Candidate:
    """A Candidate is a runtime that is unsure of everything; `acts` may do or raise something before."""

    in_process = True

    def __init__(self, acts: Callable[[Columns], None] = lambda columns: None) -> None:
        self.asked: list[Columns] = []
        self.acts = acts

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        self.asked.append(columns)
        self.acts(columns)
        rows = len(columns["age"])
        half = np.full((rows, 2), 0.5, np.float32)
        return {"label": np.array(["no"] * rows, object), "probabilities": half}

    def close(self) -> None: ...


class Shadowed:
    """A Shadowed is a door whose stable version 3 is shadowed by version 4 of `runtime`."""

    def __init__(
        self, door: Any, runtime: Any, *, weight: int = 10_000, sticky: bytes | None = None, cost_s: float = 0.0,
        signature: Signature | None = None, engine: type[Engine] = Engine,
    ) -> None:  # fmt: skip
        self.door = door
        signature = signature or door.live.signature
        self.engine = engine(signature, runtime, ref="fraud-model:4", digest="e")
        counters = DeploymentCounters(door.slot, "fraud", "4")
        # no share of the loop, as `app.versions` has it for what is not proven
        self.batcher = Batcher(self.engine, counters, CostLine(cost_s, 1e-9), batch_s=1.0)
        self.batcher.allow_inline(False)
        self.mirror = Mirror(self.batcher, rollout=7, deadline_s=5.0, sticky=sticky)
        self.mirror.weight = weight
        live = msgspec.structs.replace(door.live, version=4, signature=signature)
        deployment = Deployment(live, self.engine, self.batcher, counters, deadline_s=5.0)
        candidate = Predictions(deployment, dialects_for(live), door.guard)
        table = Table([Served(door.app.table.predictions[0], (), candidate, self.mirror)])
        door.app = App(table, Pages(table, door.board, door.state), door.state, max_body=10_000_000)

    async def found(self, *, rows: int = 0, failed: int = 0) -> Tally:
        """The tally, once so many rows were compared and so many requests failed."""
        async with asyncio.timeout(10):
            while self.mirror.tally.rows < rows or self.mirror.tally.failed < failed:
                await asyncio.sleep(0.001)
        return self.mirror.tally


def prepared(engine: Engine, rows: int = 1) -> Prepared:
    columns: Columns = {
        "age": np.arange(rows) + 20,
        "pay": np.full(rows, np.nan),
        "job": np.array(["cook"] * rows, object),
        "point": np.zeros((rows, 2), np.float32),
    }
    return engine.prepare(columns)


def outcome(rows: int = 1) -> tuple[Columns, float, float]:
    chances = np.tile(np.array([[0.75, 0.25]], np.float32), (rows, 1))
    return {"label": np.array(["no"] * rows, object), "probabilities": chances}, 0.001, 0.25


def test_the_caller_gets_stables_answer_and_both_are_compared(
    make_door: Callable[..., Any], run: Run, row: dict[str, Any]
) -> None:
    async def scenario() -> None:
        shadowed = Shadowed(make_door(), Candidate())
        async with shadowed.door.open() as door:
            answer = await door.ask("/predict/fraud", row)
            assert answer.status == 200
            assert answer.json()["prediction"]["probabilities"]["yes"] == pytest.approx(41 / 200)
            assert answer.headers["cloche-model"] == "fraud-model:3"
            tally = await shadowed.found(rows=1)
        assert (tally.requests, tally.rows, tally.agree, tally.failed, tally.dropped) == (1, 1, 1, 0, 0)
        assert tally.difference_most == pytest.approx(0.5 - 41 / 200)
        assert tally.stable_s > 0
        assert tally.candidate_s > 0
        (worst,) = tally.worst
        assert worst.inputs == {"age": 41, "pay": 1000.0, "job": "cook", "point": [0.5, 1.5]}
        assert worst.candidate == {"label": "no", "probabilities": [0.5, 0.5]}

    run(scenario())


def test_other_dialects_are_mirrored_and_a_version_that_is_named_is_not(
    make_door: Callable[..., Any], run: Run
) -> None:
    async def scenario() -> None:
        shadowed = Shadowed(make_door(), Candidate())
        one = [{"name": "age", "datatype": "INT64", "shape": [1], "data": [41]}]
        one += [{"name": "pay", "datatype": "FP64", "shape": [1], "data": [1.0]}]
        one += [{"name": "job", "datatype": "BYTES", "shape": [1], "data": ["cook"]}]
        one += [{"name": "point", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.5]}]
        body = json.dumps({"inputs": one}).encode()
        for path, version in (("infer", "3"), ("versions/3/infer", "3"), ("versions/4/infer", "4")):
            answer = await shadowed.door.call("POST", f"/v2/models/fraud/{path}", body)
            assert answer.json()["model_version"] == version
        assert (await shadowed.found(rows=1)).requests == 1
        assert len(shadowed.engine.runtime.asked) == 2  # type: ignore[attr-defined]

    run(scenario())


@pytest.mark.parametrize(
    "raised", [ModelError("no"), BusyError("busy", code="CL-E602"), RuntimeError("a bug"), KeyError("age")]
)
def test_a_candidate_that_raises_is_counted_and_nobody_hears_of_it(
    make_door: Callable[..., Any], run: Run, row: dict[str, Any], raised: Exception
) -> None:
    def fail(columns: Columns) -> None:
        raise raised

    async def scenario() -> None:
        shadowed = Shadowed(make_door(), Candidate(fail))
        async with shadowed.door.open() as door:
            answers = [await door.ask("/predict/fraud", row) for _ in range(3)]
            assert [one.status for one in answers] == [200] * 3
            tally = await shadowed.found(failed=3)
        assert tally == Tally(failed=3)
        # nor does any metric of what callers got
        assert "cloche_errors_total" not in [labels["name"] for labels, _ in door.board.labelled()]

    run(scenario())


def test_a_candidate_that_hangs_holds_nobody_up(
    make_door: Callable[..., Any], run: Run, row: dict[str, Any]
) -> None:
    async def scenario() -> None:
        let_go = threading.Event()
        shadowed = Shadowed(make_door(), Candidate(lambda columns: let_go.wait(20) and None))
        try:
            async with shadowed.door.open() as door:
                answers = [await door.ask("/predict/fraud", row) for _ in range(20)]
                assert {one.status for one in answers} == {200}
                assert shadowed.mirror.tally.rows == 0
                let_go.set()
                assert (await shadowed.found(rows=20)).requests == 20
        finally:
            let_go.set()

    run(scenario())


class Another:
    """Another is a runtime that answers with another output than stable, whose classes are not the same."""

    in_process = True

    def __init__(self, outputs: Columns) -> None:
        self.outputs = outputs

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        return self.outputs

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("fields", "outputs"),
    [
        ((Field(name="value", datatype="FP32", shape=(-1,)),), {"value": np.zeros(1, np.float32)}),
        (
            (
                Field(name="label", datatype="BYTES", shape=(-1,)),
                Field(name="probabilities", datatype="FP32", shape=(-1, 3), classes=("no", "may", "yes")),
            ),
            {"label": np.array(["no"], object), "probabilities": np.zeros((1, 3), np.float32)},
        ),
    ],
)
def test_answers_that_can_not_be_compared_are_failures(
    make_door: Callable[..., Any], run: Run, row: Any, fields: tuple[Field, ...], outputs: Columns
) -> None:
    """A break that was let through."""

    async def scenario() -> None:
        door = make_door()
        signature = msgspec.structs.replace(door.live.signature, outputs=fields)
        shadowed = Shadowed(door, Another(outputs), signature=signature)
        answer = await door.call("POST", "/predict/fraud", json.dumps(row).encode())
        assert answer.status == 200
        assert await shadowed.found(failed=1) == Tally(failed=1)

    run(scenario())


def test_rows_that_the_candidate_does_not_take_are_failures(
    make_door: Callable[..., Any], run: Run, row: Any
) -> None:
    async def scenario() -> None:
        door = make_door()
        more = (*door.live.signature.inputs, Field(name="height", datatype="FP64", shape=(-1,)))
        shadowed = Shadowed(door, Candidate(), signature=msgspec.structs.replace(door.live.signature, inputs=more))
        answer = await door.call("POST", "/predict/fraud", json.dumps(row).encode())
        assert answer.status == 200
        assert shadowed.mirror.tally == Tally(failed=1)

    run(scenario())


def test_an_input_that_may_be_missing_is_missing_in_the_copy(
    make_door: Callable[..., Any], run: Run, row: Any
) -> None:
    """A new one of these breaks no caller (`bundle.compatible`), so it goes out without --breaking."""

    async def scenario() -> None:
        door = make_door()
        more = (*door.live.signature.inputs, Field(name="height", datatype="FP64", shape=(-1,), missing=True))
        shadowed = Shadowed(door, Candidate(), signature=msgspec.structs.replace(door.live.signature, inputs=more))
        await door.call("POST", "/predict/fraud", json.dumps(row).encode())
        assert shadowed.mirror.tally.failed == 0
        assert (await shadowed.found(rows=1)).requests == 1

    run(scenario())


class Unlearning(CostLine):
    """An Unlearning is a line that stays as it is."""

    def observe(self, rows: int, seconds: float) -> None:
        pass


def test_what_a_fifth_of_a_core_can_not_take_is_left_out(
    make_door: Callable[..., Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        shadowed = Shadowed(make_door(), Candidate())
        shadowed.batcher.cost = Unlearning(1.0)
        mirror, now = shadowed.mirror, time.monotonic()
        clock = [now]
        monkeypatch.setattr("cloche.serving.mirror.time", SimpleNamespace(monotonic=lambda: clock[0]))
        engine = shadowed.door.engine
        # a second of work, so five seconds must pass between two of them
        for passed, requests, dropped in ((0.0, 1, 0), (1.0, 1, 1), (4.9, 1, 2), (5.1, 2, 2), (9.9, 2, 3)):
            clock[0] = now + passed
            mirror.answered(prepared(engine), outcome())
            tally = await shadowed.found(rows=requests)
            assert (tally.requests, tally.dropped, tally.failed) == (requests, dropped, 0)
        assert len(shadowed.engine.runtime.asked) == 2  # type: ignore[attr-defined]

    run(scenario())


def test_a_candidate_that_is_overloaded_leaves_out_and_tells_nobody(
    make_door: Callable[..., Any], run: Run
) -> None:
    """Its queue is full to the deadline: the batcher sheds."""

    async def scenario() -> None:
        shadowed = Shadowed(make_door(), Candidate(), cost_s=1.0)
        mirror = Mirror(shadowed.batcher, rollout=7, deadline_s=0.5)
        mirror.answered(prepared(shadowed.door.engine), outcome())
        assert mirror.tally == Tally(failed=1)

    run(scenario())


def test_what_came_out_of_the_cache_or_never_was_prepared_is_not_mirrored(
    make_door: Callable[..., Any], run: Run, row: Any
) -> None:
    async def scenario() -> None:
        shadowed = Shadowed(make_door(cache=Cache(size=1_000_000)), Candidate())
        for _ in range(5):
            answer = await shadowed.door.call("POST", "/predict/fraud", json.dumps(row).encode())
            assert answer.status == 200
        await shadowed.found(rows=1)
        shadowed.mirror.answered(None, outcome())
        assert (shadowed.mirror.tally.requests, len(shadowed.engine.runtime.asked)) == (1, 1)  # type: ignore[attr-defined]

    run(scenario())


def test_what_the_stable_version_refuses_or_fails_at_is_not_mirrored(
    make_door: Callable[..., Any], run: Run, row: Any
) -> None:
    def fail(columns: Columns) -> None:
        raise ModelError("no")

    async def scenario() -> None:
        shadowed = Shadowed(make_door(), Candidate())
        refused = await shadowed.door.call("POST", "/predict/fraud", b"{}")
        assert refused.status == 422
        shadowed.door.runtime.acts = fail
        failed = await shadowed.door.call("POST", "/predict/fraud", json.dumps(row).encode())
        assert failed.status == 500
        assert shadowed.mirror.tally == Tally()

    run(scenario())


def test_a_share_of_the_requests_is_mirrored(make_door: Callable[..., Any], run: Run) -> None:
    async def scenario() -> None:
        shadowed = Shadowed(make_door(), Candidate(), weight=2_000, sticky=b"x-user-id")
        mirror = shadowed.mirror
        taken = [mirror.takes({b"x-user-id": b"%d" % number}) for number in range(10_000)]
        assert sum(taken) / len(taken) == pytest.approx(0.2, abs=0.02)
        assert taken == [mirror.takes({b"x-user-id": b"%d" % number}) for number in range(10_000)]
        # without the header, or with nothing in it, by chance
        for headers in ({}, {b"x-user-id": b""}):
            share = sum(mirror.takes(headers) for _ in range(10_000)) / 10_000
            assert share == pytest.approx(0.2, abs=0.02)
        mirror.weight = 0
        assert not any(mirror.takes({}) for _ in range(1_000))
        plain = Mirror(shadowed.batcher, rollout=7, deadline_s=1.0)
        plain.weight = 10_000
        assert all(plain.takes({b"x-user-id": b"7"}) for _ in range(100))

    run(scenario())


def test_nobodys_answer_is_the_candidates(make_door: Callable[..., Any], run: Run, board: Board) -> None:
    async def scenario() -> None:
        shadowed = Shadowed(make_door(), Candidate())
        for status in (200, 500):
            shadowed.mirror.count(status, 9.0)
        assert shadowed.mirror.tally == Tally()
        assert ARMS not in [labels["name"] for labels, _ in board.labelled()]

    run(scenario())


def test_many_rows_of_a_request_are_compared_one_by_one(make_door: Callable[..., Any], run: Run) -> None:
    async def scenario() -> None:
        shadowed = Shadowed(make_door(), Candidate())
        shadowed.mirror.answered(prepared(shadowed.door.engine, rows=100), outcome(100))
        tally = await shadowed.found(rows=100)
        assert (tally.requests, tally.agree) == (1, 100)
        assert tally.stable_s == 0.25
        assert tally.difference_sum == pytest.approx(25.0)

    run(scenario())


class Watched(Engine):
    """A Watched is an Engine that remembers on which threads rows were prepared."""

    def prepare(self, columns: Columns) -> Prepared:
        self.threads = [*getattr(self, "threads", []), threading.current_thread()]
        return super().prepare(columns)


def test_a_copy_of_a_large_request_is_handed_over_in_the_event_loop(
    make_door: Callable[..., Any], run: Run, row: dict[str, Any]
) -> None:
    """Answers to large bodies are encoded on a side thread, and a Batcher belongs to its loop."""

    async def scenario() -> None:
        shadowed = Shadowed(make_door(max_body=10_000_000), Candidate(), engine=Watched)
        rows = [row] * 8_000
        answer = await shadowed.door.call("POST", "/predict/fraud", json.dumps(rows).encode())
        assert answer.status == 200
        await shadowed.found(rows=8_000)
        assert set(shadowed.engine.threads) == {threading.current_thread()}  # type: ignore[attr-defined]

    run(scenario())


def test_a_pair_is_done_once_and_tells_who_waits_for_that() -> None:
    found: list[Tally] = []
    then: list[Pair] = []
    wide: Columns = {**outcome()[0], "probabilities": np.zeros((1, 3), np.float32)}
    for end in ("result", "other", "wide", "exception"):
        pair = Pair(found.append, {"age": np.array([20])}, outcome())
        pair.add_done_callback(then.append)
        assert not pair.done()
        if end == "exception":
            pair.set_exception(ModelError("no"))
        else:
            pair.set_result(({"result": outcome()[0], "other": {}, "wide": wide}[end], 0.0, 0.5))
        assert pair.done()
        assert then[-1] is pair
    assert [one.agree for one in found] == [1, 0, 0, 0]
    assert [one.failed for one in found] == [0, 1, 1, 1]
    assert (found[0].stable_s, found[0].candidate_s) == (0.25, 0.5)
    Pair(found.append, {"age": np.array([20])}, outcome()).set_exception(ModelError("nobody waits"))
