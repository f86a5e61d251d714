"""Annotations of `predict` as fields: `list[str]` in, `list[float]` or rows with fields out."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from cloche.core.errors import ConfigError
from cloche.core.signature import Field
from cloche.runtimes.answers import VALUE
from cloche.runtimes.model_class import unwrap

_SCALARS = {str: "BYTES", int: "INT64", float: "FP64", bool: "BOOL"}
_TAKES = "list[str], list[int], list[float], list[bool] or a numpy array"


class Column(msgspec.Struct, frozen=True):
    """A Column is what an annotation says of one column; `datatype` None: the data must say."""

    datatype: str | None = None
    missing: bool = False
    #: Axes beside rows: `list[list[float]]` has one.
    axes: int | None = None


def read_column(annotation: Any, where: str) -> Column:
    """What the annotation of a parameter or of a field of columns says. Raises ConfigError for a wrong one."""
    annotation = unwrap(annotation)
    if annotation is None or annotation is Any or _is_array(annotation):
        return Column()
    axes = -1
    while _is_list(annotation):
        arguments = typing.get_args(annotation)
        if not arguments:
            return Column()
        annotation, axes = unwrap(arguments[0]), axes + 1
    scalar, missing = _optional(annotation)
    if axes < 0 or scalar not in _SCALARS:
        raise ConfigError(
            f"{where} is annotated {_name(annotation)}", hint=f"columns come in and go out: write {_TAKES}"
        )
    if missing and scalar in (int, bool):
        raise ConfigError(
            f"{where} is annotated {_name(annotation)}, and a column of {_SCALARS[scalar]} has no place for None",
            hint="write float | None, or str | None",
        )
    return Column(_SCALARS[scalar], missing, axes)


def read_outputs(annotation: Any, where: str) -> tuple[Field, ...] | None:
    """The outputs that the annotation of `predict`'s answer names; None where the data must say.

    `list[T]` is the output `value`; a list of TypedDicts, dataclasses, named tuples or structs is an output a
    field, and so is one of these with a list in each field. Raises ConfigError for a wrong one.
    """
    if annotation is None or annotation is Any or _is_array(annotation):
        return None
    if (columns := _fields(annotation)) is not None:
        return _all({name: read_column(kind, f"{name} of {where}") for name, kind in columns.items()})
    if _is_list(annotation) and (arguments := [unwrap(kind) for kind in typing.get_args(annotation)]):
        if (rows := _fields(arguments[0])) is not None:
            return _all({name: _read_row(kind, f"{name} of {where}") for name, kind in rows.items()})
        if _is_mapping(arguments[0]):
            return None
    if _is_mapping(annotation) or _is_frame(annotation):
        return None
    return _all({VALUE: read_column(annotation, where)})


def _read_row(annotation: Any, where: str) -> Column:
    """A row's field, which holds one value or a list of them."""
    annotation = unwrap(annotation)
    if _optional(annotation)[0] in _SCALARS:
        return read_column(list[annotation], where)
    column = read_column(annotation, where)
    return Column(column.datatype, column.missing, None if column.axes is None else column.axes + 1)


def _all(columns: Mapping[str, Column]) -> tuple[Field, ...] | None:
    fields = []
    for name, column in columns.items():
        if column.datatype is None or column.axes is None:
            return None
        shape = (-1,) * (1 + column.axes)
        fields.append(Field(name=name, datatype=column.datatype, shape=shape, missing=column.missing))
    return tuple(fields)


def _fields(kind: Any) -> dict[str, Any] | None:
    """Name -> annotation of a kind of row; None for any other."""
    if not isinstance(kind, type):
        return None
    is_row = (
        typing.is_typeddict(kind)
        or dataclasses.is_dataclass(kind)
        or issubclass(kind, msgspec.Struct)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )
    return typing.get_type_hints(kind) if is_row else None


def _optional(annotation: Any) -> tuple[Any, bool]:
    """The scalar of `T | None` and True, or the annotation itself and False."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [unwrap(kind) for kind in typing.get_args(annotation) if kind is not type(None)]
        if len(kinds) == 1:
            return kinds[0], True
    return annotation, False


def _origin(annotation: Any) -> Any:
    return typing.get_origin(annotation) or annotation


def _is_list(annotation: Any) -> bool:
    return _origin(annotation) in (list, Sequence)


def _is_mapping(annotation: Any) -> bool:
    origin = _origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping) and not typing.is_typeddict(origin)


def _is_array(annotation: Any) -> bool:
    return _origin(annotation) is np.ndarray


def _is_frame(annotation: Any) -> bool:
    return isinstance(annotation, type) and annotation.__name__ == "DataFrame"


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
