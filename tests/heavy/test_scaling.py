"""Fifty changes of the number of workers under load, and ten times the load at once on a model that waits."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.journeys.conftest import shop_model, shop_rows
from tests.journeys.serving import Load, until, up
from tests.journeys.serving import cloche as command
from tests.journeys.test_drain_and_death import lost
from tests.journeys.test_scaling import workers

import cloche

pytestmark = pytest.mark.heavy

CHANGES = 50
WAITS = '''
class Waits:
    """Answers after 100 ms, however many rows come."""

    def load(self):
        pass

    def predict(self, x: list[float]) -> list[float]:
        import time
        time.sleep(0.1)
        return x
'''


@pytest.fixture
def customer() -> dict[str, Any]:
    return {"age": 41, "income": 52_000.0, "plan": "pro", "mails": True}


def test_fifty_changes_between_one_and_four_lose_nothing(tmp_path: Path, customer: dict[str, Any]) -> None:
    rows, truth = shop_rows(800)
    cloche.pack(shop_model(rows[:500], truth[:500]), rows[500:], truth[500:], name="churn", directory=tmp_path)
    results = []
    with up(tmp_path, "churn", "--workers", "1") as serving:
        load = None
        for change in range(CHANGES):
            if load is None:
                options = ["--connections", "16", "--rate", "200", "--duration", "60"]
                load, began = Load(serving, "/predict/churn", customer, *options), time.monotonic()
            count = 4 if change % 2 == 0 else 1
            command(tmp_path, "scale", str(count))
            until(lambda count=count: workers(serving) == count, f"{count} workers", 30.0)
            if time.monotonic() - began > 50 or change == CHANGES - 1:
                results.append(load.result())
                load = None
        restarts = serving.metric("cloche_worker_restarts_total")
        answered = serving.metric("cloche_requests_total", code="200")
    assert [lost(result) + result["refused"] for result in results] == [0] * len(results), results
    assert restarts == 0
    assert answered == sum(result["requests"] for result in results)


def test_ten_times_the_load_on_a_model_that_waits_in_a_host(tmp_path: Path) -> None:
    """The workers wait with it, so that those who come together are one call of it, and none is added."""
    (tmp_path / "waits.py").write_text(WAITS)
    rows = pd.DataFrame({"x": [float(number) for number in range(20)]})
    with contextlib.chdir(tmp_path):
        cloche.pack(f"{tmp_path / 'waits.py'}:Waits", rows, name="waits", directory=tmp_path)
    (tmp_path / "cloche.toml").write_text(
        "[serve]\nallow_code = true\nworkers = { min = 1, max = 4 }\n"
        '[online.waits]\nmodel = "waits"\ndeadline = "5s"\n'
    )
    with up(tmp_path) as serving:
        path, body = "/predict/waits", {"x": 1.0}
        before = Load(serving, path, body, "--connections", "64", "--rate", "14", "--duration", "10").result()
        after = Load(serving, path, body, "--connections", "512", "--rate", "140", "--duration", "30").result()
        assert workers(serving) == 1
    for result in (before, after):
        assert lost(result) == result["refused"] == 0
        assert result["p99_ms"] <= 600  # 100 of them are its own
