"""Batch runs from the command line: real processes, killed, stopped, cancelled and gone on with."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from tests.journeys.serving import COMMAND, cloche, until

import cloche as package
from cloche.store.batches import Batches, RunRow
from cloche.store.database import Store

ROWS = 20_000
SLOW = ("--chunk", "100")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `churn:1` and rows for it."""
    folder = tmp_path_factory.mktemp("batch")
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"age": rng.integers(18, 80, ROWS), "income": rng.normal(50_000, 9_000, ROWS).round()})
    truth = np.where(rows["age"] + rows["income"] / 1000 > 99, "yes", "no")
    model = LogisticRegression(max_iter=1000).fit(rows[:1000], truth[:1000])
    package.pack(model, rows[1000:2000], truth[1000:2000], name="churn", directory=folder)
    rows.insert(0, "id", range(ROWS))
    rows.to_parquet(folder / "rows.parquet")
    rows[:20].to_csv(folder / "few.csv", index=False)
    (folder / "mixed.csv").write_text((folder / "few.csv").read_text() + "20,old,1000\n")
    return folder


@pytest.fixture
def folder(packed: Path, tmp_path: Path) -> Path:
    shutil.copytree(packed, tmp_path, dirs_exist_ok=True)
    return tmp_path


def scores(folder: Path) -> list[tuple[Any, ...]]:
    """Every row of the table, without run and time."""
    with contextlib.closing(sqlite3.connect(folder / "scores.db")) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(scores)")]
        names = ", ".join(f'"{name}"' for name in columns if name not in ("run_id", "predicted_at"))
        return database.execute(f"SELECT {names} FROM scores ORDER BY id").fetchall()


def stored(folder: Path) -> RunRow:
    """The newest run."""
    with Store(f"sqlite:///{folder / '.cloche' / 'state.db'}") as store:
        return Batches(store).list(most=1)[0]


SINK = ("--sink", "sqlite:///scores.db?table=scores", "--key", "id")


@contextlib.contextmanager
def running(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A slow run named nightly, under way; nothing of it is left afterwards."""
    command = [
        COMMAND,
        "batch",
        "run",
        "churn",
        "--source",
        "rows.parquet",
        *SINK,
        *SLOW,
        "--name",
        "nightly",
        *words,
    ]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: process.poll() is not None or _safe(folder), "the first rows are safe")
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def _safe(folder: Path) -> int:
    with (
        contextlib.suppress(sqlite3.OperationalError),
        contextlib.closing(sqlite3.connect(folder / "scores.db")) as database,
    ):
        return int(database.execute("SELECT count(*) FROM scores").fetchone()[0])
    return 0


@pytest.fixture(scope="module")
def undisturbed(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(packed, folder, dirs_exist_ok=True)
    done = cloche(folder, "batch", "run", "churn", "--source", "rows.parquet", *SINK)
    assert f"completed  {ROWS:,} rows" in done.stdout
    found = scores(folder)
    assert len(found) == ROWS
    return found


def test_a_run_that_is_killed_is_gone_on_with_to_exactly_the_same_rows(
    folder: Path, undisturbed: list[tuple[Any, ...]]
) -> None:
    with running(folder) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    assert 0 < _safe(folder) < ROWS
    done = cloche(folder, "batch", "resume", "nightly")
    assert f"completed  {ROWS:,} rows" in done.stdout
    assert scores(folder) == undisturbed
    found = stored(folder)
    assert (found.name, found.state, found.rows, found.attempt) == ("nightly", "completed", ROWS, 2)
    assert found.report is not None
    assert 0 < found.report["resumed_rows"] < ROWS
    again = cloche(folder, "batch", "resume", found.id[:12], check=False)
    assert (again.returncode, "CL-E521" in again.stderr) == (5, True)


def test_ctrl_c_stops_after_the_chunk_and_says_how_to_go_on(
    folder: Path, undisturbed: list[tuple[Any, ...]]
) -> None:
    with running(folder) as process:
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=30)
        assert process.returncode == 130
    assert "stopping after this chunk" in said
    assert "next  cloche batch resume nightly" in said
    assert "interrupted" in out
    assert stored(folder).rows == _safe(folder)
    cloche(folder, "batch", "resume", "nightly")
    assert scores(folder) == undisturbed


def test_while_it_runs_nobody_else_runs_it_and_anybody_can_cancel_it(folder: Path) -> None:
    with running(folder) as process:
        process.send_signal(signal.SIGSTOP)
        run = stored(folder).id
        assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 10
        for words in (
            ("resume", run),
            ("run", "churn", "--source", "few.csv", "--sink", "o.csv", "--name", "nightly"),
        ):
            refused = cloche(folder, "batch", *words, check=False)
            assert refused.returncode == 5
            assert "CL-E520" in refused.stderr
            assert f"cloche batch cancel {run}" in refused.stderr
        cancelled = cloche(folder, "batch", "cancel", "nightly")
        assert cancelled.stdout == f"{run} stops after its chunk\n"
        process.send_signal(signal.SIGCONT)
        assert process.wait(30) == 1
    assert stored(folder).state == "cancelled"
    assert stored(folder).why.startswith("by ")
    assert 0 < _safe(folder) < ROWS


def test_rows_that_can_not_be_answered_are_set_aside_or_fail_the_run(folder: Path) -> None:
    words = ("batch", "run", "churn", "--source", "mixed.csv", "--sink", "out.csv", "--rejects", "bad.csv")
    done = cloche(folder, *words, "--fail-above", "10%")
    assert "completed with rejects  21 rows" in done.stdout
    assert len(pd.read_csv(folder / "out.csv")) == 20
    assert "`age` is 'old'" in (folder / "bad.csv").read_text()
    failed = cloche(folder, *words, check=False)  # above 1 %
    assert failed.returncode == 1
    assert "1 of 21 rows were rejected" in failed.stdout
    strict = cloche(folder, *words[:-2], check=False)
    assert strict.returncode == 1
    assert "`age` is 'old'" in strict.stdout


def test_what_cloche_toml_describes_runs_by_its_name(folder: Path) -> None:
    (folder / "cloche.toml").write_text(
        '[batch.nightly]\nmodel = "churn"\nsource = "env:ROWS"\nsink = "out/scores.csv"\nkey = "id"\n'
        'schedule = "0 2 * * *"\ntimezone = "Europe/Berlin"\n'
    )
    (folder / "out").mkdir()
    env = {"ROWS": str(folder / "few.csv")}
    first = cloche(folder, "batch", "run", "nightly", env=env)
    assert "its last runs say" not in first.stderr
    second = cloche(folder, "batch", "run", "nightly", env=env)
    assert "it will be over before its next slot, 2" in second.stderr
    assert len(pd.read_csv(folder / "out" / "scores.csv")) == 20
    listed = json.loads(cloche(folder, "batch", "ls", "nightly", "--json").stdout)
    assert [one["state"] for one in listed["items"]] == ["completed", "completed"]
    assert listed["items"][0]["source"] == "env:ROWS"
    (schedule,) = listed["schedules"]
    assert schedule["next"].endswith(("T00:00:00Z", "T01:00:00Z"))
