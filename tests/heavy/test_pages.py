"""The pages in a real Chromium: they do what they say, axe finds nothing, and nothing comes from elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.heavy.conftest import serve

if TYPE_CHECKING:
    from tests.heavy.conftest import Served

pytestmark = pytest.mark.heavy
SCRIPT = Path(__file__).parent / "clients" / "browser.py"


def look(environment: Callable[[str], str], url: str, name: str, folder: Path, *more: str) -> Any:
    """What a browser saw of the pages; axe found nothing, and no page is wider than its window."""
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed here: apt install chromium")
    done = subprocess.run(
        [environment("browser"), str(SCRIPT), url, name, str(folder), *more],
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
    return report


def test_the_pages_work_for_people(served: Served, environment: Callable[[str], str], tmp_path: Path) -> None:
    report = look(environment, served.url, "fraud", tmp_path)
    for view in ("light", "dark", "phone"):
        used = report[view]
        assert used["said"] == "input `amount` is a string"
        assert used["refused"].startswith("422 A value has the wrong type")
        assert "probabilities" in used["answer"]
        assert "model" in used["legend"]
        assert used["another"] is True
    assert len(list(tmp_path.glob("*.png"))) == 6


def test_the_pages_of_several_deployments_lead_to_each(
    served: Served, environment: Callable[[str], str], tmp_path: Path
) -> None:
    folder = served.loaded.bundle.path.parents[2]
    config = tmp_path / "cloche.toml"
    tables = "".join(f'[online.{name}]\nmodel = "fraud@champion"\n' for name in ("first", "second"))
    config.write_text(f'[project]\ndata = "{folder / ".cloche"}"\n{tables}')
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with serve(tmp_path, None) as url:
        report = look(environment, url, "second", pictures, "docs/second")
    assert all(said.startswith("200 in ") for said in report["asked"].values()), report["asked"]
    assert len(report["asked"]) == 3
    assert len(list(pictures.glob("*.png"))) == 9
