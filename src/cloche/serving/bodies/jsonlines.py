"""JSON lines: an object a line, as our own dialect takes one; an answer is a prediction a line."""

from __future__ import annotations

import msgspec

from cloche.core.signature import Columns, Signature
from cloche.serving.protocols.rows import RowReader
from cloche.serving.protocols.schema import as_json, predictions


class JsonLinesBody:
    """A JsonLinesBody reads and writes an object a line; empty lines are passed over."""

    name = "jsonlines"
    media_types = (
        "application/jsonl",
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonlines",
        "application/x-jsonlines",
    )

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._reader = RowReader(signature)
        self._encode = msgspec.json.Encoder().encode_lines

    def prepare(self) -> None: ...

    def read(self, body: bytes) -> Columns:
        return self._reader.read_lines(body)

    def write(self, outputs: Columns) -> bytes:
        return self._encode(predictions(outputs, self._signature))

    def example(self, rows: Columns) -> str:
        names = list(rows)
        values = zip(*(as_json(rows[name]) for name in names), strict=True)
        return self._encode([dict(zip(names, row, strict=True)) for row in values]).decode()
