"""A run reads any source, writes any sink, and leaves each row once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.batch.running import new_sink, pinned, plan, read_sink, rows, run, write_source

from cloche.batch.plan import Progress

COUNT = 450
SOURCES = ("parquet", "csv", "csv.gz", "jsonl", "jsonl.gz", "glob", "sqlite", "postgresql")
SINKS = ("parquet", "csv", "jsonl", "folder", "sqlite", "postgresql")
#: Each kind of source and each kind of sink.
PAIRS = [*((source, "parquet") for source in SOURCES), *(("parquet", sink) for sink in SINKS[1:])]


@pytest.mark.parametrize(("source", "sink"), PAIRS)
def test_each_row_of_a_source_is_answered_once_in_a_sink(
    source: str, sink: str, tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    table = rows(COUNT)
    wanted = pinned(plan(write_source(source, tmp_path, table, postgresql), new_sink(sink, tmp_path, postgresql)))
    told: list[Progress] = []

    done = run(wanted, told=told)

    assert (done.end, done.rows, done.rejected) == ("completed", COUNT, 0)
    assert told[-1].rows == COUNT
    found = read_sink(wanted.sink)
    assert [int(key) for key in found["id"]] == table["id"]
    assert found["note"] == table["note"]
    expected = [number % 7 / 7 if number % 2 == 0 else 0 for number in range(COUNT)]
    assert [float(one) for one in found["probabilities.yes"]] == pytest.approx(expected)
    assert found["label"] == ["yes" if one > 0.5 else "no" for one in expected]
    assert set(found["model_version"]) == {"toy:3"}
    assert set(found["run_id"]) == {wanted.run}
    assert len(set(found["predicted_at"])) >= 4
    assert run(wanted).rows == COUNT  # a run that is finished has nothing left to do
    assert [int(key) for key in read_sink(wanted.sink)["id"]] == table["id"]
