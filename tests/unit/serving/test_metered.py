"""The arms of an A/B trial: besides what went wrong, what callers got is summed on the board."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.unit.serving.conftest import counts_of

from cloche.control.watch import Watch
from cloche.core.board import Board, Role, Slot, series_hash
from cloche.core.errors import ModelError
from cloche.core.signature import Columns
from cloche.engine.batcher import Batcher
from cloche.engine.cache import Cache
from cloche.engine.cost import CostLine
from cloche.engine.engine import Engine, Prepared
from cloche.monitoring.counters import DeploymentCounters
from cloche.rollout.abtest import Sums, difference
from cloche.rollout.analysis import Policy
from cloche.serving.http import App
from cloche.serving.metered import METRICS, SCALE, SUMS, UNITS, MeteredArm, MeteredSplit, score_of, sums_labels
from cloche.serving.pages import Pages
from cloche.serving.predictions import Deployment, Predictions
from cloche.serving.protocols.base import dialects_for
from cloche.serving.split import Split
from cloche.serving.table import Served, Table

Run = Callable[[Coroutine[Any, Any, None]], None]
LABELS = {"deployment": "fraud", "version": "4", "arm": "candidate"}


@pytest.fixture
def slot(board: Board) -> Slot:
    return board.claim(1, Role.WORKER, pid=1, start=1)


@pytest.fixture
def arm(slot: Slot) -> MeteredArm:
    return MeteredArm(slot, LABELS, 0.1, trial=7)


def chances(*last: float) -> Columns:
    return {"probabilities": np.array([[1 - one, one] for one in last], np.float64)}


def summed(board: Board, metric: str, **other: str) -> list[float]:
    sums = board.sums()
    labels = {**LABELS, **other}
    return [sums.get(series_hash(one), 0) / SCALE for one in sums_labels(labels, metric, 7)]


PREPARED = Prepared({}, 1, ())


@pytest.mark.parametrize(
    ("outputs", "score"),
    [
        (chances(0.25), 0.25),
        (chances(0.25, 0.75, 0.2), 0.4),
        ({"probabilities": np.array([[0.1, 0.2, 0.7]])}, 0.7),
        ({"probabilities": np.zeros((0, 2))}, None),
        ({"value": np.ones(3)}, None),
        ({}, None),
    ],
)
def test_the_score_of_an_answer_is_the_mean_of_the_last_class(outputs: Columns, score: float | None) -> None:
    assert score_of(outputs) == (None if score is None else pytest.approx(score))


def test_scores_and_seconds_are_summed_apart(arm: MeteredArm, board: Board) -> None:
    for seconds, score in ((0.01, 0.25), (0.03, 0.75)):
        arm.answered(PREPARED, (chances(score), 0.0, 0.001))
        arm.count(200, seconds)
    n, total, squares = summed(board, "latency")
    assert n * SCALE == 2
    assert (total, squares) == (pytest.approx(0.04), pytest.approx(0.001))
    n, total, squares = summed(board, "score")
    assert n * SCALE == 2
    assert (total, squares) == (pytest.approx(1.0), pytest.approx(0.625))


def test_what_went_wrong_has_no_latency_and_counts_as_in_any_rollout(arm: MeteredArm, board: Board) -> None:
    for status, seconds in ((500, 0.01), (503, 9.0), (400, 0.01), (499, 9.0), (499, 0.01)):
        arm.count(status, seconds)
    assert counts_of(arm) == (3, 3)
    assert summed(board, "latency") == [0, 0, 0]
    # late is bad, and an answer all the same
    arm.count(200, 0.2)
    assert counts_of(arm) == (4, 4)
    assert summed(board, "latency")[1] == pytest.approx(0.2)


def test_who_looks_after_what_went_wrong_is_told(slot: Slot) -> None:
    told: list[int] = []
    arm = MeteredArm(slot, LABELS, 0.1, lambda: told.append(1), trial=7)
    arm.count(200, 0.01)
    arm.count(500, 0.01)
    assert told == [1]


def test_a_model_without_probabilities_has_no_score(arm: MeteredArm, board: Board) -> None:
    arm.answered(PREPARED, ({"value": np.ones(3)}, 0.0, 0.001))
    arm.answered(None, ({}, 0.0, 0.001))
    assert summed(board, "score") == [0, 0, 0]


def test_another_trial_begins_at_nothing(arm: MeteredArm, slot: Slot, board: Board, tmp_path: Path) -> None:
    arm.count(200, 0.01)
    MeteredArm(slot, LABELS, 0.1, trial=8).count(200, 0.05)
    watch = Watch(board, tmp_path)
    assert watch.sums("fraud", 3, 4, 7)["latency"][1].total == pytest.approx(0.01)
    assert watch.sums("fraud", 3, 4, 8)["latency"][1].total == pytest.approx(0.05)
    assert watch.sums("fraud", 3, 4, 9)["latency"] == (Sums(), Sums())


def test_every_series_can_be_told_from_the_others() -> None:
    every = [
        series_hash(labels)
        for metric in METRICS
        for version in ("3", "4")
        for labels in sums_labels({**LABELS, "version": version}, metric, 7)
    ]
    assert len(set(every)) == len(every) == 12
    assert {labels["name"] for labels in sums_labels(LABELS, "score", 7)} == {SUMS}


@pytest.mark.parametrize("typical_s", [0.0004, 0.001, 0.005, 0.2, 5.0])
def test_the_variance_of_what_is_quick_is_not_rounded_off(
    slot: Slot, board: Board, tmp_path: Path, typical_s: float
) -> None:
    """An interval without it is wrong nearly always; the board holds whole numbers."""
    chance = np.random.default_rng(0)
    stable = MeteredArm(slot, {**LABELS, "version": "3", "arm": "stable"}, 60.0, trial=7)
    candidate = MeteredArm(slot, LABELS, 60.0, trial=7)
    times = chance.lognormal(np.log(typical_s), 0.3, (2, 2_000))
    for one, other in times.T.tolist():
        stable.count(200, one)
        candidate.count(200, other)
    arms = Watch(board, tmp_path).sums("fraud", 3, 4, 7)["latency"]
    for arm, seconds in zip(arms, times, strict=True):
        assert arm.n == 2_000
        assert arm.mean == pytest.approx(seconds.mean(), rel=0.02)
        assert arm.variance == pytest.approx(seconds.var(), rel=0.1)
    found = difference(*arms, 0.05)
    assert found is not None
    assert not found.is_clear


def test_the_variance_of_scores_next_to_nothing_is_not_rounded_off(
    slot: Slot, board: Board, tmp_path: Path
) -> None:
    arm = MeteredArm(slot, LABELS, 60.0, trial=7)
    scores = np.random.default_rng(0).beta(1, 2_000, 2_000)
    for score in scores.tolist():
        arm.answered(PREPARED, (chances(score), 0.0, 0.001))
    found = Watch(board, tmp_path).sums("fraud", 3, 4, 7)["score"][1]
    assert found.mean == pytest.approx(scores.mean(), rel=0.02)
    assert found.variance == pytest.approx(scores.var(), rel=0.1)


class Certain:
    """A Certain is a runtime that is sure that everything is a fraud."""

    in_process = True

    def __init__(self) -> None:
        self.fails = False

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        if self.fails:
            raise ModelError("no")
        rows = len(columns["age"])
        sure = np.tile(np.array([[0.0, 1.0]], np.float32), (rows, 1))
        return {"label": np.array(["yes"] * rows, object), "probabilities": sure}

    def close(self) -> None: ...


def tried(door: Any, *, weight: int, runtime: Any, sticky: bytes | None = None) -> Split:
    """The door with a trial, number 7, of version 4 beside its own."""
    stable = door.app.table.predictions[0]
    engine = Engine(door.live.signature, runtime, ref="fraud-model:4", digest="e", cache=door.engine.cache)
    counters = DeploymentCounters(door.slot, "fraud", "4")
    batcher = Batcher(engine, counters, CostLine(1e-6, 1e-7), batch_s=1.0)
    live = msgspec.structs.replace(door.live, version=4)
    candidate = Predictions(
        Deployment(live, engine, batcher, counters, deadline_s=5.0), dialects_for(live), door.guard
    )
    split = MeteredSplit(
        door.slot, deployment="fraud", stable=3, candidate=4, rollout=7, weight=weight, policy=Policy(),
        slow_s=1.0, sticky=sticky,
    )  # fmt: skip
    table = Table([Served(stable, (), candidate, split)])
    door.app = App(table, Pages(table, door.board, door.state), door.state, max_body=1_000_000)
    return split


def test_both_arms_are_measured_by_what_callers_got(
    make_door: Callable[..., Any], run: Run, row: dict[str, Any], tmp_path: Path
) -> None:
    async def scenario() -> None:
        door = make_door()
        tried(door, weight=5_000, runtime=Certain())
        async with door.open():
            versions = [(await door.ask("/predict/fraud", row)).json()["model"] for _ in range(60)]
        counted = {name: versions.count(name) for name in ("fraud-model:3", "fraud-model:4")}
        sums = Watch(door.board, tmp_path).sums("fraud", 3, 4, 7)
        stable, candidate = sums["score"]
        assert (stable.n, candidate.n) == (counted["fraud-model:3"], counted["fraud-model:4"])
        assert stable.mean == pytest.approx(41 / 200, abs=1e-5)
        assert candidate.mean == pytest.approx(1.0, abs=1e-5)
        assert [one.n for one in sums["latency"]] == [stable.n, candidate.n]
        assert all(0 < one.mean < 1 for one in sums["latency"])

    run(scenario())


def test_what_fails_or_is_refused_has_no_score(
    make_door: Callable[..., Any], run: Run, row: dict[str, Any], tmp_path: Path
) -> None:
    async def scenario() -> None:
        door, runtime = make_door(), Certain()
        split = tried(door, weight=10_000, runtime=runtime)
        runtime.fails = True
        assert (await door.call("POST", "/predict/fraud", json.dumps(row).encode())).status == 500
        assert (await door.call("POST", "/predict/fraud", b"{}")).status == 422
        assert counts_of(split.candidate) == (1, 1)
        sums = Watch(door.board, tmp_path).sums("fraud", 3, 4, 7)
        assert {metric: sums[metric] for metric in METRICS} == dict.fromkeys(METRICS, (Sums(), Sums()))

    run(scenario())


@pytest.mark.parametrize("large", [False, True])
def test_a_request_over_the_wire_is_its_callers(
    make_door: Callable[..., Any], run: Run, row: dict[str, Any], tmp_path: Path, large: bool
) -> None:
    """On the short way and on the long one."""

    async def scenario() -> None:
        door, runtime = make_door(), Certain()
        tried(door, weight=10_000, runtime=runtime, sticky=b"x-user-id")
        runtime.fails = True
        body = json.dumps(row).encode() + b" " * (100_000 if large else 0)
        async with door.open():
            for name in ("ada", "ada", "bob", "ada"):
                await door.ask("/predict/fraud", body, headers={"x-user-id": name})
        counts = Watch(door.board, tmp_path).counts("fraud", 3, 4)
        assert (counts.candidate_bad, counts.by_caller, counts.candidate_heaviest) == (4, (2, 2, 0, 0), 2)

    run(scenario())


def test_an_answer_out_of_the_cache_is_neither_scored_nor_timed(
    make_door: Callable[..., Any], run: Run, row: dict[str, Any], tmp_path: Path
) -> None:
    """It says nothing of the version: it may have been asked for by a caller of long ago."""

    async def scenario() -> None:
        door = make_door(cache=Cache(size=1_000_000))
        tried(door, weight=10_000, runtime=Certain())
        for _ in range(5):
            answer = await door.call("POST", "/predict/fraud", json.dumps(row).encode())
            assert answer.status == 200
        sums = Watch(door.board, tmp_path).sums("fraud", 3, 4, 7)
        assert [sums[metric][1].n for metric in METRICS] == [1, 1]

    run(scenario())


def test_sums_that_are_full_stay_as_they_are(slot: Slot, board: Board, tmp_path: Path) -> None:
    """The board's numbers end somewhere; n, total and squares stay of the same values."""
    arm = MeteredArm(slot, LABELS, 1e9, trial=7)
    for _ in range(20):
        arm.count(200, 1_000.0)
    found = Watch(board, tmp_path).sums("fraud", 3, 4, 7)["latency"][1]
    assert 0 < found.n < 20
    assert (found.mean, found.variance) == (pytest.approx(1_000.0), pytest.approx(0.0, abs=1e-3))
    assert counts_of(arm) == (20, 0)


