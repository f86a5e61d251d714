"""A large version loads in one worker while another answers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from tests.journeys.serving import Load, until, up

import cloche

RATE = "100"


@pytest.mark.heavy
def test_others_answer_while_a_large_model_loads(tmp_path: Path) -> None:
    """p99 of those who are served stays within twice what it was, give or take the machine's own noise."""
    X, y = make_classification(20_000, 30, n_informative=15, flip_y=0.3, random_state=0)
    forest = RandomForestClassifier(400, random_state=0, n_jobs=2).fit(X[:19_000], y[:19_000])
    bundle = cloche.pack(forest, X[19_000:], y[19_000:], name="forest", directory=tmp_path)
    size = sum(entry.size for entry in bundle.manifest.files)
    assert size > 40e6, "large enough that loading takes a while"
    row = {"x": np.round(X[0], 4).tolist()}
    with up(tmp_path, "forest", "--workers", "2") as serving:
        options = ["--connections", "4", "--rate", RATE]
        before = Load(serving, "/predict/forest", row, *options, "--duration", "6").result()
        load = Load(serving, "/predict/forest", row, *options, "--duration", "6")
        until(lambda: serving.metric("cloche_requests_total", code="200") > before["requests"] + 50, "load")
        first = set(serving.children()["worker"])
        os.kill(min(first), signal.SIGKILL)
        until(lambda: len(set(serving.children()["worker"]) - first) == 1, "another starts")
        during = load.result()
        until(lambda: serving.metric("cloche_processes", role="worker", state="ready") == 2, "both are ready")
    print(f"\n{size / 1e6:.0f} MB; p99 before {before['p99_ms']:.2f} ms, while loading {during['p99_ms']:.2f} ms")
    assert during["non_2xx"] == during["timeouts"] == 0, during
    assert during["p99_ms"] < max(2 * before["p99_ms"], 20.0)
