"""What a run has behind it: each chunk's checkpoint, and where they are kept."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec

from cloche.batch.sinks import Table
from cloche.batch.sources import Position
from cloche.core.errors import ConflictError


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A Checkpoint is one chunk that is safe: its number, its rows, those that were rejected, and what is next."""

    chunk: int
    rows: int
    rejected: int
    position: Position


class Safe(msgspec.Struct, frozen=True, kw_only=True):
    """Safe is all that was safe when a process went on with a run."""

    chunks: int = 0
    rows: int = 0
    rejected: int = 0
    #: What the next chunk begins at; None is the start of the source.
    position: Position | None = None
    #: Nothing is left to be done.
    finished: bool = False


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """A Stamp stands in each row: which version answered, in which run, and when (UTC)."""

    model_version: str
    run_id: str
    predicted_at: datetime


STAMPS = Stamp.__struct_fields__


class ChunkSink(Protocol):
    """A ChunkSink keeps a chunk's rows and its checkpoint together, or neither."""

    def safe(self) -> Safe:
        """What it holds of the run already; asked once, before the first chunk."""
        ...

    def write(self, table: Table, stamp: Stamp, done: Checkpoint) -> None:
        """The chunk that follows the last one, whose table is empty where no row was answered."""
        ...

    def finish(self, safe: Safe) -> None:
        """All chunks are there."""
        ...

    def close(self) -> None: ...


def held(run: str) -> ConflictError:
    """The error where another process goes on with the same run."""
    return ConflictError(
        f"another process is at {run}",
        code="CL-E510",
        hint="one process goes on with a run at a time: wait for it, or stop it and resume",
    )