# --- who is dealt to whom


def trial(slot: Slot, rollout: int = 7, sticky: bytes | None = b"x-user-id") -> MeteredSplit:
    return MeteredSplit(
        slot, deployment="fraud", stable=3, candidate=4, rollout=rollout, weight=2_000, policy=Policy(),
        slow_s=1.0, sticky=sticky,
    )  # fmt: skip


def dealt(board: Board, tmp_path: Path, rollout: int = 7) -> tuple[int, int]:
    stable, candidate = Watch(board, tmp_path).sums("fraud", 3, 4, rollout)[UNITS]
    return stable.n, candidate.n


def test_a_caller_is_dealt_once_whatever_it_asks_and_whichever_worker(
    slot: Slot, board: Board, tmp_path: Path
) -> None:
    splits = [trial(slot), trial(board.claim(2, Role.WORKER, pid=2, start=1))]
    taken = [splits[number % 2].takes({b"x-user-id": b"user-%d" % (number % 500)}) for number in range(3_001)]
    stable, candidate = dealt(board, tmp_path)
    # but for a few that fall where another was first
    assert 480 <= stable + candidate <= 500
    assert candidate == pytest.approx(sum(taken) / 6, abs=20)
    trial(slot, 8).takes({b"x-user-id": b"user-1"})  # another trial counts anew
    assert sum(dealt(board, tmp_path, 8)) == 1


def test_who_sends_no_name_is_another_each_time(slot: Slot, board: Board, tmp_path: Path) -> None:
    split = trial(slot)
    for _ in range(300):
        split.takes({})
    assert sum(dealt(board, tmp_path)) == 300


def test_before_it_begins_and_after_it_was_taken_off_nobody_is_dealt(
    slot: Slot, board: Board, tmp_path: Path
) -> None:
    split = trial(slot)
    split.weight = 0
    assert not split.takes({})
    split.weight, split.tripped = 10_000, True
    assert not split.takes({})
    assert dealt(board, tmp_path) == (0, 0)
