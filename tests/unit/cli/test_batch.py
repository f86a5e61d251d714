"""`cloche batch` where nothing runs: what is listed and shown, and what is named as missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.cli.conftest import Cloche

import cloche as package
from cloche.batch.plan import Plan
from cloche.store.batches import Batches
from cloche.store.database import Store
from cloche.testing import toy_classifier

RUN, OTHER = "run_aaaaaaaaaaaa", "run_aabbbbbbbbbb"
NIGHTLY = """[batch.nightly]
model = "churn"
source = "env:ROWS"
sink = "postgresql://me:secret@127.0.0.1:1/shop?table=scores"
schedule = "0 2 * * *"
"""


@pytest.fixture
def batches(cloche: Cloche, tmp_path: Path) -> Batches:
    """The runs of the folder that `cloche` works in: one is over, the other fell silent long ago."""
    (tmp_path / ".cloche").mkdir()
    with Store(f"sqlite:///{tmp_path / '.cloche' / 'state.db'}") as store:
        runs = Batches(store)
        runs.end(
            runs.begin(_plan(RUN), name="nightly", holder="here"),
            "completed with rejects",
            rows=1_000,
            rejected=5,
            report={
                "seconds": 2.0,
                "rows_per_s": 500.0,
                "resumed_rows": 0,
                "outputs": {
                    "label": {"shares": {"yes": 0.25}, "packed": {"yes": 0.5}},
                    "value": {"quantiles": {"p50": 7.0}, "packed": {"p50": 6.5}},
                },
            },
        )
        runs.begin(_plan(OTHER), name=None, holder="there")
        with store.note() as connection:
            connection.exec_driver_sql(f"UPDATE cloche_batch_runs SET heartbeat = 0 WHERE id = '{OTHER}'")
    return runs


def _plan(run: str) -> dict[str, Any]:
    plan = Plan(
        run=run,
        ref="churn:1",
        digest="d" * 64,
        source="postgresql://me:secret@127.0.0.1/shop?table=orders",
        sink="sqlite:////data/s.db?table=scores",
        key="id",
    )
    told: dict[str, Any] = msgspec.to_builtins(plan)
    return told


@pytest.mark.usefixtures("batches")
def test_runs_are_listed_with_what_is_due_next(cloche: Cloche, tmp_path: Path) -> None:
    (tmp_path / "cloche.toml").write_text(NIGHTLY)
    listed = cloche("batch", "ls")
    lines = listed.out.splitlines()
    assert lines[0].split() == ["RUN", "NAME", "MODEL", "STATE", "ROWS", "REJECTED", "STARTED"]
    assert any(line.startswith(f"{RUN}  nightly  churn:1  completed with rejects  1000") for line in lines)
    assert any(line.startswith(f"{OTHER}  -        churn:1  interrupted") for line in lines)
    assert lines[-1].startswith("nightly  2")
    assert lines[-1].endswith("T02:00:00Z  0 2 * * *  UTC")
    found = cloche("batch", "ls", "nightly", "--json").json
    assert (found["kind"], [one["run"] for one in found["items"]]) == ("BatchRunList", [RUN])
    assert found["schedules"][0]["schedule"] == "0 2 * * *"


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize("which", ["nightly", "run_aaa", "aaaa", RUN])
def test_a_run_is_shown_by_name_and_by_the_start_of_its_id(cloche: Cloche, which: str) -> None:
    shown = cloche("batch", "show", which)
    assert shown.code == 0
    for said in (RUN, "500 rows/s", "label  yes 25.0% (50.0%)", "value  p50 7 (6.5)", "me:***@127.0.0.1"):
        assert said in shown.out
    assert "secret" not in shown.out + cloche("batch", "show", which, "--json").out


@pytest.mark.usefixtures("batches")
def test_a_start_that_several_ids_have_is_not_enough(cloche: Cloche) -> None:
    assert "write more of the id" in cloche("batch", "show", "aa").err


def test_a_run_that_nobody_holds_is_cancelled_at_once(cloche: Cloche, batches: Batches) -> None:
    cancelled = cloche("batch", "cancel", OTHER)
    assert cancelled.out == f"{OTHER} is cancelled\n"
    assert cancelled.err == f"undo  cloche batch resume {OTHER}\n"
    assert batches.get(OTHER).state == "cancelled"
    again = cloche("batch", "cancel", OTHER)
    assert (again.code, "CL-E521" in again.err) == (5, True)


@pytest.mark.usefixtures("batches")
def test_a_run_whose_bundle_is_gone_is_not_gone_on_with(cloche: Cloche) -> None:
    refused = cloche("batch", "resume", OTHER)
    assert refused.code == 3
    assert "the bundle of churn:1 is not here any more" in refused.err


def test_what_is_wrong_is_named_before_anything_begins(
    cloche: Cloche, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, frame, labels = toy_classifier()
    package.pack(model, frame, labels, name="churn", directory=tmp_path)
    frame.to_csv("rows.csv", index=False)
    (tmp_path / "cloche.toml").write_text(NIGHTLY)
    to = ("--sink", "o.csv")
    for code, said, *words in (
        (3, "no [batch.hourly]; it has nightly", "run", "hourly"),
        (3, "no model 'nobody'", "run", "nobody", "--source", "rows.csv", *to),
        (3, "none.csv", "run", "churn", "--source", "none.csv", *to),
        (3, "no batch run", "show", "run_1"),
        (3, "no batch run", "resume", "nightly"),
        (2, "the sink is missing", "run", "churn", "--source", "rows.csv"),
        (2, "from 1 to 1000000", "run", "churn", "--source", "rows.csv", *to, "--chunk", "0"),
        (2, "the file is missing", "run", "churn", "--source", "rows.csv", *to, "--fail-above", "2%"),
        (2, "name of a batch run", "run", "churn", "--source", "rows.csv", *to, "--name", "No Name"),
        (2, "stands in cloche.toml", "run", "nightly", "--chunk", "10"),
        (2, "'ROWS' is not set", "run", "nightly"),
    ):
        refused = cloche("batch", *words)
        assert refused.code == code, words
        assert said in refused.err
    monkeypatch.setenv("ROWS", "postgresql://me:secret@127.0.0.1:1/shop?table=orders&key=id")
    away = cloche("batch", "run", "nightly")
    assert (away.code, "secret" in away.err + away.out) == (6, False)
    assert cloche("batch", "ls", "--json").json["items"] == [], "nothing was begun"
