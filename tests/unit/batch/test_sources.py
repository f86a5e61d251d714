"""Sources read a chunk at a time and say of each bad row why it is bad."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cloche.batch.sources import ABSENT, Chunk, Sources
from cloche.core.errors import ConfigError, NotFoundError


def read_all(path: Path | None, text: bytes = b"", rows: int = 2) -> list[Chunk]:
    with Sources(path, io.BytesIO(text)) as source:
        return list(iter(lambda: source.read(rows), None))


def test_csv_comes_in_chunks_that_know_their_first_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfage,plan\n1,pro\n\n2,"a\nb"\n3,\n')
    first, second = read_all(tmp_path / "a.csv")
    assert (first.first, first.columns) == (1, {"age": ["1", "2"], "plan": ["pro", "a\nb"]})
    assert (second.first, second.columns) == (3, {"age": ["3"], "plan": [""]})


def test_a_line_of_csv_with_other_values_than_the_header_is_a_bad_row() -> None:
    [chunk] = read_all(None, b"a,b\n1\n1,2,3\n")
    assert chunk.problems == {0: "it has 1 values, the header 2", 1: "it has 3 values, the header 2"}


@pytest.mark.parametrize("text", [b"", b"a,a\n1,2\n", b"a\n\xff\n"])
def test_what_is_no_csv_is_refused(text: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        read_all(None, text)
    assert caught.value.code == "CL-E206"


def test_json_lines_tell_what_a_row_has_not_from_null() -> None:
    [chunk] = read_all(None, b'{"a":1}\n\n{"a":null,"b":"x"}\n', rows=5)
    assert chunk.columns == {"a": [1, None], "b": [ABSENT, "x"]}


def test_a_line_that_is_no_object_is_a_bad_row() -> None:
    [chunk] = read_all(None, b'{"a":1}\n[1]\n{"a"\n', rows=5)
    assert set(chunk.problems) == {1, 2}
    assert "no JSON object" in chunk.problems[1]


def test_parquet_comes_in_batches(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": range(3000)}), tmp_path / "n.parquet")
    with Sources(tmp_path / "n.parquet") as source:
        chunks = list(iter(lambda: source.read(2000), None))
        assert source.done() == 1.0
    assert [chunk.first for chunk in chunks] == [1, 2001]
    assert sum(chunk.rows for chunk in chunks) == 3000


def test_it_says_how_far_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n" + "1\n" * 100)
    with Sources(tmp_path / "a.csv") as source:
        source.read(50)
        assert source.done() == pytest.approx(0.5, abs=0.02)
    with Sources(None, io.BytesIO(b"n\n1\n")) as source:
        assert source.done() is None


def test_a_file_of_another_kind_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in '\.txt'"):
        read_all(tmp_path / "a.txt")
    with pytest.raises(NotFoundError):
        read_all(tmp_path / "a.csv")
    (tmp_path / "a.parquet").write_bytes(b"no")
    with pytest.raises(ConfigError, match="can't be read"):
        read_all(tmp_path / "a.parquet")
