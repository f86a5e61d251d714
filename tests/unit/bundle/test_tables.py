"""Tables of every format become the same columns, or are refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cloche.bundle.tables import read_table
from cloche.core.errors import ConfigError, NotFoundError

ROWS = [
    {"age": 30, "fare": 1.5, "port": "S", "adult": True},
    {"age": 40, "fare": None, "port": None, "adult": False},
]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_tables_of_every_format_are_the_same_columns(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    frame = pd.DataFrame(ROWS).assign(y=["no", "yes"])
    if suffix == "csv":
        frame.to_csv(path, index=False)
    elif suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        pq.write_table(pa.Table.from_pandas(frame), path)
    columns, labels = read_table(path, label="y")
    assert columns["age"].dtype == np.int64 and columns["age"].tolist() == [30, 40]
    np.testing.assert_array_equal(columns["fare"], [1.5, np.nan])
    assert columns["port"].dtype == object and columns["port"].tolist() == ["S", None]
    assert columns["adult"].dtype == np.bool_
    assert labels is not None and labels.tolist() == ["no", "yes"]


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("rows.txt", "a\n1\n", "CL-E206"),
        ("rows.csv", "a,b\n1\n", "CL-E206"),
        ("rows.csv", "a,b\n", "CL-E204"),
        ("rows.csv", "a,b,a\n1,2,3\n", "CL-E206"),
        ("rows.jsonl", "{not json}\n", "CL-E206"),
        ("rows.jsonl", "[1]\n", "CL-E206"),
        ("rows.parquet", "no parquet", "CL-E206"),
    ],
)
def test_a_table_that_can_not_be_read_is_refused(tmp_path: Path, name: str, text: str, code: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_table(tmp_path / name)
    assert caught.value.code == code


def test_a_label_that_is_not_there_names_the_columns(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="no column 'y'") as caught:
        read_table(tmp_path / "rows.csv", label="y")
    assert caught.value.hint == "its columns are a, b"
    with pytest.raises(NotFoundError):
        read_table(tmp_path / "none.csv")
