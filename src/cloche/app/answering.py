"""Who answers the rows of a source: a model in this process, or a server through the client."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib import import_module
from types import TracebackType
from typing import Any, Protocol

import msgspec
import numpy as np

from cloche.app.loaded import Loaded
from cloche.client.client import Client
from cloche.core.signature import Array, Columns, Field, Signature
from cloche.engine.engine import Result


class Answerer(Protocol):
    """An Answerer answers rows that fit its signature; close it, or use it in a `with`.

    An answer is an array an output; where it is a number a class, those by the names of the classes. Both calls
    raise InputError, whose details name the rows. Several threads may call them.
    """

    signature: Signature
    #: Which version answers, as far as that is known.
    reference: str
    #: Values that were answered although they were odd.
    flagged: int

    def many(self, columns: Columns) -> Mapping[str, Any]:
        """The answers to columns of the signature's types."""
        ...

    def one(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one row as JSON has it."""
        ...

    def __enter__(self) -> Answerer: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Here:
    """Here answers in this process, by the code that serves."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self.signature = loaded.signature
        self.reference = loaded.bundle.reference or loaded.bundle.name
        self.flagged = 0
        self._counting = threading.Lock()

    def many(self, columns: Columns) -> Mapping[str, Any]:
        return self._named(self._loaded.result(columns))

    def one(self, row: Mapping[str, Any]) -> dict[str, Any]:
        answers = self._named(self._loaded.result([row]))
        return {name: _first(values) for name, values in answers.items()}

    def _named(self, result: Result) -> dict[str, Any]:
        if result.flags:
            with self._counting:
                self.flagged += len(result.flags)
        return {field.name: _by_class(result.outputs[field.name], field) for field in self.signature.outputs}

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        self._loaded.close()


class There:
    """There answers through a running server."""

    def __init__(self, client: Client, name: str, version: int | None) -> None:
        self._client = client
        self._name = name
        self._version = version
        found = client.signature(name, version=version)
        # a server says nothing of missing texts until one is sent
        inputs = [msgspec.structs.replace(field, missing=field.datatype == "BYTES") for field in found.inputs]
        self.signature = Signature(inputs=tuple(inputs), outputs=found.outputs)
        self.reference = name if version is None else f"{name}:{version}"
        self.flagged = 0

    def many(self, columns: Columns) -> Mapping[str, Any]:
        rows = _as_rows(columns)
        answers = self._client.predict(self._name, rows, version=self._version)
        if isinstance(answers, list):
            self.flagged += sum(len(answer.flags) for answer in answers)
            flat: Mapping[str, Any] = _as_columns(answers)
        else:
            flat = {name: answers.column(name).to_pylist() for name in answers.column_names}
        return {field.name: _unflattened(flat, field.name) for field in self.signature.outputs}

    def one(self, row: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._client.predict(self._name, row, version=self._version)
        self.flagged += len(answer.flags)
        return dict(answer)

    def __enter__(self) -> There:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


def _by_class(array: Array, field: Field) -> Any:
    if field.classes is None or len(field.shape) != 2:
        return array
    return {name: array[:, at] for at, name in enumerate(field.classes)}


def _first(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: _first(each) for name, each in values.items()}
    return values[0].tolist() if isinstance(values[0], (np.ndarray, np.generic)) else values[0]


def _as_rows(columns: Columns) -> Any:
    """A pyarrow table, or a list of mappings where there is no pyarrow."""
    plain = {
        name: column.tolist() if column.dtype == object or column.ndim > 1 else column
        for name, column in columns.items()
    }
    try:
        return import_module("pyarrow").table(plain)
    except ImportError:
        lists = {name: values if isinstance(values, list) else values.tolist() for name, values in plain.items()}
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _as_columns(answers: list[Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, value in answers[0].items():
        if isinstance(value, Mapping):
            columns[name] = {part: [answer[name][part] for answer in answers] for part in value}
        else:
            columns[name] = [answer[name] for answer in answers]
    return columns


def _unflattened(flat: Mapping[str, Any], name: str) -> Any:
    if name in flat:
        return flat[name]
    return {column[len(name) + 1 :]: each for column, each in flat.items() if column.startswith(f"{name}.")}
