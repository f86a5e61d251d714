"""Reads tables: .parquet, .csv and .jsonl files as columns, and the labels beside them."""

from __future__ import annotations

import csv
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cloche.bundle.rows import to_columns
from cloche.core.errors import ConfigError, MissingExtraError, NotFoundError
from cloche.core.signature import Array, Columns, count_rows
from cloche.core.words import listed


def read_table(path: Path, label: str | None = None) -> tuple[Columns, Array | None]:
    """The columns of a .parquet, .csv or .jsonl file, and the labels where a column is named as such.

    Raises NotFoundError, ConfigError (CL-E206 and, without such a label, CL-E204), MissingExtraError.
    """
    readers = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_jsonl}
    if path.suffix not in readers:
        raise ConfigError(
            f"{path} is no table: its name ends in {path.suffix!r}",
            code="CL-E206",
            hint="give a .parquet, .csv or .jsonl file",
        )
    try:
        columns = readers[path.suffix](path)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}", code="CL-E303", hint="check the path") from None
    except (OSError, ValueError, NotImplementedError, csv.Error, msgspec.DecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}", code="CL-E206", hint="check its format") from None
    if not columns or not count_rows(columns):
        raise ConfigError(f"{path} has no rows", code="CL-E204", hint="give at least one row")
    if label is None:
        return columns, None
    if label not in columns:
        raise ConfigError(
            f"{path} has no column {label!r}",
            code="CL-E204",
            hint=f"its columns are {listed(list(columns))}",
        )
    return {name: column for name, column in columns.items() if name != label}, columns[label]


def _read_parquet(path: Path) -> Columns:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError:
        raise MissingExtraError(
            "reading Parquet needs pyarrow", code="CL-E701", hint='pip install "cloche[parquet]"'
        ) from None
    return to_columns(parquet.read_table(path))


def _read_csv(path: Path) -> Columns:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        rows = [row for row in reader if row]
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise csv.Error(f"its header names {listed(twice)} more than once")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise csv.Error(f"line {number} has {len(row)} values, the header {len(header)}")
    return {name: _from_texts([row[i] for row in rows]) for i, name in enumerate(header)}


def _from_texts(texts: list[str]) -> Array:
    """The narrowest of bool, int64, float64 and strings that takes every text; "" is missing."""
    words = {text.lower() for text in texts}
    if words and words <= {"true", "false"}:
        return np.array([text.lower() == "true" for text in texts])
    if any("_" in text for text in texts):  # Python's own numbers may have it, a table's don't
        return np.array([text or None for text in texts], dtype=object)
    try:
        return np.array([int(text) for text in texts], dtype=np.int64)
    except (ValueError, OverflowError):
        pass
    try:
        return np.array([float(text) if text else np.nan for text in texts], dtype=np.float64)
    except ValueError:
        return np.array([text or None for text in texts], dtype=object)


def _read_jsonl(path: Path) -> Columns:
    decoder = msgspec.json.Decoder(dict[str, Any])
    rows = [decoder.decode(line) for line in path.read_bytes().splitlines() if line.strip()]
    return to_columns(rows) if rows else {}
