"""Chunks into files: a part a chunk, joined into one file at the end, or left in a folder."""

from __future__ import annotations

import fcntl
import shutil
from importlib import import_module
from pathlib import Path

import msgspec

from cloche.batch.checkpoint import STAMPS, Checkpoint, Safe, Stamp, held
from cloche.batch.parts import explained, join, part_kind, sync_folder, write_bytes, write_part
from cloche.batch.sinks import Table, kind_of
from cloche.core.errors import ConfigError, NotFoundError


class FileSink:
    """A FileSink writes one file, or where the place ends in "/" a folder with a file a chunk.

    A run's parts and checkpoints are in a hidden folder until it is finished. Raises NotFoundError CL-E303,
    ConflictError CL-E510 where another process is at the run, BusyError CL-E608 where the disk refuses.
    """

    def __init__(self, place: str, run: str) -> None:
        self._target, self._run = Path(place), run
        self._in_folder = place.endswith("/")
        if self._in_folder:
            self._kind = "parquet" if not self._target.suffix else kind_of(self._target)
            self._hidden, self._receipt = self._target / f".{run}", self._target / ".finished"
            self._part_kind = self._kind
        else:
            self._kind = kind_of(self._target)
            self._hidden, self._receipt = hidden_folder(self._target, run), receipt_of(self._target)
            self._part_kind = part_kind(self._kind)
            if self._target.is_dir():
                raise ConfigError(f"{place} is a folder", code="CL-E209", hint="end it with / to write into it")
        if not (self._target.parent if self._in_folder else self._receipt.parent).is_dir():
            raise NotFoundError(f"there is no folder {self._target.parent}", code="CL-E303", hint="make it first")
        with explained(self._hidden):
            self._hidden.mkdir(parents=True, exist_ok=True)
            self._lock = (self._hidden / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise held(run) from None

    def safe(self) -> Safe:
        if (finished := finished_by(self._receipt, self._run)) is not None:
            return finished
        safe = Safe()
        while (path := self._checkpoint(safe.chunks)).exists():
            done = msgspec.json.decode(path.read_bytes(), type=Checkpoint)
            if done.rows > done.rejected and not self._part(safe.chunks).exists():
                break  # the power went before the name of the part was on the disk
            safe = Safe(
                chunks=safe.chunks + 1,
                rows=safe.rows + done.rows,
                rejected=safe.rejected + done.rejected,
                position=done.position,
            )
        return safe

    def write(self, table: Table, stamp: Stamp, done: Checkpoint) -> None:
        if table:
            table = stamped(table, stamp, done.rows - done.rejected, self._part_kind)
            write_part(self._part(done.chunk), self._part_kind, table, settled=False)
        record = msgspec.json.encode(done)
        write_bytes(self._checkpoint(done.chunk), record)

    def finish(self, safe: Safe) -> None:
        if not self._in_folder and not safe.finished:
            parts = [self._part(number) for number in range(safe.chunks)]
            join([part for part in parts if part.exists()], self._target, self._kind, self._run)
        conclude(self._receipt, self._run, safe, self._hidden)

    def close(self) -> None:
        if {path.name for path in self._hidden.glob("*")} == {"lock"}:
            shutil.rmtree(self._hidden, ignore_errors=True)  # nothing is safe yet
        self._lock.close()

    def _part(self, number: int) -> Path:
        if self._in_folder:
            return self._target / f"{self._run}-{number:06}.{self._kind}"
        return self._hidden / f"{number:06}.{self._part_kind}"

    def _checkpoint(self, number: int) -> Path:
        return self._hidden / f"{number:06}.json"


class RejectFile:
    """A RejectFile takes rows that can't be answered: a part a chunk, written before the chunk's checkpoint."""

    def __init__(self, path: Path, run: str) -> None:
        self._target, self._run, self._kind = path, run, kind_of(path)
        self._hidden, self._receipt = hidden_folder(path, run), receipt_of(path)
        if not path.parent.is_dir():
            raise NotFoundError(f"there is no folder {path.parent}", code="CL-E303", hint="make it first")

    def write(self, table: Table, chunk: int) -> None:
        with explained(self._hidden):
            self._hidden.mkdir(exist_ok=True)
        write_part(self._part(chunk), part_kind(self._kind), table)

    def gather(self, safe: Safe) -> None:
        """One file of what was rejected so far; the parts stay."""
        if finished_by(self._receipt, self._run) is None:
            parts = [self._part(number) for number in range(safe.chunks)]
            join([part for part in parts if part.exists()], self._target, self._kind, self._run)

    def finish(self, safe: Safe) -> None:
        self.gather(safe)
        conclude(self._receipt, self._run, safe, self._hidden)

    def _part(self, number: int) -> Path:
        return self._hidden / f"{number:06}.{part_kind(self._kind)}"


def stamped(table: Table, stamp: Stamp, rows: int, kind: str) -> Table:
    """The table with the stamp in each row."""
    values = {name: getattr(stamp, name) for name in STAMPS}
    if kind in ("arrow", "parquet"):
        arrow = import_module("pyarrow")
        return {**table, **{name: arrow.repeat(value, rows) for name, value in values.items()}}
    return {**table, **{name: [value] * rows for name, value in values.items()}}


def hidden_folder(target: Path, run: str) -> Path:
    return target.with_name(f".{target.name}.{run}")


def receipt_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.finished")


class _Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A _Receipt stands beside what a run has finished, so that its end is known after its parts are gone."""

    run: str
    rows: int
    rejected: int


def finished_by(receipt: Path, run: str) -> Safe | None:
    """What a run came to, where the receipt is this run's."""
    try:
        found = msgspec.json.decode(receipt.read_bytes(), type=_Receipt)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return Safe(rows=found.rows, rejected=found.rejected, finished=True) if found.run == run else None


def conclude(receipt: Path, run: str, safe: Safe, parts: Path) -> None:
    """The receipt first, so that a death while the parts go leaves a run that is known to be finished."""
    if not safe.finished:
        found = _Receipt(run=run, rows=safe.rows, rejected=safe.rejected)
        write_bytes(receipt, msgspec.json.encode(found))
    with explained(parts):
        shutil.rmtree(parts, ignore_errors=True)
        sync_folder(parts.parent)
