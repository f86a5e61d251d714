"""A large version loads, in another worker or on a side thread of the same process, while others are answered."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from tests.journeys.serving import Load, Serving, until, up

import cloche

LOADS = 11
APP = """
import cloche
from fastapi import FastAPI

app = FastAPI()
small, forest = cloche.asgi("small"), cloche.asgi("forest")
app.mount("/small", small)
app.add_api_route("/load", forest.start, methods=["POST"])
app.add_api_route("/unload", forest.stop, methods=["POST"])
"""
X, Y = make_classification(20_000, 30, n_informative=15, flip_y=0.3, random_state=0)
ROW = {"x": np.round(X[0], 4).tolist()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a forest that takes two seconds to load, and a small model."""
    folder = tmp_path_factory.mktemp("loading")
    forest = RandomForestClassifier(400, random_state=0, n_jobs=2).fit(X[:19_000], Y[:19_000])
    bundle = cloche.pack(forest, X[19_000:], Y[19_000:], name="forest", directory=folder)
    assert sum(entry.size for entry in bundle.manifest.files) > 40e6, "large enough that loading takes a while"
    small = HistGradientBoostingClassifier(max_iter=50, random_state=0).fit(X[:1_000], Y[:1_000])
    cloche.pack(small, X[19_000:], Y[19_000:], name="small", directory=folder)
    return folder


@pytest.mark.heavy
def test_others_answer_while_a_large_model_loads_in_another_worker(project: Path) -> None:
    """p99 of those who are served stays within twice what it is while the same worker stands still.

    The worker that loads is stopped and then let go, so that as many others serve before as while it loads. The
    generator takes its share of the same cores; the median of several loads is what counts.
    """
    options = ["--connections", "4", "--rate", "100", "--duration", "4"]

    def start(serving: Serving) -> Load:
        return Load(serving, "/predict/forest", ROW, *options)

    def beside(serving: Serving) -> tuple[dict[str, Any], dict[str, Any]]:
        first = set(serving.children()["worker"])
        os.kill(min(first), signal.SIGKILL)
        loading = until(lambda: set(serving.children()["worker"]) - first, "another starts").pop()
        os.kill(loading, signal.SIGSTOP)
        time.sleep(2)  # so that nothing of the death, such as memory given back, makes the first measurement worse
        before = start(serving).result()
        load = start(serving)
        answered = serving.metric("cloche_requests_total", code="200")
        until(lambda: serving.metric("cloche_requests_total", code="200") > answered + 20, "load")
        os.kill(loading, signal.SIGCONT)
        during = load.result()
        until(lambda: serving.metric("cloche_processes", role="worker", state="ready") == 2, "both are ready")
        return before, during

    with up(project, "forest", "--workers", "2") as serving:
        _holds(lambda: beside(serving))


@pytest.mark.heavy
def test_others_answer_while_a_large_model_loads_on_a_side_thread(app: Serving) -> None:
    """p99 of another model in the same process stays within twice what it is before; all of it is loading."""
    options = ["--connections", "4", "--rate", "100", "--duration", "2"]

    def beside() -> tuple[dict[str, Any], dict[str, Any]]:
        app.ask("/unload", b"{}")
        time.sleep(1)
        before = Load(app, "/small/predict/small", ROW, *options).result()
        loading = threading.Thread(target=lambda: app.ask("/load", b"{}", timeout=60))
        load = Load(app, "/small/predict/small", ROW, *options)
        time.sleep(0.25)  # the generator's own start
        loading.start()
        during = load.result()
        loading.join()
        return before, during

    _holds(beside)


@pytest.fixture
def app(project: Path, free_port: int) -> Iterator[Serving]:
    """A FastAPI app with both models, under a uvicorn of its own."""
    (project / "app.py").write_text(APP)
    log = project / "app.log"
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(free_port), "--no-access-log"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=project, stdout=out, stderr=subprocess.STDOUT)
    serving = Serving(project, process, log, f"http://127.0.0.1:{free_port}")
    try:
        until(lambda: _answers(serving), log.read_text())
        yield serving
        assert serving.stop(signal.SIGINT) == 0
    finally:
        serving.kill_all()


def _answers(serving: Serving) -> bool:
    try:
        return serving.ask("/small/predict/small", ROW).status == 200
    except OSError:
        return False


def _holds(beside: Callable[[], tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Nothing is lost before and while a model loads, and the median of several ratios is under 2."""
    ratios = []
    for _ in range(LOADS):
        before, during = beside()
        for result in (before, during):
            assert result["non_2xx"] == result["timeouts"] == result["resets"] == result["refused"] == 0, result
        ratios.append(during["p99_ms"] / before["p99_ms"])
        print(f"\np99 {before['p99_ms']:.2f} ms, while loading {during['p99_ms']:.2f} ms")
    assert statistics.median(ratios) < 2, ratios
