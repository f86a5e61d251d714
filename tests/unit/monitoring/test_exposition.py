"""The exposition, read back by Prometheus' own parsers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cloche.core.board import Board, Head, Role, State
from cloche.monitoring.counters import DeploymentCounters
from cloche.monitoring.exposition import COUNTERS, GAUGES, HISTOGRAMS, render


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "board")


def samples(board: Board) -> dict[str, float]:
    body, media_type = render(board, "")
    assert media_type.startswith("text/plain")
    found = {}
    for family in parse_text(body.decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def worker(board: Board, number: int) -> DeploymentCounters:
    slot = board.claim(number, Role.WORKER, pid=100 + number, start=1)
    slot.set(Head.STATE, State.READY)
    return DeploymentCounters(slot, "fraud", "3")


def work(counters: DeploymentCounters, requests: range) -> None:
    for number in requests:
        counters.began()
        counters.batch(1 + number % 9, number / 1000)
        counters.queued(number / 2000)
        counters.answered("cloche", 200 if number % 5 else 422, number / 500)
        if number % 5 == 0:
            counters.failed("CL-E104")


def test_every_metric_is_there_from_the_start(board: Board) -> None:
    body, _ = render(board, "")
    names = {family.name for family in parse_text(body.decode())}
    counters = {name.removesuffix("_total") for name in COUNTERS}
    assert names == counters | set(HISTOGRAMS) | set(GAUGES)


def test_the_figures_are_the_same_for_one_worker_and_for_four(tmp_path: Path) -> None:
    one, four = Board(tmp_path / "one"), Board(tmp_path / "four")
    work(worker(one, 1), range(100))
    for number in range(4):
        work(worker(four, 1 + number), range(number * 25, number * 25 + 25))
    alone, together = samples(one), samples(four)
    processes = 'cloche_processes{role="worker",state="ready"}'
    assert (alone.pop(processes), together.pop(processes)) == (1, 4)
    assert set(alone) == set(together)
    for name, value in alone.items():
        assert together[name] == pytest.approx(value, abs=1e-6), name
    assert alone['cloche_requests_total{code="422",deployment="fraud",dialect="cloche",version="3"}'] == 20


def test_nothing_goes_backwards_when_a_worker_dies_and_another_takes_its_slot(board: Board) -> None:
    work(worker(board, 1), range(50))
    work(worker(board, 2), range(50))
    before = samples(board)
    board.release(1)  # the supervisor buried it
    between = samples(board)
    work(worker(board, 1), range(10))
    after = samples(board)
    for name in before:
        if not name.startswith(("cloche_processes", "cloche_inflight", "cloche_connections")):
            assert before[name] <= between[name] <= after[name], name
    total = 'cloche_requests_total{code="200",deployment="fraud",dialect="cloche",version="3"}'
    assert (before[total], between[total], after[total]) == (80, 80, 88)


def test_histograms_are_cumulative_and_end_with_their_count(board: Board) -> None:
    work(worker(board, 1), range(100))
    found = samples(board)
    for name in HISTOGRAMS:
        buckets = [
            (float(key.split('le="')[1].split('"')[0]), value)
            for key, value in found.items()
            if key.startswith(f"{name}_bucket")
        ]
        values = [value for _, value in sorted(buckets)]
        assert values == sorted(values)
        assert max(buckets)[0] == math.inf
        labels = '{deployment="fraud",version="3"}'
        assert values[-1] == found[f"{name}_count{labels}"] == 100
    assert found['cloche_request_duration_seconds_sum{deployment="fraud",version="3"}'] == pytest.approx(9.9)
    assert found['cloche_batch_size_sum{deployment="fraud",version="3"}'] == sum(1 + n % 9 for n in range(100))


def test_dead_processes_are_not_counted_as_live(board: Board) -> None:
    slot = worker(board, 1)._slot
    slot.set(Head.IN_FLIGHT, 3)
    slot.set(Head.CONNECTIONS, 5)
    host = board.claim(2, Role.HOST, pid=7, start=1)
    host.set(Head.STATE, State.DRAINING)
    found = samples(board)
    assert (found["cloche_inflight{}"], found["cloche_connections{}"]) == (3, 5)
    assert found['cloche_processes{role="host",state="draining"}'] == 1
    slot.set(Head.HEARTBEAT_NS, 0)
    found = samples(board)
    assert (found["cloche_inflight{}"], found["cloche_connections{}"]) == (0, 0)
    assert 'cloche_processes{role="worker",state="ready"}' not in found


def test_restarts_of_the_supervisors_slot_are_shown(board: Board) -> None:
    slot = board.claim(0, Role.SUPERVISOR, pid=1, start=1)
    slot.cells[slot.series(name="cloche_worker_restarts_total", kind="worker")] += 2
    assert samples(board)['cloche_worker_restarts_total{kind="worker"}'] == 2


def test_openmetrics_is_given_to_who_asks_for_it(board: Board) -> None:
    work(worker(board, 1), range(10))
    body, media_type = render(board, "application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(body.decode())}
    assert families["cloche_requests"].type == "counter"
    assert families["cloche_request_duration_seconds"].type == "histogram"
