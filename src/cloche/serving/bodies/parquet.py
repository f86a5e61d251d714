"""Parquet: a whole file as the body; pyarrow is loaded with the first such body."""

from __future__ import annotations

from cloche.core.extras import load_extra
from cloche.core.signature import Columns, Signature


class ParquetBody:
    """A ParquetBody reads and writes a Parquet file."""

    name = "parquet"
    media_types = ("application/vnd.apache.parquet", "application/x-parquet")

    def __init__(self, signature: Signature) -> None:
        self._signature = signature

    def prepare(self) -> None:
        self._half = load_extra("cloche.serving.bodies._pyarrow", "a Parquet body", "parquet")

    def read(self, body: bytes) -> Columns:
        columns: Columns = self._half.read_file(body, self._signature)
        return columns

    def write(self, outputs: Columns) -> bytes:
        written: bytes = self._half.write_file(outputs, self._signature)
        return written

    def example(self, rows: Columns) -> None:
        return None
