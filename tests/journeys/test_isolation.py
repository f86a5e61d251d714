"""A model above `isolate_above`: one host for all workers, the same answers, killed, rolled out and taken back."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from tests.journeys.releases import Callers, history, release, release_class
from tests.journeys.serving import Serving, again, cloche, in_background, until, up

import cloche as cloche_
from cloche.app.placement import load_bytes
from cloche.app.project import open_project

CONFIG = """
[serve]
workers = 3
isolate_above = "{limit}"

[online.forest]
model = "forest:1"
deadline = "20s"
"""
FEATURES = ["age", "income", "visits", "calls"]


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with `forest:1`, a random forest of some megabytes."""
    folder = tmp_path_factory.mktemp("forest")
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.normal(size=(3_000, 4)), columns=FEATURES)
    truth = np.where(rows["age"] * rows["income"] + rng.normal(size=3_000) > 0, "yes", "no")
    model = RandomForestClassifier(60, random_state=0, n_jobs=1).fit(rows[:2_500], truth[:2_500])
    bundle = cloche_.pack(model, rows[2_500:], truth[2_500:], name="forest", directory=folder)
    measured = bundle.manifest.measured
    assert measured is not None
    assert measured.load_bytes > 2_000_000
    return folder


def rows_of(count: int) -> list[dict[str, float]]:
    drawn = np.random.default_rng(1).normal(size=(count, 4))
    return [dict(zip(FEATURES, map(float, row), strict=True)) for row in drawn]


def answers(serving: Serving, rows: list[dict[str, float]]) -> list[Any]:
    """One by one, and all at once."""
    said = [serving.ask("/predict/forest", row).json()["prediction"] for row in rows]
    return [*said, serving.ask("/predict/forest", {"rows": rows}).json()["predictions"]]


@pytest.fixture(scope="module")
def expected(forest: Path) -> list[Any]:
    """What it answers where it lives in the workers."""
    (forest / "cloche.toml").write_text(CONFIG.format(limit="512MB"))
    with up(forest) as serving:
        assert not serving.children()["host"]
        return answers(serving, rows_of(40))


def test_workers_share_one_host_and_answer_as_in_process(forest: Path, expected: list[Any]) -> None:
    (forest / "cloche.toml").write_text(CONFIG.format(limit="1MB"))
    with up(forest) as serving:
        assert len(serving.children()["host"]) == 1
        assert len(serving.children()["worker"]) == 3
        assert "in a host that the workers share" in serving.log.read_text()
        assert answers(serving, rows_of(40)) == expected
        wrong = serving.ask("/predict/forest", {"age": "old"})
        assert wrong.status == 422
        # many callers at once, over all workers: each has its own answer
        rows, odd = rows_of(40), list[Any]()

        def ask(number: int) -> None:
            for place in range(number, 40, 4):
                said = serving.ask("/predict/forest", rows[place]).json()["prediction"]
                odd.extend([] if said == expected[place] else [place])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not odd


def test_kill_9_of_the_host_costs_nobody_an_answer_who_can_wait(forest: Path, expected: list[Any]) -> None:
    (forest / "cloche.toml").write_text(CONFIG.format(limit="1MB"))
    row = rows_of(1)[0]
    with up(forest) as serving:
        statuses: list[int] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                said = serving.ask("/predict/forest", row, timeout=30)
                is_right = said.status != 200 or said.json()["prediction"] == expected[0]
                statuses.append(said.status if is_right else 0)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            (host,) = serving.children()["host"]
            before = len(statuses)
            until(lambda before=before: len(statuses) > before + 20, "it answers")
            os.kill(host, signal.SIGKILL)
            until(lambda host=host: [*serving.standing("host")] not in ([], [host]), "another takes its place")
            at = len(statuses)
            until(lambda at=at: len(statuses) > at + 20, "it answers again")
        stop.set()
        for thread in threads:
            thread.join(40)
        # each died with at most one request of each worker's; those are asked once more
        assert set(statuses) == {200}


ROLLOUT = """
[serve]
workers = 2
isolate_above = "38MB"

[online.toy]
model = "toy:1"
deadline = "10s"

[online.toy.rollout]
margin = "10%"
ramp = "0s"
bake = "1s"
"""


def of_version(serving: Serving) -> set[str]:
    """Which versions answer now."""
    row = {"x": [0.1, 0.2]}
    return {serving.ask("/predict/toy", row).headers["cloche-model"] for _ in range(10)}


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    """toy:1 is small, toy:2 has forty megabytes of weights; the limit lies between them."""
    assert (release(tmp_path, "good"), release(tmp_path, "huge", 3.0)) == (1, 2)
    (tmp_path / "cloche.toml").write_text(ROLLOUT)
    with open_project(tmp_path) as project:
        first, second = (project.open(f"toy:{number}").manifest for number in (1, 2))
    assert load_bytes(first) < project.settings.serve.isolate_above < load_bytes(second)
    return tmp_path


