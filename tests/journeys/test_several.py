"""Everything that cloche.toml describes, on one set of workers, each deployment for itself."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.serving import Load, cloche, until, up

CONFIG = """
[online.churn]
model = "churn@champion"
access = { keys = true, limits = { default = "1000/s" } }

[online.glad]
model = "./mood.py:Sentiment"
deadline = "5s"

[online.open]
model = "churn:1"
on_invalid = "reject"

[serve]
workers = 2
allow_code = true
"""


@pytest.fixture
def project(shop: Path, texts: Path, tmp_path: Path) -> Path:
    shutil.copytree(shop / ".cloche", tmp_path / ".cloche")
    shutil.copy(texts / "mood.py", tmp_path)
    (tmp_path / "cloche.toml").write_text(CONFIG)
    return tmp_path


def test_all_that_is_described_is_served(project: Path, customer: dict[str, Any]) -> None:
    key = next(w for w in cloche(project, "keys", "create", "app").stdout.split() if w.startswith("clk_live_"))
    bearer = {"Authorization": f"Bearer {key}"}
    with up(project) as serving:
        answer = serving.ask("/predict/churn", customer, headers=bearer)
        assert answer.json()["model"] == "churn:1"
        assert serving.ask("/predict/churn", customer).status == 401
        assert serving.ask("/predict/open", customer).json()["prediction"] == answer.json()["prediction"]
        odd = serving.ask("/predict/open", customer | {"plan": "imaginary"})
        assert (odd.status, odd.json()["errors"][0]["field"]) == (422, "plan")
        assert serving.ask("/predict/glad", {"text": "a lovely day"}).json()["prediction"] == {"label": "glad"}
        assert serving.ask("/v2/models", headers=bearer).json() == {"models": ["churn", "glad", "open"]}
        for name, count in (("churn", 1), ("glad", 1), ("open", 1)):
            assert serving.metric("cloche_requests_total", deployment=name, code="200") == count
        banner = serving.log.read_text()
        assert all(f"/predict/{name} " in banner for name in ("churn", "glad", "open"))
        assert "none for glad: their code may do whatever you may" in banner


def test_a_host_that_dies_is_one_deployment_s_own_trouble(project: Path, customer: dict[str, Any]) -> None:
    with up(project) as serving:
        load = Load(serving, "/predict/open", customer, "--connections", "4", "--rate", "200", "--duration", "4")
        for host in serving.children()["host"]:
            os.kill(host, signal.SIGKILL)
        until(lambda: serving.ask("/predict/glad", {"text": "fine"}, timeout=20).status == 200, "hosts are back")
        result = load.result()
        assert result["requests"] > 700
        assert result["non_2xx"] == result["resets"] == result["refused"] == result["timeouts"] == 0, result


def test_one_of_them_can_be_served_alone(project: Path, customer: dict[str, Any]) -> None:
    with up(project, "churn") as serving:
        assert serving.ask("/predict/churn", customer).status == 401
        assert serving.ask("/predict/glad", {"text": "fine"}).status == 401  # nobody is told what is there
        assert not serving.children()["host"]
