"""`cloche stats`: a table of what was answered, and words where nothing was."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Cloche

from cloche.core.board import series_hash
from cloche.store.database import Store
from cloche.store.statistics import Counted, Statistics
from cloche.store.watch import WatchStore


def count(folder: Path, *labels: dict[str, str], value: int) -> None:
    """As the controller of a machine does, ten seconds ago."""
    (folder / ".cloche").mkdir(exist_ok=True)
    url = f"sqlite:///{folder / '.cloche' / 'state.db'}"
    with Store(url), WatchStore(url, clock=lambda: time.time() - 10) as watch:
        of = {"deployment": "fraud", "version": "4"}
        ones = [{**of, **one} for one in labels]
        Statistics(watch).carry("one", 1, [Counted(series_hash(one), one, value) for one in ones])


def test_what_was_answered_is_a_table(cloche: Cloche, tmp_path: Path) -> None:
    requests = [{"name": "cloche_requests_total", "dialect": "cloche", "code": code} for code in ("200", "503")]
    count(tmp_path, *requests, {"name": "cloche_request_duration_seconds", "le": "0.001"}, value=30)
    for line in cloche("stats", "--last", "24h", "--no-header").out.splitlines()[-2:]:
        words = line.split()
        assert words[1:4] == ["fraud", "4", "60"]
        assert words[5] == "50.00%"
        assert "750 µs" in line
    told = cloche("stats", "--json").json
    assert (told["kind"], told["resolution_s"]) == ("Statistics", 60)
    assert (told["totals"][0]["error_share"], told["totals"][0]["codes"]) == (0.5, {"200": 30, "503": 30})


def test_where_nothing_was_it_says_what_to_do(cloche: Cloche, tmp_path: Path) -> None:
    result = cloche("stats")
    assert (result.code, result.out.split()[0]) == (0, "TIME")
    assert "nothing was answered in the last 1h" in result.err
    assert "cloche up MODEL" in result.err
    assert not (tmp_path / ".cloche").exists()


def test_a_deployment_that_is_not_there_is_named(cloche: Cloche) -> None:
    assert cloche("stats", "nobody").code == 3


@pytest.mark.parametrize("last", ["soon", "0s", "500d"])
def test_a_time_that_can_t_be_is_refused(cloche: Cloche, last: str) -> None:
    assert cloche("stats", "--last", last).code == 2
