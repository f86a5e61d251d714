"""Files that are there in whole or not at all, whatever dies; and the parts that one file is joined from."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from cloche.batch.sinks import Table, make_sink, parquet_writer
from cloche.core.errors import BusyError

#: Rows of Parquet that are joined into one group, and bytes of text that are copied, at a time.
_GROUP = 100_000
_COPIED = 1 << 20


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """A disk's refusal as an error of ours."""
    try:
        yield
    except OSError as error:
        raise BusyError(
            f"{path} can't be written: {error.strerror or error}",
            code="CL-E608",
            hint="see that the folder is there, may be written and is not full; then resume the run",
        ) from error


def write_whole(
    path: Path, write: Callable[[IO[bytes]], None], part: Path | None = None, *, settled: bool = True
) -> None:
    """The file as `write` fills it, on the disk before it has its name; raises BusyError CL-E608.

    It is `settled` where its name is on the disk as well, and not with the next file of its folder.
    """
    part = part or path.with_name(f".{path.name}.part")
    with explained(path):
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        if settled:
            sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """`write_whole` for a few bytes."""

    def write(file: IO[bytes]) -> None:
        file.write(content)

    write_whole(path, write)


def sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_part(path: Path, kind: str, table: Table, *, settled: bool = True) -> None:
    """A table as a file of its own."""

    def write(file: IO[bytes]) -> None:
        sink = make_sink(kind, file)
        sink.write(table)
        sink.close()

    write_whole(path, write, settled=settled)


def part_kind(kind: str) -> str:
    """What parts are kept as that are joined into a file of this kind."""
    return "arrow" if kind == "parquet" else kind


def join(parts: Sequence[Path], target: Path, kind: str, run: str) -> None:
    """One file of all parts, in order, in the place of what was there; of none, no file."""
    if not parts:
        with explained(target):
            target.unlink(missing_ok=True)
            sync_folder(target.parent)
        return
    joined = {"csv": _join_csv, "jsonl": _join_lines, "parquet": _join_parquet}[kind]
    write_whole(target, lambda file: joined(parts, file), target.with_name(f".{target.name}.{run}.part"))


def _join_lines(parts: Sequence[Path], file: IO[bytes]) -> None:
    for part in parts:
        with part.open("rb") as opened:
            shutil.copyfileobj(opened, file, _COPIED)


def _join_csv(parts: Sequence[Path], file: IO[bytes]) -> None:
    headers = [_header(part) for part in parts]
    names = list(dict.fromkeys(name for header, _ in headers for name in header))
    if any(header != names for header, _ in headers):
        _join_uneven(parts, names, file)
        return
    for number, (part, (_, length)) in enumerate(zip(parts, headers, strict=True)):
        with part.open("rb") as opened:
            opened.seek(length if number else 0)
            shutil.copyfileobj(opened, file, _COPIED)


def _header(part: Path) -> tuple[list[str], int]:
    """The names in a part's header, and its length in bytes."""
    with part.open("rb") as opened:
        lines = iter(opened.readline, b"")
        seen: list[bytes] = []

        def texts() -> Iterator[str]:
            for line in lines:
                seen.append(line)
                yield line.decode()

        names = next(csv.reader(texts()))
    return names, sum(map(len, seen))


def _join_uneven(parts: Sequence[Path], names: Sequence[str], file: IO[bytes]) -> None:
    """Rows that have not all the same members, empty where one has none."""
    for number, part in enumerate(parts):
        with part.open(newline="", encoding="utf-8") as opened:
            columns = {name: list(values) for name, *values in zip(*csv.reader(opened), strict=True)}
        rows = len(next(iter(columns.values())))
        sink = make_sink("csv", file, header=not number)
        sink.write({name: columns.get(name, [""] * rows) for name in names})
        sink.close()


def _join_parquet(parts: Sequence[Path], file: IO[bytes]) -> None:
    arrow = import_module("pyarrow")
    ipc = import_module("pyarrow.ipc")

    def opened(part: Path) -> Any:
        return ipc.open_file(arrow.OSFile(str(part)))

    schema = arrow.unify_schemas([opened(part).schema for part in parts], promote_options="permissive")
    with parquet_writer(file, schema) as writer:
        group: list[Any] = []
        for part in parts:
            group.append(_as_schema(opened(part).read_all(), schema, arrow))
            if sum(table.num_rows for table in group) >= _GROUP:
                writer.write_table(arrow.concat_tables(group))
                group = []
        if group:
            writer.write_table(arrow.concat_tables(group))


def _as_schema(table: Any, schema: Any, arrow: Any) -> Any:
    if table.schema.equals(schema):
        return table
    missing = [field for field in schema if field.name not in table.column_names]
    for field in missing:
        table = table.append_column(field, arrow.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(schema)
