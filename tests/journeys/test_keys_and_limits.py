"""Keys open, revoked ones don't, and a limit holds over all workers together."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.serving import Load, until, up
from tests.journeys.serving import cloche as command

CONFIG = """
version = 1
[online.churn]
model = "churn@champion"
[online.churn.access]
keys = true
limits = { default = "1000/s", metered = "50/s" }
"""


@pytest.fixture
def guarded(shop: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "guarded"
    shutil.copytree(shop / ".cloche", folder / ".cloche")
    (folder / "cloche.toml").write_text(CONFIG)
    return folder


def create(folder: Path, name: str) -> str:
    out = command(folder, "keys", "create", name).stdout
    return next(word for word in out.split() if word.startswith("clk_live_"))


def test_a_key_opens_until_it_is_revoked(guarded: Path, customer: dict[str, Any]) -> None:
    with up(guarded, "--workers", "2") as serving:
        assert serving.ask("/predict/churn", customer).status == 401
        bearer = {"Authorization": f"Bearer {create(guarded, 'mobile')}"}
        until(lambda: serving.ask("/predict/churn", customer, headers=bearer).status == 200, "the key opens", 2)
        command(guarded, "keys", "revoke", "mobile", "--yes")
        revoked = time.monotonic()
        until(
            lambda: all(serving.ask("/predict/churn", customer, headers=bearer).status == 401 for _ in range(8)),
            "every worker refuses it",
            3,
        )
        assert time.monotonic() - revoked < 1.5
        assert serving.ask("/livez").status == serving.ask("/v2/health/ready").status == 200


@pytest.mark.parametrize("workers", ["1", "4"])
def test_a_limit_holds_to_five_percent(guarded: Path, customer: dict[str, Any], workers: str) -> None:
    key = create(guarded, "metered")
    with up(guarded, "--workers", workers) as serving:
        options = [
            "--connections",
            "8",
            "--duration",
            "4",
            "--warmup",
            "1.2",
            "--header",
            f"Authorization: Bearer {key}",
        ]
        result = Load(serving, "/predict/churn", customer, *options).result()
    passed = result["statuses"]["200"]
    assert passed == pytest.approx(50 * 4, rel=0.05)
    assert set(result["statuses"]) == {"200", "429"}
