"""The pages in a real Chromium: they do what they say, axe finds nothing, and nothing comes from elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.heavy.conftest import Served

pytestmark = pytest.mark.heavy
SCRIPT = Path(__file__).parent / "clients" / "browser.py"


def test_the_pages_work_for_people(served: Served, environment: Callable[[str], str], tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed here: apt install chromium")
    done = subprocess.run(
        [environment("browser"), str(SCRIPT), served.url, "fraud", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["axe"] and not any(report["axe"].values()), report["axe"]
    assert report["wide"] == []
    assert [said for said in report["complaints"] if "status of 422" not in said] == []
    for view in ("light", "dark", "phone"):
        used = report[view]
        assert used["said"] == "input `amount` is a string"
        assert used["refused"].startswith("422 A value has the wrong type")
        assert "probabilities" in used["answer"]
        assert "model" in used["legend"]
        assert used["another"] is True
    assert len(list(tmp_path.glob("*.png"))) == 6
