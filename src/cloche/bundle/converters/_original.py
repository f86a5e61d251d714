"""A fitted scikit-learn model and its answers to the rows that prove its conversion."""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer

from cloche.bundle.converters._prepare import parts
from cloche.bundle.converters.base import PROOF_ROWS
from cloche.bundle.rows import draw_rows, infer_fields, is_frame, require_rows, to_columns
from cloche.core.errors import ConversionError, InputError
from cloche.core.signature import Array, Columns, Field, Signature, take_rows
from cloche.core.words import listed
from cloche.runtimes.onnx import first_line

#: What skl2onnx and scikit-learn raise for what they can't do; MissingConverter is a RuntimeError.
CANNOT = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Original(NamedTuple):
    """The fitted model with the rows that prove its conversion."""

    model: Any
    #: The rows as the model takes them, at most PROOF_ROWS.
    rows: Any
    #: The same rows, as the bundle takes them.
    columns: Columns
    fields: tuple[Field, ...]
    #: Its answers to them, by output name.
    reference: Columns
    #: Some of the rows with strings that nobody has seen, and its answers; None where it refuses them.
    unseen: tuple[Columns, Columns] | None


class Given(NamedTuple):
    """The rows that were given: as the model takes them, as columns, and what these are."""

    native: Any
    columns: Columns
    fields: tuple[Field, ...]
    #: Names of columns that the model was not fitted on; they are not even looked at.
    unused: tuple[str, ...] = ()


def given_rows(model: Any, rows: object | None) -> Given:
    """The rows as the model takes them. Raises InputError, ConfigError, ConversionError."""
    names = [str(name) for name in getattr(model, "feature_names_in_", [])]
    if names == [f"Column_{place}" for place in range(len(names))]:
        names = []  # what LightGBM before 4.7 calls the columns of an array
    if rows is None:
        if any(isinstance(part, ColumnTransformer) for part in parts(model)):
            raise ConversionError(
                "without rows nobody can tell the types of this model's columns",
                code="CL-E802",
                hint="give a few held-out rows as X",
            )
        fields = tuple(Field(name=name, datatype="FP64", shape=(-1,)) for name in names) or (
            Field(name="x", datatype="FP64", shape=(-1, int(model.n_features_in_))),
        )
        columns = draw_rows(Signature(inputs=fields, outputs=()), 256)
        return Given(to_native(columns, names), columns, fields)
    rows, unused = _select(rows, names)
    columns = to_columns(rows)
    require_rows(columns)
    if names and _is_array(columns) and not is_frame(rows):
        raise InputError(
            "the model was fitted on a frame with named columns, and these rows are an array without names",
            code="CL-E104",
            hint=f"give the frame: pandas.DataFrame(X, columns=[{', '.join(map(repr, names[:6]))}"
            f"{', …' if len(names) > 6 else ''}])",
        )
    native = columns["x"] if isinstance(rows, Mapping) and _is_array(columns) else rows
    if not is_frame(rows) and not _is_array(columns):
        native = to_native(columns, names)
    return Given(native, columns, infer_fields(columns), unused)


def _is_array(columns: Columns) -> bool:
    return list(columns) == ["x"] and columns["x"].ndim > 1


def _select(rows: Any, names: list[str]) -> tuple[Any, tuple[str, ...]]:
    """The named columns, in this order, and the names of those beside them; rows without names as they are.

    Raises InputError where one is not there.
    """
    if isinstance(rows, Sequence) and rows and isinstance(rows[0], Mapping):
        rows = to_columns(rows)
    is_dict = isinstance(rows, Mapping) and not _is_array({name: np.asarray(each) for name, each in rows.items()})
    if not names or not (is_dict or is_frame(rows)):
        return rows, ()
    frame = None if is_dict else nw.from_native(rows, eager_only=True)
    there = [str(name) for name in (rows if frame is None else frame.columns)]
    if missing := [name for name in names if name not in there]:
        raise InputError(
            f"the rows lack {listed(missing)}", code="CL-E104", hint=f"the model was fitted on {listed(names)}"
        )
    selected = {name: rows[name] for name in names} if frame is None else frame.select(names).to_native()
    return selected, tuple(name for name in there if name not in names)


def to_native(columns: Columns, names: list[str]) -> Any:
    """Columns as a fitted model takes them: a frame where it knows names and pandas is there, else an array."""
    if _is_array(columns):
        return columns["x"]
    if names:
        try:
            return nw.from_dict(dict(columns), backend="pandas").to_native()
        except ImportError:
            pass
    return np.column_stack(list(columns.values()))


def _head(rows: Any, count: int) -> Any:
    return nw.from_native(rows).head(count).to_native() if is_frame(rows) else rows[:count]


def ask_original(model: Any, given: Given) -> Original:
    """The model with its answers to the first rows. Raises InputError where it fails on them."""
    head = _head(given.native, PROOF_ROWS)
    try:
        answers = answer(model, head)
    except CANNOT as error:
        raise InputError(
            f"the model itself fails on these rows: {first_line(error)}",
            code="CL-E105",
            hint="give rows that model.predict takes",
        ) from error
    columns = take_rows(given.columns, 0, PROOF_ROWS)
    return Original(model, head, columns, given.fields, answers, _ask_unseen(model, columns))


def _ask_unseen(model: Any, columns: Columns) -> tuple[Columns, Columns] | None:
    if all(column.dtype != object for column in columns.values()):
        return None
    unseen = {
        name: np.full_like(column, "never seen before") if column.dtype == object else column
        for name, column in take_rows(columns, 0, 16).items()
    }
    try:
        rows = to_native(unseen, [str(name) for name in getattr(model, "feature_names_in_", [])])
        return unseen, answer(model, rows)
    except CANNOT:
        return None


def answer(model: Any, rows: Any) -> Columns:
    """The outputs by name: label and probabilities, or value."""
    if not is_classifier(model):
        value = np.asarray(model.predict(rows))
        return {"value": value[:, 0] if value.ndim == 2 and value.shape[1] == 1 else value}
    answers = {"label": _labels(np.asarray(model.predict(rows)))}
    if hasattr(model, "predict_proba"):
        answers["probabilities"] = np.asarray(model.predict_proba(rows))
    if answers["label"].ndim != 1:
        raise ConversionError(
            "classifiers of several labels at once are not converted",
            code="CL-E802",
            hint="pack one model a label, or a Python class",
        )
    return answers


def _labels(labels: Array) -> Array:
    if labels.dtype.kind in "OUS":
        return labels.astype(np.str_).astype(object)
    if labels.dtype.kind == "b":
        return labels
    whole = labels.astype(np.int64)
    if not np.array_equal(whole, labels):
        raise ConversionError(
            "the classes are not whole numbers", code="CL-E802", hint="fit on strings or integers"
        )
    return whole


def time_one_row(original: Original) -> float:
    """Median seconds of one row in the original, over at most half a second."""
    ask = getattr(original.model, "predict_proba", original.model.predict)
    row = _head(original.rows, 1)
    ask(row)
    spent: list[float] = []
    while len(spent) < 3 or (len(spent) < 50 and sum(spent) < 0.5):
        start = time.perf_counter()
        ask(row)
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))


def pickled_size(model: Any) -> int:
    """Bytes of the model as a pickle, which is only measured; 0 where it can't be pickled."""
    try:
        return len(pickle.dumps(model, protocol=5))
    except (pickle.PicklingError, TypeError, AttributeError):
        return 0
