"""Arrow: a stream of record batches; pyarrow is loaded with the first such body."""

from __future__ import annotations

from cloche.core.extras import load_extra
from cloche.core.signature import Columns, Signature


class ArrowBody:
    """An ArrowBody reads and writes a stream of the Arrow IPC format."""

    name = "arrow"
    media_types = ("application/vnd.apache.arrow.stream",)

    def __init__(self, signature: Signature) -> None:
        self._signature = signature

    def prepare(self) -> None:
        self._half = load_extra("cloche.serving.bodies._pyarrow", "an Arrow body", "parquet")

    def read(self, body: bytes) -> Columns:
        columns: Columns = self._half.read_stream(body, self._signature)
        return columns

    def write(self, outputs: Columns) -> bytes:
        written: bytes = self._half.write_stream(outputs, self._signature)
        return written

    def example(self, rows: Columns) -> None:
        return None
