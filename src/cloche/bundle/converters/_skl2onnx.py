"""The heavy half of the scikit-learn converter: imports skl2onnx, tries ways to convert, keeps an exact one."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

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
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder
from sklearn.utils.validation import check_is_fitted

from cloche.bundle.converters import _boosters, _encoders, _graph, _trees
from cloche.bundle.converters._original import (
    CANNOT,
    Original,
    ask_original,
    given_rows,
    pickled_size,
    time_one_row,
)
from cloche.bundle.converters._prepare import describe, parts, prepare
from cloche.bundle.converters._stack import stack_inputs
from cloche.bundle.converters.base import Converted, ConvertOptions
from cloche.bundle.parity import compare
from cloche.core.errors import ConversionError, ModelError
from cloche.core.signature import Field, Signature
from cloche.runtimes.base import RuntimeSpec
from cloche.runtimes.onnx import DATATYPES, OnnxRuntime, first_line, open_session

#: A message with another project's address sends people where nobody can help them.
_URL = re.compile(r"\s*(?:See|Please|at|on|to)?\s*https?://\S+")

OPSETS = {"": 21, "ai.onnx.ml": 3}
MODEL_FILE = "model/model.onnx"


class Way(NamedTuple):
    """One way to convert: which type each kind of number is computed in."""

    #: By datatype of the signature; what is missing here is float64.
    types: dict[str, Any]
    #: All columns become one input of the model.
    joined: bool


def convert(model: Any, rows: object | None, options: ConvertOptions) -> Converted:
    """The model as ONNX that answers the proof rows exactly. Raises ConversionError, InputError."""
    check_kind(model)
    given = given_rows(model, rows)
    with warnings.catch_warnings():
        # About feature names and the like: the user has seen them at fit.
        warnings.simplefilter("ignore")
        original = ask_original(model, given)
        exact = first_exact(original, options)
        row_s = time_one_row(original)
    return Converted(
        framework=f"scikit-learn {sklearn.__version__}",
        description=describe(model),
        task="classification" if is_classifier(model) else "regression",
        signature=exact.signature,
        runtime=RuntimeSpec(kind="onnx", entry=MODEL_FILE, stacked=exact.stacked),
        files={MODEL_FILE: exact.data},
        columns=None if rows is None else given.columns,
        reference=None if rows is None else original.reference,
        unused=given.unused,
        original_bytes=pickled_size(model),
        original_row_s=row_s,
    )


def check_kind(model: Any) -> None:
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


class Exact(NamedTuple):
    """An Exact is a graph that answers as the original: its bytes, its signature, and which columns it stacks."""

    data: bytes
    signature: Signature
    stacked: tuple[str, ...]


def first_exact(original: Original, options: ConvertOptions) -> Exact:
    """The first way whose answers are the original's. Raises the most telling refusal of all ways."""
    refusal: ConversionError | None = None
    reasons: list[Exception] = []
    for way in _ways(original):
        try:
            model, stacked = _convert_one(original, way)
        except CANNOT as error:
            reasons.append(error)
            continue
        try:
            signature = _prove(original, model, stacked, options)
        except ModelError as error:
            reasons.append(error)
        except ConversionError as error:
            refusal = refusal or error
        else:
            return Exact(model.SerializeToString(deterministic=True), signature, stacked)
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


def _convert_one(original: Original, way: Way) -> tuple[ModelProto, tuple[str, ...]]:
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
    prepared = prepare(original.model, names)
    has_boosters = _boosters.register(prepared, original.model, original.rows)
    model = _convert_proto(prepared, initial)
    if has_boosters:
        _boosters.raise_opset(model)
    _graph.set_inputs(model, fields, joined=way.joined)
    outputs = list(original.reference)
    sources = [value.name for value in model.graph.output][: len(outputs)]
    boolean = original.reference[outputs[0]].dtype.kind == "b"
    _graph.set_outputs(model, sources, boolean=boolean)
    _graph.rename(model, [field.name for field in fields], outputs)
    stacked = stack_inputs(model, fields)
    _graph.strip(model)
    return model, stacked


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
        return f"{unknown[1]} has no counterpart in ONNX that is known here"
    return _URL.sub("", first_line(reason)).strip()


def _has_encoder(model: Any) -> bool:
    return any(isinstance(part, (OneHotEncoder, OrdinalEncoder)) for part in parts(model))


def _prove(original: Original, model: ModelProto, stacked: tuple[str, ...], options: ConvertOptions) -> Signature:
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
    runtime = OnnxRuntime(session, signature, stacked)
    compare(
        original.reference,
        runtime.run(original.columns),
        rtol=options.rtol,
        atol=options.atol,
        inputs=original.columns,
        trees=any(hasattr(part, "tree_") or "Hist" in type(part).__name__ for part in parts(original.model)),
    )
    if original.unseen is not None:
        rows, expected = original.unseen
        try:
            compare(expected, runtime.run(rows), rtol=options.rtol, atol=options.atol)
        except (ConversionError, ModelError) as error:
            raise ConversionError(
                f"strings that were never seen are answered otherwise: {error.message}",
                code="CL-E801",
                hint=("set handle_unknown of the encoders, or " if _has_encoder(original.model) else "")
                + "pack a Python class with `load` and `predict`",
            ) from error
    return signature
