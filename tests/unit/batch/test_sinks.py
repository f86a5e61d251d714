"""Sinks write a table whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cloche.batch.sinks import open_sink
from cloche.batch.sources import ABSENT
from cloche.core.errors import ConfigError, NotFoundError

ROWS = {
    "id": ["7", None],
    "label": np.array(["yes", "no"], object),
    "probabilities": {"no": np.float32([0.25, 0.5]), "yes": np.float32([0.75, 0.5])},
    "vector": np.float32([[1, 2], [3, 4]]),
    "sure": np.array([True, False]),
}


def write(path: Path, *tables: dict[str, object]) -> Path:
    with open_sink(path) as sink:
        for table in tables:
            sink.write(table)
    return path


def test_csv_has_a_column_a_class_and_empty_cells_where_something_is_missing(tmp_path: Path) -> None:
    text = write(tmp_path / "a.csv", ROWS, ROWS).read_text()
    assert text.splitlines()[:3] == [
        "id,label,probabilities.no,probabilities.yes,vector,sure",
        '7,yes,0.25,0.75,"[1.0,2.0]",true',
        ',no,0.5,0.5,"[3.0,4.0]",false',
    ]
    assert len(text.splitlines()) == 5


def test_json_lines_are_as_over_http(tmp_path: Path) -> None:
    first, _ = write(tmp_path / "a.jsonl", ROWS).read_text().splitlines()
    assert json.loads(first) == {
        "id": "7", "label": "yes", "probabilities": {"no": 0.25, "yes": 0.75}, "vector": [1.0, 2.0], "sure": True,
    }  # fmt: skip


def test_a_member_that_a_row_has_not_is_not_written(tmp_path: Path) -> None:
    text = write(tmp_path / "a.jsonl", {"id": [ABSENT, 1], "value": np.array([1.0, np.nan])}).read_text()
    assert text == '{"value":1.0}\n{"id":1,"value":null}\n'


def test_parquet_keeps_the_types_of_the_first_rows(tmp_path: Path) -> None:
    table = pq.read_table(write(tmp_path / "a.parquet", ROWS, {**ROWS, "id": [None, None]}))
    assert table.num_rows == 4
    assert table.schema.field("id").type == "string"
    assert table.column("probabilities.yes").to_pylist()[:2] == [0.75, 0.5]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_of_other_columns_are_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ConfigError, match=r"not all rows have the member `(id|other)`"):
        write(tmp_path / f"a.{suffix}", {"id": ["1"]}, {"other": ["1"]})


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_is_broken_off_leaves_the_file_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("before")
    with pytest.raises(error), open_sink(path) as sink:
        sink.write(ROWS)
        raise error
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_sink_that_got_no_rows_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("of another run")
    assert not write(tmp_path / "a.csv").exists()


def test_a_folder_that_is_not_there_and_another_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="can't be written"):
        write(tmp_path / "no" / "a.csv", ROWS)
    with pytest.raises(ConfigError, match="no table"):
        write(tmp_path / "a.txt", ROWS)
