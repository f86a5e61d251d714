"""A worker follows what is desired: what is new is loaded beside, then its paths lead there at once."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
import uvloop
from onnx import numpy_helper
from tests.unit.serving.conftest import counts_of

from cloche.app.desired import DeploymentConfig, Desired, Trial, Wished, write_desired
from cloche.app.follow import Follower
from cloche.app.local import pack_into
from cloche.app.project import open_project
from cloche.app.versions import Loaded, Versions, load
from cloche.control.watch import Watch, tally_path, trouble_path
from cloche.core.board import Board, Head, Role, Slot, State, series_hash
from cloche.core.errors import ModelError
from cloche.core.signature import Columns
from cloche.rollout.analysis import Policy
from cloche.rollout.shadow import Tally
from cloche.runtimes.base import Runtime
from cloche.serving.http import App
from cloche.serving.keyring import FollowedKeys
from cloche.serving.pages import Pages
from cloche.serving.state import WorkerState
from cloche.testing import toy_onnx

WHOLE = 10_000
ROW = {"x": [1.0, 2.0, 3.0]}
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[DeploymentConfig, DeploymentConfig, tuple[str, ...]]:
    """toy:1, which answers twice the sum, toy:2, which answers three times of it, and whose seals are believed."""
    folder = tmp_path_factory.mktemp("served")
    twice = toy_onnx(folder / "twice.onnx")
    model = onnx.load(twice)
    weights = model.graph.initializer[0]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * 1.5, weights.name))
    onnx.save(model, folder / "thrice.onnx")
    with open_project(folder) as project:
        bundles = [
            pack_into(project, folder / f"{name}.onnx", None, None, name="toy") for name in ("twice", "thrice")
        ]
        configs = [
            DeploymentConfig(
                deployment="toy", model="toy", version=number, digest=bundle.digest, bundle=str(bundle.path),
                deadline_s=5.0, on_invalid="flag", keys_required=False,
            )
            for number, bundle in enumerate(bundles, 1)
        ]  # fmt: skip
        return configs[0], configs[1], tuple(project.trusted())


class Closing:
    """A Closing is a Runtime that knows whether it was closed."""

    def __init__(self, inner: Runtime) -> None:
        self._inner = inner
        self.in_process = inner.in_process
        self.closed = False

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        assert not self.closed
        return self._inner.run(columns, timeout_s)

    def close(self) -> None:
        self.closed = True
        self._inner.close()


class World:
    """A World is the part of a worker that follows a file, in the loop that runs."""

    def __init__(self, folder: Path, configs: Any) -> None:
        self.one, self.two, trusted = configs
        self.folder = folder
        self.file = folder / "desired.json"
        self.board = Board(folder / "board")
        self.slot: Slot = self.board.claim(1, Role.WORKER, pid=1, start=1)
        self.slot.set(Head.STATE, State.READY)
        self.state = WorkerState()
        self.state.is_ready = True
        self.revision = 0
        self.loads: list[str] = []
        self.loading: list[int] = []
        self.runtimes: dict[str, Closing] = {}
        self.fails: Exception | None = None
        self._trusted = trusted
        self.versions = Versions(
            self._load, self, self.state, FollowedKeys([]), asyncio.get_running_loop(), loopback=True
        )  # fmt: skip
        first = self.desire()
        table = self.versions.table(first)
        self.app = App(table, Pages(table, self.board, self.state), self.state, max_body=1_000_000)
        self.follower = Follower(
            self.file, self.app, self.versions, (self.board, self.slot), self.state, asyncio.get_running_loop()
        )
        self.first = first

    def _load(self, one: DeploymentConfig) -> Loaded:
        self.loads.append(one.ref)
        self.loading.append(self.slot.get(Head.LOADING))
        if self.fails is not None:
            raise self.fails
        loaded = load(one, self._trusted, 30.0)
        runtime = self.runtimes[one.ref] = Closing(loaded.runtime)
        return msgspec.structs.replace(loaded, runtime=runtime)

    def trial(self, weight: int = WHOLE, **changes: Any) -> Trial:
        plain = Trial(candidate=self.two, rollout=7, weight=weight, policy=Policy(), slow_s=1.0)
        return msgspec.structs.replace(plain, **changes)

    def desire(self, *, stable: DeploymentConfig | None = None, **more: Any) -> Desired:
        """The next revision."""
        self.revision += 1
        return Desired(revision=self.revision, deployments=(Wished(stable=stable or self.one, **more),))

    def write(self, desired: Desired) -> Desired:
        write_desired(desired, self.file)
        return desired

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not what():
                await asyncio.sleep(0.005)

    async def applied(self, desired: Desired) -> None:
        self.write(desired)
        await self.until(lambda: self.slot.get(Head.REVISION) == desired.revision)

    async def ask(self) -> tuple[str, float]:
        """Which version answers, and what."""
        sent: list[Any] = []
        messages = [{"type": "http.request", "body": json.dumps(ROW).encode(), "more_body": False}]

        async def receive() -> Any:
            return messages.pop() if messages else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/predict/toy", "raw_path": b"/predict/toy",
            "query_string": b"", "headers": [], "root_path": "",
        }  # fmt: skip
        await self.app(scope, receive, send)
        assert sent[0]["status"] == 200, sent
        body = json.loads(sent[1]["body"])
        return body["model"], body["prediction"]["value"]


@pytest.fixture
def world(folder: Path, served: Any) -> Callable[[], Any]:
    @asynccontextmanager
    async def make() -> Any:
        made = World(folder, served)
        made.follower.start(made.first)
        try:
            yield made
        finally:
            made.follower.stop()
            made.versions.close()

    return make


@pytest.fixture
def run() -> Iterator[Run]:
    async def bounded(scenario: Coroutine[Any, Any, None]) -> None:
        await asyncio.wait_for(scenario, 60)

    yield lambda scenario: uvloop.run(bounded(scenario))
    for thread in threading.enumerate():
        if thread.name == "desired":
            thread.join(10)


def test_a_new_table_is_served_and_the_worker_says_so(world: Callable[[], Any], run: Run) -> None:
    async def scenario() -> None:
        async with world() as w:
            assert await w.ask() == ("toy:1", 12.0)
            await w.applied(w.desire(trial=w.trial(0)))
            assert await w.ask() == ("toy:1", 12.0)
            assert w.loads == ["toy:1", "toy:2"]
            await w.applied(w.desire(trial=w.trial(WHOLE)))
            assert await w.ask() == ("toy:2", 18.0)
            # promoted: it is loaded already, whatever names it
            promoted = msgspec.structs.replace(w.two, aliases=("champion",))
            await w.applied(w.desire(stable=promoted, previous=w.one))
            assert await w.ask() == ("toy:2", 18.0)
            # and rolled back
            await w.applied(w.desire())
            assert await w.ask() == ("toy:1", 12.0)
            assert w.loads == ["toy:1", "toy:2"]

    run(scenario())


def test_a_change_of_weight_alone_builds_nothing_anew(world: Callable[[], Any], run: Run) -> None:
    async def scenario() -> None:
        async with world() as w:
            await w.applied(w.desire(trial=w.trial(0)))
            table, ways = w.app.table, dict(w.app.ways)
            for weight in (50, 500, 0, WHOLE):
                await w.applied(w.desire(trial=w.trial(weight)))
                assert w.app.table is table
                assert w.app.ways == ways
                fork = w.app.ways[b"/predict/toy"].fork
                assert fork is not None
                assert fork.split.weight == weight
            # who has it is the same split all along, with what it has counted
            assert await w.ask() == ("toy:2", 18.0)
            assert counts_of(fork.split.candidate) == (1, 0)

    run(scenario())


def test_a_table_that_is_made_anew_keeps_the_split_with_what_it_knows(world: Callable[[], Any], run: Run) -> None:
    async def scenario() -> None:
        async with world() as w:
            await w.applied(w.desire(trial=w.trial(500)))
            split = w.app.ways[b"/predict/toy"].fork.split
            split.tripped = True
            stable = msgspec.structs.replace(w.one, aliases=("champion",))  # an alias was moved meanwhile
            await w.applied(w.desire(stable=stable, trial=w.trial(500)))
            assert w.app.ways[b"/predict/toy"].fork.split is split
            # another rollout has another
            await w.applied(w.desire(stable=stable, trial=w.trial(500, rollout=8)))
            assert w.app.ways[b"/predict/toy"].fork.split is not split

    run(scenario())


def test_who_loads_says_what_on_the_board(world: Callable[[], Any], run: Run) -> None:
    """Should it end the process, its supervisor sees what did."""

    async def scenario() -> None:
        async with world() as w:
            await w.applied(w.desire(trial=w.trial()))
            hashes = [series_hash({"deployment": "toy", "version": number}) for number in ("1", "2")]
            assert w.loading == hashes
            assert w.slot.get(Head.LOADING) == 0

    run(scenario())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModelError("the golden examples differ", code="CL-E901"), "the golden examples differ"),
        (RuntimeError("a bug"), "RuntimeError: a bug"),
    ],
)
def test_what_can_not_be_loaded_is_told_and_what_is_served_stays(
    world: Callable[[], Any], run: Run, error: Exception, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with world() as w:
            watch = Watch(w.board, w.folder)
            w.fails = error
            refused = w.write(w.desire(trial=w.trial()))
            await w.until(trouble_path(w.folder, 1).exists)
            assert watch.trouble(refused.revision) == words
            assert w.slot.get(Head.REVISION) < refused.revision
            assert w.slot.get(Head.LOADING) == 0
            assert await w.ask() == ("toy:1", 12.0)
            # it is taken off again, and tried another time
            await w.applied(w.desire())
            assert watch.trouble(w.revision) is None
            w.fails = None
            await w.applied(w.desire(trial=w.trial()))
            assert await w.ask() == ("toy:2", 18.0)
            assert watch.trouble(w.revision) is None

    run(scenario())
    assert any(record.__dict__.get("action") == "desired_refused" for record in caplog.records)


def test_a_bundle_that_is_not_there_is_trouble(world: Callable[[], Any], run: Run) -> None:
    async def scenario() -> None:
        async with world() as w:
            gone = msgspec.structs.replace(w.two, bundle=str(w.folder / "nowhere"))
            refused = w.write(w.desire(trial=w.trial(candidate=gone)))
            await w.until(trouble_path(w.folder, 1).exists)
            assert "nowhere" in str(Watch(w.board, w.folder).trouble(refused.revision))
            assert await w.ask() == ("toy:1", 12.0)

    run(scenario())


def test_a_file_that_says_nothing_is_passed_over(
    world: Callable[[], Any], run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with world() as w:
            for number, text in enumerate(("{", "{}"), 1):
                fresh = w.folder / "fresh"
                fresh.write_text(text)
                fresh.replace(w.file)
                await w.until(lambda number=number: len(caplog.records) == number)
            await w.applied(w.desire(trial=w.trial()))
            assert await w.ask() == ("toy:2", 18.0)
            assert not trouble_path(w.folder, 1).exists()

    run(scenario())


def test_a_version_that_is_not_desired_any_more_is_closed_after_its_time(
    world: Callable[[], Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with world() as w:
            await w.applied(w.desire(trial=w.trial()))
            old = w.runtimes["toy:1"]
            await w.applied(w.desire(stable=w.two, previous=w.one))
            assert not old.closed
            monkeypatch.setattr("cloche.app.follow.GRACE_S", -4.7)  # with the deadline of 5 s that is 0.3 s
            await w.applied(w.desire(stable=w.two))
            assert not old.closed  # who is in its queue is answered
            await w.until(lambda: old.closed)
            assert not w.runtimes["toy:2"].closed
            assert await w.ask() == ("toy:2", 18.0)
            # whoever wants it again has it loaded anew
            await w.applied(w.desire(stable=w.one))
            assert await w.ask() == ("toy:1", 12.0)
            assert w.loads == ["toy:1", "toy:2", "toy:1"]

    run(scenario())


def test_what_was_loaded_for_something_that_failed_is_closed_when_that_is_given_up(
    world: Callable[[], Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that were new the second can't be loaded: the first must not stay in memory for good."""
    monkeypatch.setattr("cloche.app.follow.GRACE_S", -5.0)

    async def scenario() -> None:
        async with world() as w:
            gone = msgspec.structs.replace(w.two, deployment="other", bundle=str(w.folder / "nowhere"))
            w.revision += 1
            both = (Wished(stable=w.one, trial=w.trial()), Wished(stable=gone))
            w.write(Desired(revision=w.revision, deployments=both))
            await w.until(trouble_path(w.folder, 1).exists)
            assert w.loads == ["toy:1", "toy:2", "toy:2"]
            await w.applied(w.desire())
            await w.until(lambda: w.runtimes["toy:2"].closed)

    run(scenario())


