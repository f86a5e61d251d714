"""What a source was when a run began, in one line: who resumes reads the same, or is told."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from cloche.batch.places import TablePlace, as_table, files_of
from cloche.batch.tables import open_rows
from cloche.core.errors import ConflictError

_END = 1 << 16


def fingerprint(source: str, key: str | None) -> str:
    """Of files their names, sizes, times, heads and tails; of a table its name, and the greatest key there is.

    Raises as reading does: NotFoundError, ConfigError, BusyError.
    """
    place = as_table(source)
    if place is None:
        return f"files {_digest([_of_file(file) for file in files_of(source)])}"
    rows = open_rows(place, key)
    try:
        return f"{_of_table(place, key)} {msgspec.json.encode(rows.greatest()).decode()}"
    finally:
        rows.close()


def greatest_key(known: str) -> str | None:
    """The greatest key, in JSON, that the fingerprint of a table holds; None for files."""
    kind, _, rest = known.partition(" ")
    return rest.partition(" ")[2] if kind == "table" else None


def check_same(known: str, source: str, key: str | None) -> None:
    """Raises ConflictError CL-E509 where files are not what they were, or a table is another one."""
    place = as_table(source)
    same = fingerprint(source, key) == known if place is None else known.startswith(_of_table(place, key))
    if not same:
        raise changed(source if place is None else place.shown)


def changed(name: str) -> ConflictError:
    return ConflictError(
        f"{name} is not what it was when the run began",
        code="CL-E509",
        hint="put back what it was and resume, or begin another run",
    )


def _of_file(file: Path) -> list[object]:
    found = file.stat()
    with file.open("rb") as opened:
        ends = hashlib.sha256(opened.read(_END))
        opened.seek(max(0, found.st_size - _END))
        ends.update(opened.read(_END))
    return [str(file), found.st_size, found.st_mtime_ns, ends.hexdigest()]


def _of_table(place: TablePlace, key: str | None) -> str:
    return f"table {_digest([place.shown, place.table, place.query, key or place.key])}"


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:32]
