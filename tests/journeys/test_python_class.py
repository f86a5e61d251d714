"""A Python class is served from a process of its own, whose death nobody notices."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.journeys.serving import Load, until, up
from tests.journeys.serving import cloche as command


def test_code_runs_only_where_it_is_allowed(texts: Path) -> None:
    done = command(texts, "up", "mood", "--port", "0", check=False)
    assert done.returncode == 4
    assert "CL-E406" in done.stderr and "--allow-code" in done.stderr


def test_a_killed_host_costs_at_most_what_was_in_flight(texts: Path) -> None:
    with up(texts, "mood", "--allow-code", "--workers", "1") as serving:
        answer = serving.ask("/predict/mood", {"text": "a good soup"})
        assert answer.json()["prediction"] == {"label": "glad"}
        load = Load(serving, "/predict/mood", {"text": "rain"}, "--connections", "8", "--duration", "5")
        until(lambda: serving.metric("cloche_requests_total", code="200") > 200, "the load is on")
        hosts = serving.children()["host"]
        assert len(hosts) == 2, "one that answers and one warm spare"
        for victim in hosts:
            os.kill(victim, signal.SIGKILL)
            until(lambda: len(set(serving.children()["host"]) - set(hosts)) >= 1, "a host takes its place")
            assert serving.ask("/predict/mood", {"text": "a fine day"}).status == 200
            break
        result = load.result()
        assert result["resets"] == result["timeouts"] == 0, result
        assert result["non_2xx"] <= 8, result


def test_an_input_that_kills_the_host_is_refused_the_others_are_answered(texts: Path) -> None:
    with up(texts, "mood", "--allow-code", "--workers", "1") as serving:
        poison = serving.ask("/predict/mood", {"text": "crash"}, headers={"Cloche-Deadline": "10s"})
        assert poison.status in (422, 503), poison.body
        good = until(
            lambda: (a := serving.ask("/predict/mood", {"text": "good"}, timeout=15)).status == 200 and a,
            "the model answers again",
        )
        assert good.json()["prediction"] == {"label": "glad"}
        raised = serving.ask("/predict/mood", {"rows": [{"text": "raise"}]})
        assert raised.status == 500 and raised.json()["code"] == "CL-E900"


def test_who_has_time_may_wait_longer_than_the_deployment_does(texts: Path) -> None:
    with up(texts, "mood", "--allow-code", "--workers", "1") as serving:
        slow = {"text": "wait, good"}
        assert serving.ask("/predict/mood", slow).json()["code"] == "CL-E602"
        answer = serving.ask("/predict/mood", slow, headers={"Cloche-Deadline": "8s"})
        assert answer.status == 200, answer.body


def test_golden_examples_have_longer_than_a_caller(tmp_path: Path) -> None:
    """64 of them together take longer than the deadline of one request."""
    (tmp_path / "steady.py").write_text(
        """
import time

class Steady:
    def load(self):
        pass

    def predict(self, x: list[float]) -> list[float]:
        time.sleep(0.005 * len(x))
        return [2 * one for one in x]
"""
    )
    command(tmp_path, "pack", "steady.py:Steady", "--name", "steady")
    deadline = {"CLOCHE_ONLINE__STEADY__DEADLINE": "100ms"}
    (tmp_path / "cloche.toml").write_text('version = 1\n[online.steady]\nmodel = "steady:1"\n')
    with up(tmp_path, "--allow-code", "--workers", "1", env=deadline) as serving:
        assert serving.ask("/predict/steady", {"x": 1.5}).json()["prediction"] == {"value": 3.0}
