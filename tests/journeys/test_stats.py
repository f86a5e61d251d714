"""`cloche stats`: exactly what callers were answered, whoever is killed when, served now or not."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.releases import Callers, release
from tests.journeys.serving import Serving, cloche, until, up

ROW = {"x": [0.1, 0.2]}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    release(tmp_path, "good")
    (tmp_path / "cloche.toml").write_text('version = 1\n[online.toy]\nmodel = "toy"\n[serve]\nworkers = 2\n')
    return tmp_path


def stats(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(cloche(folder, "stats", "toy", "--last", "24h", "--json").stdout)
    return told


def codes(folder: Path) -> Counter[str]:
    """How many answers of each code were counted, over all windows, which add up to the total."""
    told = stats(folder)
    found: Counter[str] = Counter()
    for one in told["items"]:
        found.update(one["codes"])
    assert found == Counter(told["totals"][0]["codes"] if told["totals"] else {})
    return found


def answered(serving: Serving, count: int) -> None:
    for _ in range(count):
        assert serving.ask("/predict/toy", ROW).status == 200


def test_what_was_answered_is_shown_and_stays_when_nothing_is_served(project: Path) -> None:
    assert "nothing was answered" in cloche(project, "stats").stderr  # before anything was served
    with up(project) as serving:
        answered(serving, 40)
        for _ in range(3):
            assert serving.ask("/predict/toy", {"x": "odd"}).status == 422
        until(lambda: codes(project) == {"200": 40, "422": 3}, "they are carried")
        answered(serving, 2)  # as it stops, and the controller with it
    told = stats(project)
    (total,) = told["totals"]
    assert total["codes"] == {"200": 42, "422": 3}
    assert (total["deployment"], total["version"], total["requests"]) == ("toy", 1, 45)
    assert (total["errors"], total["refused"], sum(total["reasons"].values())) == (0, 3, 3)
    assert 0 < total["p50_ms"] <= total["p95_ms"] <= total["p99_ms"]
    lines = cloche(project, "stats").stdout.splitlines()
    assert lines[0].split() == [
        "TIME",
        "DEPLOYMENT",
        "VERSION",
        "REQUESTS",
        "REQ/S",
        "ERRORS",
        "P50",
        "P95",
        "P99",
    ]
    assert lines[-1].split()[:4] == ["all", "toy", "1", "45"]


def test_no_request_is_counted_twice_or_forgotten_when_the_controller_is_killed(project: Path) -> None:
    with up(project) as serving:
        with Callers(serving.url, rate=200) as callers:
            for _ in range(4):
                (controller,) = until(lambda: serving.standing("controller"), "there is a controller")
                seen = sum(codes(project).values())
                until(lambda seen=seen: sum(codes(project).values()) > seen, "it carries")
                os.kill(controller, signal.SIGKILL)
                until(lambda before=controller: before not in serving.children()["controller"], "it is gone")
        sent = Counter(str(one.status) for one in callers.said)
        assert set(sent) == {"200"}
        until(lambda: codes(project) == sent, f"it is {sent}")
    assert codes(project) == sent


def test_what_was_counted_when_everything_was_killed_is_added_at_the_next_start_once(project: Path) -> None:
    with up(project) as serving:
        answered(serving, 10)
        until(lambda: codes(project) == {"200": 10}, "they are carried")
        (controller,) = serving.standing("controller")
        os.kill(controller, signal.SIGSTOP)  # so that nobody carries what comes now
        answered(serving, 25)
        until(lambda: serving.metric("cloche_requests_total") == 35, "they are counted")
        serving.kill_all()
    assert codes(project) == {"200": 10}
    for more in (5, 0):
        with up(project) as serving:
            answered(serving, more)
            until(lambda: codes(project) == {"200": 40}, "what was left behind is there")
    assert codes(project) == {"200": 40}


def test_where_the_statistics_can_not_be_written_all_goes_on_and_they_are_written_later(project: Path) -> None:
    file = project / ".cloche" / "watch.db"
    file.mkdir()  # nothing can be opened there
    with up(project) as serving:
        answered(serving, 10)
        until(lambda: "statistics wait on the board" in serving.log.read_text(), "it is said")
        assert json.loads(cloche(project, "status", "--json").stdout)["items"][0]["ready"] == 2
        file.rmdir()
        until(lambda: codes(project) == {"200": 10}, "they are written")
        assert "statistics are written again" in serving.log.read_text()
    assert serving.log.read_text().count("statistics wait on the board") == 1