def test_what_a_shadow_finds_out_is_told_in_a_file(world: Callable[[], Any], run: Run) -> None:
    async def scenario() -> None:
        async with world() as w:
            await w.applied(w.desire(trial=w.trial(kind="shadow")))
            for _ in range(3):
                assert await w.ask() == ("toy:1", 12.0)
            watch = Watch(w.board, w.folder)

            def seen() -> Tally:
                return watch.tallies(7).get("shadow-1", Tally())

            await w.until(lambda: seen().rows + seen().dropped == 3)
            tally = seen()
            assert (tally.agree, tally.failed, tally.difference_most) == (0, 0, 6.0)
            assert tally.worst[0].stable == {"value": 12.0}
            await w.applied(w.desire())
            await w.until(lambda: seen() == Tally())

    run(scenario())


def test_a_folder_that_takes_no_file_does_not_end_the_following(world: Callable[[], Any], run: Run) -> None:
    """A full disk, for one."""

    async def scenario() -> None:
        async with world() as w:
            (thread,) = [one for one in threading.enumerate() if one.name == "desired"]
            tally_path(w.folder, 1).mkdir()  # nothing can be written there
            await w.applied(w.desire(trial=w.trial(kind="shadow")))
            await w.ask()
            ends = asyncio.get_running_loop().time() + 2.5  # two more times to tell
            await w.until(lambda: not thread.is_alive() or asyncio.get_running_loop().time() > ends)
            assert thread.is_alive()
            await w.applied(w.desire(trial=w.trial(0, kind="shadow")))

    run(scenario())


def test_both_arms_of_an_ab_are_measured(world: Callable[[], Any], run: Run) -> None:
    async def scenario() -> None:
        async with world() as w:
            await w.applied(w.desire(trial=w.trial(kind="ab")))
            assert await w.ask() == ("toy:2", 18.0)
            stable, candidate = Watch(w.board, w.folder).sums("toy", 1, 2, 7)["latency"]
            assert (stable.n, candidate.n) == (0, 1)

    run(scenario())


def test_who_is_told_to_stop_follows_nothing_more(world: Callable[[], Any], run: Run) -> None:
    async def scenario() -> None:
        async with world() as w:
            await w.applied(w.desire())
            (thread,) = [one for one in threading.enumerate() if one.name == "desired"]
            w.follower.stop()
            await w.until(lambda: not thread.is_alive())
            before = w.slot.get(Head.REVISION)
            w.write(w.desire(trial=w.trial()))
            assert (w.slot.get(Head.REVISION), w.loads) == (before, ["toy:1"])

    run(scenario())
