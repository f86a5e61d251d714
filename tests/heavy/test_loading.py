"""A large version loads in one worker while another answers."""

from __future__ import annotations

import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from tests.journeys.serving import Load, Serving, until, up

import cloche

LOAD = ["--connections", "4", "--rate", "100", "--duration", "4"]
LOADS = 7


@pytest.mark.heavy
def test_others_answer_while_a_large_model_loads(tmp_path: Path) -> None:
    """p99 of those who are served stays within twice what it is while the same worker stands still.

    The worker that loads is stopped and then let go, so that as many others serve before as while it loads. The
    generator takes its share of the same cores; the median of several loads is what counts.
    """
    X, y = make_classification(20_000, 30, n_informative=15, flip_y=0.3, random_state=0)
    forest = RandomForestClassifier(400, random_state=0, n_jobs=2).fit(X[:19_000], y[:19_000])
    bundle = cloche.pack(forest, X[19_000:], y[19_000:], name="forest", directory=tmp_path)
    size = sum(entry.size for entry in bundle.manifest.files)
    assert size > 40e6, "large enough that loading takes a while"
    row = {"x": np.round(X[0], 4).tolist()}
    ratios = []
    with up(tmp_path, "forest", "--workers", "2") as serving:
        for _ in range(LOADS):
            before, during = _load_beside(serving, row)
            ratios.append(during["p99_ms"] / before["p99_ms"])
            print(f"\n{size / 1e6:.0f} MB; p99 {before['p99_ms']:.2f} ms, while loading {during['p99_ms']:.2f} ms")
    assert statistics.median(ratios) < 2, ratios


def _load_beside(serving: Serving, row: dict[str, list[float]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the other worker answered before, and while, a worker that took a killed one's seat loads."""
    first = set(serving.children()["worker"])
    os.kill(min(first), signal.SIGKILL)
    loading = until(lambda: set(serving.children()["worker"]) - first, "another starts").pop()
    os.kill(loading, signal.SIGSTOP)
    time.sleep(2)  # so that nothing of the death, such as memory given back, makes the first measurement worse
    before = Load(serving, "/predict/forest", row, *LOAD).result()
    load = Load(serving, "/predict/forest", row, *LOAD)
    answered = serving.metric("cloche_requests_total", code="200")
    until(lambda: serving.metric("cloche_requests_total", code="200") > answered + 20, "load")
    os.kill(loading, signal.SIGCONT)
    during = load.result()
    until(lambda: serving.metric("cloche_processes", role="worker", state="ready") == 2, "both are ready")
    for result in (before, during):
        assert result["non_2xx"] == result["timeouts"] == result["resets"] == result["refused"] == 0, result
    return before, during
