"""What goes to a process that converts a model and what comes back: msgpack and raw bytes, never pickle."""

from __future__ import annotations

from typing import Any

import msgspec

from cloche.bundle.converters.base import Converted, ConvertOptions
from cloche.core import errors
from cloche.core.codes import CODES
from cloche.core.errors import ClocheError, ConversionError
from cloche.core.signature import Columns
from cloche.runtimes.frames import Tensor, pack_columns, read_columns


class Table(msgspec.Struct, frozen=True):
    """A Table is columns on their way."""

    tensors: tuple[Tensor, ...]
    body: bytes

    @classmethod
    def of(cls, columns: Columns | None) -> Table | None:
        return None if columns is None else cls(*pack_columns(columns))

    def columns(self) -> Columns:
        return read_columns(self.tensors, self.body)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A Question is a pickle to be read and converted."""

    path: str
    rows: Table | None
    options: ConvertOptions


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A Failure is a ClocheError of the other process, or what the pickle raised."""

    kind: str
    message: str
    code: str
    hint: str | None = None
    details: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, error: ClocheError) -> Failure:
        details = tuple({str(key): str(value) for key, value in each.items()} for each in error.details)
        return cls(
            kind=type(error).__name__,
            message=error.message,
            code=error.code,
            hint=error.hint,
            details=details,
        )

    def error(self) -> ClocheError:
        """What failed over there; a kind or code that nobody knows is a ConversionError's."""
        kind = getattr(errors, self.kind, ConversionError)
        if not (isinstance(kind, type) and issubclass(kind, ClocheError)):
            kind = ConversionError
        known = self.code if self.code in CODES else ConversionError.default_code
        return kind(self.message, code=known, hint=self.hint, details=self.details)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An Answer is the model converted, its columns and reference beside it, or why there is none."""

    converted: Converted | None = None
    columns: Table | None = None
    reference: Table | None = None
    failure: Failure | None = None


encode = msgspec.msgpack.Encoder().encode
_question: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Question)


def decode_question(data: bytes) -> Question:
    return _question.decode(data)


def encode_answer(converted: Converted) -> bytes:
    columns, reference = Table.of(converted.columns), Table.of(converted.reference)
    bare = msgspec.structs.replace(converted, columns=None, reference=None)
    return encode(Answer(converted=bare, columns=columns, reference=reference))


def decode_answer(data: bytes) -> Answer:
    """Raises msgspec.DecodeError for anything else."""
    return msgspec.msgpack.decode(data, type=Answer)