def test_a_version_above_the_limit_goes_out_in_one_host_and_comes_back(toys: Path) -> None:
    with up(toys) as serving, Callers(serving.url, rate=100) as callers:
        assert not serving.children()["host"]
        cloche(toys, "deploy", "toy:2", "--steps", "50%, 100%")
        until(lambda: len(serving.standing("host")) == 1, "a host for the candidate")
        until(lambda: of_version(serving) == {"toy:2"}, "it has all of the traffic", 60)
        (host,) = serving.children()["host"]
        until(lambda: cloche(toys, "status").stdout.count("previous"), "it is promoted", 60)
        assert serving.children()["host"] == [host], "it stays with the deployment"
        cloche(toys, "rollback", "toy", "--why", "to see it")
        until(lambda: of_version(serving) == {"toy:1"}, "back")
        until(lambda: not serving.children()["host"], "nobody asks the host any more", 60)
    assert not callers.failed(), callers.failed()[:3]


def test_a_candidate_that_is_given_up_takes_its_host_along(toys: Path) -> None:
    with up(toys) as serving, Callers(serving.url, rate=100) as callers:
        cloche(toys, "deploy", "toy:2", "--steps", "50% for 10m, 100%")
        until(lambda: of_version(serving) == {"toy:1", "toy:2"}, "both answer", 60)
        assert len(serving.children()["host"]) == 1
        cloche(toys, "abort", "toy")
        until(lambda: not serving.children()["host"], "its host is gone", 60)
        assert of_version(serving) == {"toy:1"}
    assert not callers.failed(), callers.failed()[:3]


def test_who_takes_over_after_the_supervisor_s_death_knows_the_hosts(toys: Path) -> None:
    with up(toys) as serving:
        cloche(toys, "deploy", "toy:2", "--now")
        until(lambda: of_version(serving) == {"toy:2"}, "it has all of the traffic", 60)
        (host,) = serving.children()["host"]
        serving.process.kill()
        serving.process.wait(10)
        again(serving)
        assert serving.children()["host"] == [host]
        assert of_version(serving) == {"toy:2"}
        # the new supervisor looks after it, with what it is to run
        os.kill(host, signal.SIGKILL)
        until(lambda: serving.standing("host") not in ([], [host]), "another takes its place")
        assert of_version(serving) == {"toy:2"}


def test_while_a_host_hangs_its_callers_hear_in_time_and_all_others_are_answered(toys: Path) -> None:
    config = '\n[serve]\nworkers = 1\nisolate_above = "38MB"\n'
    config += '[online.small]\nmodel = "toy:1"\n[online.large]\nmodel = "toy:2"\ndeadline = "1s"\n'
    (toys / "cloche.toml").write_text(config)
    row = {"x": [0.1, 0.2]}
    with up(toys) as serving:
        (host,) = serving.children()["host"]
        assert serving.ask("/predict/large", row).status == 200
        os.kill(host, signal.SIGSTOP)
        late: list[Any] = []
        waits = in_background(lambda: late.append(serving.ask("/predict/large", row, timeout=20)))
        # the only worker's event loop is free while that one waits
        while waits.is_alive():
            assert serving.ask("/predict/small", row).status == 200
        assert (late[0].status, late[0].json()["code"]) == (504, "CL-E602")
        os.kill(host, signal.SIGCONT)
        until(lambda: serving.ask("/predict/large", row).status == 200, "it goes on")


def test_a_candidate_with_code_has_hosts_that_workers_share_and_is_taken_back_when_one_dies(
    tmp_path: Path,
) -> None:
    assert (release_class(tmp_path, "good"), release_class(tmp_path, "dies", 3.0)) == (1, 2)
    config = '[serve]\nworkers = 3\nallow_code = true\n[online.task]\nmodel = "task:1"\ndeadline = "10s"\n'
    (tmp_path / "cloche.toml").write_text(config)
    with up(tmp_path) as serving:
        stable = set(serving.children()["host"])
        assert len(stable) == 2
        cloche(tmp_path, "deploy", "task:2", "--steps", "50% for 10m, 100%")
        until(lambda: len(serving.standing("host")) == 4, "two more, however many workers there are")
        with Callers(serving.url, rate=50, name="task", numbers=0) as callers:
            until(lambda: history(tmp_path, cloche, "task")[-1]["action"] == "aborted", "it is taken back", 60)
            last = time.monotonic()
            assert history(tmp_path, cloche, "task")[-1]["why"].startswith("a process ended while it ran task:2")
            until(lambda: set(serving.children()["host"]) == stable, "its hosts are gone", 60)
        assert set(callers.models(last + 1.0)) == {"task:1"}
