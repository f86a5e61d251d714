"""Two versions of one deployment in a worker: which path is whose, and how the table changes under callers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from tests.unit.serving.conftest import counts_of

from cloche.core.signature import Columns
from cloche.engine.batcher import Batcher
from cloche.engine.cost import CostLine
from cloche.engine.engine import Engine
from cloche.monitoring.counters import DeploymentCounters
from cloche.rollout.analysis import Policy
from cloche.serving.mirror import Mirror
from cloche.serving.pages import Pages
from cloche.serving.predictions import Deployment, Predictions
from cloche.serving.protocols.base import dialects_for
from cloche.serving.split import Split
from cloche.serving.table import Served, Table

Run = Callable[[Coroutine[Any, Any, None]], None]
WHOLE = 10_000


class Versions:
    """A Versions is a door with versions 3 (its own), 4 and 5, to be put into tables."""

    def __init__(self, door: Any) -> None:
        self.door = door
        self.stable: Predictions = door.app.table.predictions[0]
        self.four = self.version(4)
        self.five = self.version(5)

    def version(self, number: int) -> Predictions:
        door = self.door
        engine = Engine(door.live.signature, type(door.runtime)(), ref=f"fraud-model:{number}", digest="e")
        counters = DeploymentCounters(door.slot, "fraud", str(number))
        batcher = Batcher(engine, counters, CostLine(1e-6, 1e-7), batch_s=1.0)
        live = msgspec.structs.replace(door.live, version=number)
        deployment = Deployment(live, engine, batcher, counters, deadline_s=5.0)
        return Predictions(deployment, dialects_for(live), door.guard)

    def split(self, weight: int = WHOLE, candidate: int = 4, **options: Any) -> Split:
        return Split(
            self.door.slot, deployment="fraud", stable=3, candidate=candidate, rollout=7, weight=weight,
            policy=Policy(), slow_s=1.0, **options,
        )  # fmt: skip

    def serve(self, *served: Served) -> Table:
        """Turn the door to this table."""
        table = Table(served)
        self.door.app.turn_to(table, Pages(table, self.door.board, self.door.state))
        return table


@pytest.fixture
def make_versions(make_door: Callable[..., Any]) -> Callable[[], Versions]:
    return lambda: Versions(make_door())


def infer_body(row: dict[str, Any]) -> dict[str, Any]:
    types = {"age": "INT64", "pay": "FP64", "job": "BYTES", "point": "FP32"}
    return {
        "inputs": [
            {"name": name, "datatype": types[name], "shape": [1, 2] if name == "point" else [1],
             "data": value if name == "point" else [value]}
            for name, value in row.items()
        ]
    }  # fmt: skip


def test_the_shared_paths_fork_and_those_with_a_version_in_them_do_not(
    make_versions: Callable[[], Versions], run: Run
) -> None:
    async def scenario() -> None:
        versions = make_versions()
        split = versions.split()
        table = versions.serve(Served(versions.stable, (versions.five,), versions.four, split))
        forked = {path for path, way in table.ways.items() if way.fork is not None}
        assert b"/predict/fraud" in forked
        assert b"/v2/models/fraud/infer" in forked
        assert not [path for path in forked if b"versions" in path]
        for path, way in table.ways.items():
            if path in forked:
                assert way.predictions is versions.stable
                assert way.arm is split.stable
                assert way.fork is not None
                assert (way.fork.taken.predictions, way.fork.taken.arm) == (versions.four, split.candidate)
                # it is told in the candidate's own words
                assert way.fork.taken.dialect in versions.four.dialects
                assert type(way.fork.taken.dialect) is type(way.dialect)
            else:
                assert (way.fork, way.arm) == (None, None)
        for number, own in ((3, versions.stable), (4, versions.four), (5, versions.five)):
            assert table.ways[b"/v2/models/fraud/versions/%d/infer" % number].predictions is own

    run(scenario())


def test_requests_go_to_the_versions_of_their_paths(
    make_versions: Callable[[], Versions], run: Run, row: dict[str, Any]
) -> None:
    async def scenario() -> None:
        versions = make_versions()
        split = versions.split()
        versions.serve(Served(versions.stable, (versions.five,), versions.four, split))
        async with versions.door.open() as door:
            assert (await door.ask("/predict/fraud", row)).json()["model"] == "fraud-model:4"
            body = infer_body(row)
            assert (await door.ask("/v2/models/fraud/infer", body)).json()["model_version"] == "4"
            for number in "345":
                answer = await door.ask(f"/v2/models/fraud/versions/{number}/infer", body)
                assert answer.json()["model_version"] == number
            # who names a version is in neither arm
            assert (counts_of(split.candidate), counts_of(split.stable)) == ((2, 0), (0, 0))
            split.weight = 0
            assert (await door.ask("/predict/fraud", row)).json()["model"] == "fraud-model:3"
            assert (counts_of(split.candidate), counts_of(split.stable)) == ((2, 0), (1, 0))

    run(scenario())


@pytest.mark.parametrize("way", ["the short way", "over ASGI"])
def test_both_ways_of_a_request_fork_alike(
    make_versions: Callable[[], Versions], run: Run, row: dict[str, Any], way: str
) -> None:
    async def scenario() -> None:
        versions = make_versions()
        split = versions.split(weight=5_000, sticky=b"x-user-id")
        versions.serve(Served(versions.stable, (), versions.four, split))
        async with versions.door.open() as door:
            for number in range(40):
                headers = {"x-user-id": str(number)}
                wanted = 4 if split.takes({b"x-user-id": b"%d" % number}) else 3
                if way == "the short way":
                    answer = await door.ask("/predict/fraud", row, headers=headers)
                else:
                    answer = await door.call("POST", "/predict/fraud", json.dumps(row).encode(), headers)
                assert answer.json()["model"] == f"fraud-model:{wanted}"
                assert answer.headers["cloche-model"] == f"fraud-model:{wanted}"
        assert counts_of(split.candidate)[0] + counts_of(split.stable)[0] == 40

    run(scenario())


@pytest.mark.parametrize("weight", [0, WHOLE])
@pytest.mark.parametrize("number", [3, 4])
def test_who_names_a_live_version_in_the_query_gets_that(
    make_versions: Callable[[], Versions], run: Run, row: dict[str, Any], number: int, weight: int
) -> None:
    """A caller that asks for `?version=3` must not be refused for a share of its requests."""

    async def scenario() -> None:
        versions = make_versions()
        versions.serve(Served(versions.stable, (), versions.four, versions.split(weight)))
        answer = await versions.door.call("POST", f"/predict/fraud?version={number}", json.dumps(row).encode())
        assert (answer.status, answer.json().get("model")) == (200, f"fraud-model:{number}")

    run(scenario())


def test_everyone_is_told_of_and_stable_stands_for_the_deployment(
    make_versions: Callable[[], Versions], run: Run
) -> None:
    async def scenario() -> None:
        versions = make_versions()
        table = versions.serve(Served(versions.stable, (versions.five,), versions.four, versions.split(0)))
        assert table.predictions == (versions.stable,)
        assert table.everyone == (versions.stable, versions.four, versions.five)
        for number in "345":
            told = await versions.door.call("GET", f"/v2/models/fraud/versions/{number}")
            assert told.status == 200
        assert (await versions.door.call("GET", "/v2/models/fraud/versions/6")).status == 404
        assert (await versions.door.call("GET", "/predict/fraud")).status == 405
        # an unknown version is told in the dialect of its path
        nobody = await versions.door.call("POST", "/v2/models/fraud/versions/6/infer", b"{}")
        assert nobody.status == 404
        assert "error" in nobody.json()

    run(scenario())


def test_a_candidate_without_a_split_answers_where_it_is_named_only(
    make_versions: Callable[[], Versions], run: Run, row: dict[str, Any]
) -> None:
    async def scenario() -> None:
        versions = make_versions()
        table = versions.serve(Served(versions.stable, (), versions.four))
        assert all(way.fork is None for way in table.ways.values())
        assert table.ways[b"/v2/models/fraud/versions/4/infer"].predictions is versions.four
        answer = await versions.door.call("POST", "/predict/fraud", json.dumps(row).encode())
        assert answer.json()["model"] == "fraud-model:3"

    run(scenario())


def test_the_way_of_a_shadow_is_stables_with_the_mirror_for_an_arm(
    make_versions: Callable[[], Versions], run: Run, row: dict[str, Any]
) -> None:
    async def scenario() -> None:
        versions = make_versions()
        mirror = Mirror(versions.four.deployment.batcher, rollout=7, deadline_s=1.0)
        table = versions.serve(Served(versions.stable, (), versions.four, mirror))
        way = table.ways[b"/predict/fraud"]
        assert (way.predictions, way.arm) == (versions.stable, None)
        assert way.fork is not None
        taken = way.fork.taken
        assert (taken.predictions, taken.dialect, taken.arm) == (versions.stable, way.dialect, mirror)
        assert way.fork.choose(way, {}) is way
        mirror.weight = WHOLE
        assert way.fork.choose(way, {}) is taken
        assert table.ways[b"/v2/models/fraud/versions/4/infer"].fork is None
        answer = await versions.door.call("POST", "/predict/fraud", json.dumps(row).encode())
        assert answer.json()["model"] == "fraud-model:3"
        async with asyncio.timeout(10):
            while not mirror.tally.rows:
                await asyncio.sleep(0.001)
        assert mirror.tally.agree == 1

    run(scenario())


def test_the_table_changes_under_an_open_connection(
    make_versions: Callable[[], Versions], run: Run, row: dict[str, Any]
) -> None:
    async def scenario() -> None:
        versions = make_versions()
        four = b"/v2/models/fraud/versions/4/infer"
        async with versions.door.open() as door, door.connect() as client:
            ways = door.app.ways

            async def model() -> str:
                return str((await client.ask("/predict/fraud", row)).json()["model"])

            assert await model() == "fraud-model:3"
            versions.serve(Served(versions.stable, (), versions.four, versions.split()))
            assert await model() == "fraud-model:4"
            # promoted
            versions.serve(Served(versions.four, (versions.stable,)))
            assert await model() == "fraud-model:4"
            assert "4" in (await client.ask("/v2/models/fraud")).json()["versions"]
            # and gone again
            versions.serve(Served(versions.stable))
            assert await model() == "fraud-model:3"
            assert (await client.ask(four.decode(), infer_body(row))).status == 404
            # the connections look into this very dict
            assert door.app.ways is ways
            assert four not in ways

    run(scenario())


def test_who_is_being_answered_is_answered_by_the_version_that_began(
    make_versions: Callable[[], Versions], run: Run, row: dict[str, Any]
) -> None:
    async def scenario() -> None:
        versions = make_versions()
        door = versions.door
        door.batcher.allow_inline(False)
        began, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def act(columns: Columns) -> None:
            loop.call_soon_threadsafe(began.set)
            go_on.wait(20)

        door.runtime.acts = act
        async with door.open(), door.connect() as client:
            asking = asyncio.ensure_future(client.ask("/predict/fraud", row))
            await asyncio.wait_for(began.wait(), 10)
            versions.serve(Served(versions.four))
            assert (await door.ask("/predict/fraud", row)).json()["model"] == "fraud-model:4"
            go_on.set()
            answer = await asking
            assert (answer.status, answer.json()["model"]) == (200, "fraud-model:3")
            assert (await client.ask("/predict/fraud", row)).json()["model"] == "fraud-model:4"

    run(scenario())


def test_keys_guard_the_candidate_as_they_guard_stable(
    make_versions: Callable[[], Versions], run: Run, row: dict[str, Any]
) -> None:
    """One guard stands before all versions, so that a limit is not doubled by a rollout."""

    async def scenario() -> None:
        versions = make_versions()
        table = versions.serve(Served(versions.stable, (versions.five,), versions.four, versions.split()))
        assert {table.guard(path) for path in table.ways} == {versions.door.guard}

    run(scenario())
