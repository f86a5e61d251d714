"""More workers and fewer, by hand and by the load, while callers ask and keep their connections."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.serving import Load, Serving, again, until, up
from tests.journeys.serving import cloche as command
from tests.journeys.test_drain_and_death import lost

from cloche.app.up import runtime_folder
from cloche.core.board import Board, Head, Role, State
from cloche.settings import load_settings

#: The least as few as there can be, the most more than there are cores.
ELASTIC = '[serve]\nworkers = { min = 1, max = 8 }\n[online.churn]\nmodel = "churn@champion"\n'


@pytest.fixture
def shop(shop: Path, tmp_path: Path) -> Path:
    """A copy of the shop, with a store of its own."""
    folder = tmp_path / "shop"
    shutil.copytree(shop / ".cloche", folder / ".cloche")
    return folder


def board_of(serving: Serving) -> Board:
    return Board(runtime_folder(load_settings(directory=serving.folder, environ=os.environ)) / "board")


def workers(serving: Serving) -> int:
    """How many serve, once none starts or drains."""
    board = board_of(serving)
    states = [board.head(slot, Head.STATE) for slot in board.heads(Role.WORKER)]
    return len(states) if set(states) == {State.READY} else 0


def connections(serving: Serving) -> list[int]:
    board = board_of(serving)
    return sorted(board.head(slot, Head.CONNECTIONS) for slot in board.heads(Role.WORKER))


def test_by_hand_up_and_down_again_nothing_is_lost_and_added_workers_get_their_share(
    shop: Path, customer: dict[str, Any]
) -> None:
    with up(shop, "churn", "--workers", "1") as serving:
        load = Load(serving, "/predict/churn", customer, "--connections", "30", "--duration", "18")
        until(lambda: connections(serving)[0] >= 20, "the load is on")
        command(shop, "scale", "3")
        until(lambda: workers(serving) == 3, "3 workers")
        until(lambda: min(connections(serving)) >= 5, "each has its share", 8.0)
        before = serving.metric("cloche_requests_total")
        command(shop, "scale", "1")
        probes = []

        def is_done() -> bool:
            probes.append(serving.ask("/readyz").status)
            return workers(serving) == 1

        until(is_done, "1 worker")
        assert set(probes) == {200}
        assert serving.metric("cloche_requests_total") >= before
        assert serving.metric("cloche_workers_desired") == 1
        assert serving.metric("cloche_worker_restarts_total") == 0
        result = load.result()
        assert lost(result) == result["refused"] == 0, result
    told = command(shop, "history").stdout
    assert "workers: 3 on " in told


def test_what_a_person_wants_outlives_restarts_until_it_is_left_to_the_settings(shop: Path) -> None:
    said = command(shop, "scale", "3")
    assert "nothing is served here now" in said.stderr
    with up(shop, "churn", "--workers", "1") as serving:
        assert workers(serving) == 3
        pids = set(serving.children()["worker"])
        command(shop, "scale", "2")
        until(lambda: workers(serving) == 2, "2 workers")
        serving.process.kill()
        serving.process.wait()
        again(serving, "churn", "--workers", "1")
        assert workers(serving) == 2
        assert set(serving.children()["worker"]) < pids
        command(shop, "scale", "auto")
        until(lambda: workers(serving) == 1, "as it was started")


@pytest.mark.parametrize("words", ["0", "49", "-1", "many", "2.5"])
def test_a_number_that_cannot_be_is_refused(shop: Path, words: str) -> None:
    refused = command(shop, "scale", "--", words, check=False)
    assert refused.returncode == 2
    assert "auto" in refused.stderr


def test_the_load_brings_workers_at_once_and_none_beyond_the_cores(shop: Path, customer: dict[str, Any]) -> None:
    (shop / "cloche.toml").write_text(ELASTIC)
    cores = len(os.sched_getaffinity(0))
    with up(shop) as serving:
        assert "1 to 8, by the load" in serving.log.read_text()
        assert workers(serving) == 1
        load = Load(serving, "/predict/churn", customer, "--connections", "16", "--duration", "12")
        until(lambda: workers(serving) == cores, "a worker a core", 11.0)
        assert lost(load.result()) == 0
        assert workers(serving) == cores
        scaled = [line for line in serving.log.read_text().splitlines() if '"action":"scaled"' in line]
        assert len(scaled) == 1
        assert "requests/s of" in scaled[0]
