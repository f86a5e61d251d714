"""The heavy half of the scikit-learn converter: imports skl2onnx, tries ways to convert, keeps an exact one."""

from __future__ import annotations

import pickle
import re
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
import sklearn
from onnx import ModelProto
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.base import is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from cloche.bundle.converters import _encoders, _graph, _trees
from cloche.bundle.converters._prepare import describe, parts, prepare
from cloche.bundle.converters.base import PROOF_ROWS, Converted, ConvertOptions
from cloche.bundle.parity import compare
from cloche.bundle.rows import draw_rows, infer_fields, is_frame, to_columns
from cloche.core.errors import ConfigError, ConversionError, InputError, ModelError
from cloche.core.signature import Array, Columns, Field, Signature, count_rows, take_rows
from cloche.runtimes.base import RuntimeSpec
from cloche.runtimes.onnx import DATATYPES, OnnxRuntime, first_line, open_session

OPSETS = {"": 21, "ai.onnx.ml": 3}
MODEL_FILE = "model/model.onnx"

#: What skl2onnx and scikit-learn raise for what they can't do; MissingConverter is a RuntimeError.
_CANNOT = (
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


class Way(NamedTuple):
    """One way to convert: which type each kind of number is computed in."""

    #: By datatype of the signature; what is missing here is float64.
    types: dict[str, Any]
    #: All columns become one input of the model.
    joined: bool


def convert(model: Any, rows: object | None, options: ConvertOptions) -> Converted:
    """The model as ONNX that answers the proof rows exactly. Raises ConversionError, InputError."""
    _check_kind(model)
    given, columns, fields = _given_rows(model, rows)
    with warnings.catch_warnings():
        # About feature names and the like: the user has seen them at fit.
        warnings.simplefilter("ignore")
        original = _ask_original(model, given, columns, fields)
        data, signature = _first_exact(original, options)
        row_s = _time_one_row(original)
    return Converted(
        framework=f"scikit-learn {sklearn.__version__}",
        description=describe(model),
        task="classification" if is_classifier(model) else "regression",
        signature=signature,
        runtime=RuntimeSpec(kind="onnx", entry=MODEL_FILE),
        files={MODEL_FILE: data},
        columns=None if rows is None else columns,
        reference=None if rows is None else original.reference,
        original_bytes=_pickled_size(model),
        original_row_s=row_s,
    )


def _check_kind(model: Any) -> None:
    if not (is_classifier(model) or is_regressor(model)):
        raise ConversionError(
            f"{describe(model)} is neither a classifier nor a regressor",
            code="CL-E802",
            hint="pack a Python class with `load` and `predict` instead",
        )
    try:
        check_is_fitted(model)
    except NotFittedError:
        words = f"{describe(model)} is not fitted"
        raise ConversionError(words, code="CL-E802", hint="call fit before packing") from None


def _given_rows(model: Any, rows: object | None) -> tuple[Any, Columns, tuple[Field, ...]]:
    """The rows as the model takes them and as columns, and the signature's inputs."""
    names = [str(name) for name in getattr(model, "feature_names_in_", [])]
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
        return _native(columns, names), columns, fields
    columns = to_columns(rows)
    if not count_rows(columns):
        raise ConfigError("there are no rows", code="CL-E204", hint="give at least one row")
    native = rows
    if is_frame(rows) or not _is_array(columns):
        missing = [name for name in names if name not in columns]
        if missing:
            raise InputError(
                f"the rows lack {', '.join(missing)}",
                code="CL-E104",
                hint=f"the model was fitted on {', '.join(names)}",
            )
        columns = {name: columns[name] for name in names} if names else columns
        native = _select(rows, names) if is_frame(rows) else _native(columns, names)
    return native, columns, infer_fields(columns)


def _is_array(columns: Columns) -> bool:
    return list(columns) == ["x"] and columns["x"].ndim > 1


def _select(frame: Any, names: list[str]) -> Any:
    wrapped = nw.from_native(frame, eager_only=True)
    return wrapped.select(names).to_native() if names else frame


def _native(columns: Columns, names: list[str]) -> Any:
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


def _ask_original(model: Any, rows: Any, columns: Columns, fields: tuple[Field, ...]) -> Original:
    head = _head(rows, PROOF_ROWS)
    try:
        answers = _answer(model, head)
    except _CANNOT as error:
        raise InputError(
            f"the model itself fails on these rows: {first_line(error)}",
            code="CL-E105",
            hint="give rows that model.predict takes",
        ) from error
    return Original(model, head, take_rows(columns, 0, PROOF_ROWS), fields, answers, _ask_unseen(model, columns))


def _ask_unseen(model: Any, columns: Columns) -> tuple[Columns, Columns] | None:
    if all(column.dtype != object for column in columns.values()):
        return None
    unseen = {
        name: np.full_like(column, "never seen before") if column.dtype == object else column
        for name, column in take_rows(columns, 0, 16).items()
    }
    try:
        rows = _native(unseen, [str(name) for name in getattr(model, "feature_names_in_", [])])
        return unseen, _answer(model, rows)
    except _CANNOT:
        return None


def _answer(model: Any, rows: Any) -> Columns:
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


def _first_exact(original: Original, options: ConvertOptions) -> tuple[bytes, Signature]:
    """The first way whose answers are the original's. Raises the most telling refusal of all ways."""
    refusal: ConversionError | None = None
    reasons: list[Exception] = []
    for way in _ways(original):
        try:
            model = _convert_one(original, way)
        except _CANNOT as error:
            reasons.append(error)
            continue
        try:
            signature = _prove(original, model, options)
        except ModelError as error:
            reasons.append(error)
        except ConversionError as error:
            refusal = refusal or error
        else:
            return model.SerializeToString(deterministic=True), signature
    if refusal is not None:
        raise refusal
    raise ConversionError(
        f"{describe(original.model)} can't be converted to ONNX: {_explain(reasons[0])}",
        code="CL-E802",
        hint="pack it as a Python class with `load` and `predict` instead: cloche pack model.py:Model",
    ) from reasons[0]


def _ways(original: Original) -> Iterator[Way]:
    """Ways in the order of trust: as scikit-learn computes (float32, else float64), then by native type."""
    datatypes = {field.datatype for field in original.fields}
    numbers = datatypes - {"BYTES"}
    single = len(original.fields[0].shape) > 1
    by_name = any(isinstance(part, ColumnTransformer) for part in parts(original.model))
    joined = not single and not by_name and (not numbers or "BYTES" not in datatypes)
    if numbers == {"FP32"}:
        yield Way({"FP32": FloatTensorType}, joined)
    yield Way({}, joined)
    if not joined and not numbers <= {"FP64"}:
        native = {"FP32": FloatTensorType, "INT64": Int64TensorType, "BOOL": Int64TensorType}
        yield Way(native, joined)
        yield Way({"INT64": Int64TensorType, "BOOL": Int64TensorType}, joined)
    if numbers and not any(type(part).__name__.startswith("Hist") for part in parts(original.model)):
        # Some operators know float32 only; histogram boosting would be wrong close to its split points.
        yield Way(dict.fromkeys(numbers, FloatTensorType), joined)


def _convert_one(original: Original, way: Way) -> ModelProto:
    fields = original.fields
    kinds = [
        StringTensorType if f.datatype == "BYTES" else way.types.get(f.datatype, DoubleTensorType) for f in fields
    ]
    if way.joined:
        initial = [("joined", kinds[0]([None, len(fields)]))]
    else:
        widths = [1 if len(field.shape) == 1 else field.shape[1] for field in fields]
        initial = [
            (f"in{i}", kind([None, width])) for i, (kind, width) in enumerate(zip(kinds, widths, strict=True))
        ]
    names = None if len(fields[0].shape) > 1 else [field.name for field in fields]
    model = _convert_proto(prepare(original.model, names), initial)
    _graph.set_inputs(model, fields, joined=way.joined)
    outputs = list(original.reference)
    sources = [value.name for value in model.graph.output][: len(outputs)]
    boolean = original.reference[outputs[0]].dtype.kind == "b"
    _graph.set_outputs(model, sources, boolean=boolean)
    _graph.rename(model, [field.name for field in fields], outputs)
    _graph.strip(model)
    return model


def _convert_proto(model: Any, initial: list[tuple[str, Any]]) -> ModelProto:
    for options in ({"zipmap": False}, None) if is_classifier(model) else (None,):
        try:
            return convert_sklearn(
                model,
                initial_types=initial,
                options=options,
                target_opset=OPSETS,
                custom_conversion_functions={**_trees.CONVERTERS, **_encoders.CONVERTERS},
                custom_shape_calculators=_encoders.SHAPES,
                # It multiplies by 1 / scale in float32; scikit-learn divides.
                black_op={"Scaler"},
            )
        except NameError:  # what skl2onnx raises for models without probabilities, which need no such option
            continue
    raise NotImplementedError(f"{describe(model)} takes no options")


def _explain(reason: Exception) -> str:
    unknown = re.search(r"<class '[\w.]*?(\w+)'>", str(reason))
    if unknown and ("shape calculator" in str(reason) or "converter" in str(reason)):
        return f"skl2onnx knows no {unknown[1]}"
    return first_line(reason)


def _prove(original: Original, model: ModelProto, options: ConvertOptions) -> Signature:
    """The signature as the graph answers it. Raises ConversionError where it answers otherwise; ModelError."""
    session = open_session(model.SerializeToString(), 1)
    classes = tuple(str(each) for each in getattr(original.model, "classes_", ())) or None
    datatypes = [DATATYPES[node.type] for node in session.get_outputs()]
    outputs = tuple(
        Field(name=name, datatype=datatype, shape=(-1, *expected.shape[1:]), classes=classes)
        for (name, expected), datatype in zip(original.reference.items(), datatypes, strict=True)
    )
    _graph.set_output_types(model, datatypes, [["n", *field.shape[1:]] for field in outputs])
    signature = Signature(inputs=original.fields, outputs=outputs)
    runtime = OnnxRuntime(session, signature)
    compare(original.reference, runtime.run(original.columns), rtol=options.rtol, atol=options.atol)
    if original.unseen is not None:
        rows, expected = original.unseen
        try:
            compare(expected, runtime.run(rows), rtol=options.rtol, atol=options.atol)
        except (ConversionError, ModelError) as error:
            raise ConversionError(
                f"strings that were never seen are answered otherwise: {error.message}",
                code="CL-E801",
                hint="set handle_unknown of the encoders, or pack a Python class with `load` and `predict`",
            ) from error
    return signature


def _time_one_row(original: Original) -> float:
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


def _pickled_size(model: Any) -> int:
    """Bytes of the model as a pickle, which is only measured; 0 where it can't be pickled."""
    try:
        return len(pickle.dumps(model, protocol=5))
    except (pickle.PicklingError, TypeError, AttributeError):
        return 0
