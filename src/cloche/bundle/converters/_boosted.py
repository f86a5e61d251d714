"""From the trees of a booster to a Converted: the graph around them, and the proof on the rows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from onnx import helper

from cloche.bundle.converters import _graph
from cloche.bundle.converters._forest import ML_DOMAIN, GraphWriter, Tree, Values, Writer, add_forest
from cloche.bundle.converters._stack import stack_inputs
from cloche.bundle.converters.base import PROOF_ROWS, Converted, ConvertOptions
from cloche.bundle.parity import compare
from cloche.bundle.rows import ARRAY_INPUT, draw_rows, infer_fields, to_columns
from cloche.core.errors import ConfigError, ConversionError, InputError
from cloche.core.signature import Columns, Field, Signature, count_rows, take_rows
from cloche.runtimes.base import RuntimeSpec
from cloche.runtimes.onnx import DATATYPES, OnnxRuntime, open_session

MODEL_FILE = "model/model.onnx"
_DRAWN_ROWS = 256
_AS_CLASS = "pack it as a Python class with `load` and `predict` instead: cloche pack model.py:Model"


class Boosted(NamedTuple):
    """A Boosted is what decides a booster's answers, whoever trained it."""

    trees: Sequence[Tree]
    #: How many sums the trees add to.
    targets: int
    #: The type that features are compared in and sums are added in.
    dtype: Any
    #: What becomes of the sums: a key of LINKS.
    link: str
    #: The labels in the order of the probabilities; None for a regression.
    classes: Values | None
    #: The features; those from here on are copies: first `whole`, then all with zeros as missing.
    width: int
    #: The sums are multiplied by this, or divided, before the link.
    factor: float = 1.0
    divisor: int = 1
    #: The value that stands for a missing one, beside NaN.
    missing: float = float("nan")
    #: Features of which a copy without fraction is compared.
    whole: tuple[int, ...] = ()
    #: Whether copies of all features are compared in which zero is missing.
    zeros: bool = False


class Fitted(NamedTuple):
    """A Fitted is the original of a Boosted: it says its names, and answers rows."""

    boosted: Boosted
    framework: str
    description: str
    #: The names of its features; empty where it was trained on an array.
    names: Sequence[str]
    #: Columns as the model takes them.
    native: Callable[[Columns], Any]
    #: Its answers to such rows: `value`, or `label` and `probabilities`.
    answer: Callable[[Any], Columns]
    size: int
    #: Feature -> its categories: the model sees their places, and NaN for any other.
    categories: Mapping[int, Sequence[Any]] = {}


def refuse(reason: str, hint: str = _AS_CLASS) -> ConversionError:
    return ConversionError(reason, code="CL-E802", hint=hint)


def convert(fitted: Fitted, rows: object | None, options: ConvertOptions) -> Converted:
    """The model as ONNX that answers the proof rows as it does. Raises ConversionError, InputError."""
    columns, fields, unused = _align(fitted, rows)
    head = take_rows(columns, 0, PROOF_ROWS)
    with warnings.catch_warnings():
        # About feature names and the like: the user has seen them at fit.
        warnings.simplefilter("ignore")
        reference = fitted.answer(fitted.native(head))
        row_s = _time_one_row(fitted, columns)
    model, stacked = _build(fitted, fields, list(reference))
    session = open_session(model.SerializeToString(), 1)
    classes = fitted.boosted.classes
    words = None if classes is None else tuple(str(each) for each in classes)
    outputs = tuple(
        Field(name=name, datatype=DATATYPES[node.type], shape=(-1, *expected.shape[1:]), classes=words)
        for (name, expected), node in zip(reference.items(), session.get_outputs(), strict=True)
    )
    signature = Signature(inputs=fields, outputs=outputs)
    answers = OnnxRuntime(session, signature, stacked).run(head)
    compare(reference, answers, rtol=options.rtol, atol=options.atol, inputs=head, trees=True)
    _graph.set_output_types(
        model, [field.datatype for field in outputs], [["n", *field.shape[1:]] for field in outputs]
    )
    return Converted(
        framework=fitted.framework,
        description=fitted.description,
        task="regression" if classes is None else "classification",
        signature=signature,
        runtime=RuntimeSpec(kind="onnx", entry=MODEL_FILE, stacked=stacked),
        files={MODEL_FILE: model.SerializeToString(deterministic=True)},
        columns=None if rows is None else columns,
        reference=None if rows is None else reference,
        unused=unused,
        original_bytes=fitted.size,
        original_row_s=row_s,
    )


def _align(fitted: Fitted, rows: object | None) -> tuple[Columns, tuple[Field, ...], tuple[str, ...]]:
    """The rows as columns in the order of the features, their fields, and the names that no feature has.

    Features that have names get a column each, others are one array or the columns as they are named.
    """
    names, width = [str(name) for name in fitted.names], fitted.boosted.width
    if rows is None:
        return _drawn(fitted, names)
    columns = to_columns(rows)
    if not count_rows(columns):
        raise ConfigError("there are no rows", code="CL-E204", hint="give at least one row")
    only = next(iter(columns.values()))
    if len(columns) == 1 and only.ndim == 2:
        if only.shape[1] != width:
            raise _wrong_width(only.shape[1], width)
        if names:
            columns = {name: only[:, i] for i, name in enumerate(names)}
        return columns, infer_fields(columns), ()
    if any(column.ndim != 1 for column in columns.values()):
        raise InputError("a column holds more than one value a row", code="CL-E110", hint="give plain columns")
    spelled = {_spelling(name): name for name in columns}
    if names and (missing := [name for name in names if _spelling(name) not in spelled]):
        raise InputError(
            f"the rows lack {', '.join(missing[:6])}",
            code="CL-E104",
            hint=f"the model was trained on {', '.join(names)}",
        )
    taken = [spelled[_spelling(name)] for name in names] or list(columns)
    if len(taken) != width:
        raise _wrong_width(len(taken), width)
    unused = tuple(name for name in columns if name not in taken)
    columns = {name: columns[name] for name in taken}
    _check_types(fitted, columns)
    return columns, infer_fields(columns), unused


def _drawn(fitted: Fitted, names: list[str]) -> tuple[Columns, tuple[Field, ...], tuple[str, ...]]:
    if fitted.categories:
        raise refuse("without rows nobody can tell the types of its categories", "give a few held-out rows as X")
    fields = tuple(Field(name=name, datatype="FP64", shape=(-1,)) for name in names) or (
        Field(name=ARRAY_INPUT, datatype="FP64", shape=(-1, fitted.boosted.width)),
    )
    return draw_rows(Signature(inputs=fields, outputs=()), _DRAWN_ROWS), fields, ()


def _spelling(name: str) -> str:
    """LightGBM writes names without blanks."""
    return "_".join(name.split(" "))


def _wrong_width(found: int, wanted: int) -> InputError:
    return InputError(
        f"the rows have {found} columns, and the model has {wanted} features",
        code="CL-E110",
        hint="give the columns that it was trained on, in that order",
    )


def _check_types(fitted: Fitted, columns: Columns) -> None:
    for place, (name, column) in enumerate(columns.items()):
        if column.dtype == object and place not in fitted.categories:
            raise InputError(
                f"column {name!r} holds strings, and the model was trained on numbers there",
                code="CL-E105",
                hint="encode them as at training, or pack a pipeline that does",
            )


def _time_one_row(fitted: Fitted, columns: Columns) -> float:
    """Median seconds of one row in the original, over at most half a second."""
    row = fitted.native(take_rows(columns, 0, 1))
    fitted.answer(row)
    spent: list[float] = []
    while len(spent) < 3 or (len(spent) < 50 and sum(spent) < 0.5):
        start = time.perf_counter()
        fitted.answer(row)
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))


def _build(fitted: Fitted, fields: tuple[Field, ...], outputs: list[str]) -> tuple[Any, tuple[str, ...]]:
    boosted, writer = fitted.boosted, GraphWriter()
    matrix, places = _add_matrix(writer, fields, fitted.categories, boosted.dtype)
    results = add_booster(writer, matrix, _moved(boosted, places))
    inputs = [
        helper.make_tensor_value_info(
            f"given_{i}", _graph.ELEMENT_TYPES[field.datatype], ["n", *(field.shape[1:] or (1,))]
        )
        for i, field in enumerate(fields)
    ]
    model = writer.finish(inputs, results)
    _graph.rename(model, [field.name for field in fields], outputs)
    stacked = stack_inputs(model, fields)
    _graph.strip(model)
    return model, stacked


def _add_matrix(
    writer: Writer, fields: tuple[Field, ...], categories: Mapping[int, Sequence[Any]], dtype: Any
) -> tuple[str, list[int]]:
    """All inputs as one matrix [n, features] of the type, and where in it each feature is.

    Inputs of one type are joined before they are cast: a cast for each would cost more than the trees.
    """
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    groups: dict[str, list[str]] = {}
    order: list[tuple[str, int]] = []
    for place, field in enumerate(fields):
        group, name = field.datatype, f"given_{place}"
        if place in categories:
            group, name = "FP32", _add_codes(writer, name, field, categories[place])
        order.append((group, len(groups.setdefault(group, []))))
        groups[group].append(name)
    pieces: list[str] = []
    starts: dict[str, int] = {}
    for group, names in groups.items():
        starts[group] = sum(len(groups[other]) for other in starts)
        piece = names[0] if len(names) == 1 else writer.node("Concat", *names, axis=1)
        if _graph.ELEMENT_TYPES[group] != element:
            piece = writer.node("Cast", piece, to=element)
        pieces.append(piece)
    matrix = pieces[0] if len(pieces) == 1 else writer.node("Concat", *pieces, axis=1)
    return matrix, [starts[group] + place for group, place in order]


def _add_codes(writer: Writer, name: str, field: Field, categories: Sequence[Any]) -> str:
    """The place of each value among the categories as float32; NaN for any other."""
    numbers = all(isinstance(each, int) and not isinstance(each, bool) for each in categories)
    if field.datatype == "BYTES" and all(isinstance(each, str) for each in categories):
        keys: dict[str, Any] = {"keys_strings": list(categories)}
    elif field.datatype in ("INT64", "FP64", "FP32") and numbers:
        # A column of whole numbers of which some are missing is one of floats.
        keys = {"keys_floats": [float(each) for each in categories]}
        if field.datatype == "INT64":
            keys = {"keys_int64s": list(categories)}
        elif field.datatype == "FP64":
            name = writer.node("Cast", name, to=_graph.ELEMENT_TYPES["FP32"])
    else:
        raise refuse(f"the categories of {field.name!r} are neither strings nor whole numbers")
    places = [float(place) for place in range(len(categories))]
    return writer.node(
        "LabelEncoder",
        name,
        op_domain=ML_DOMAIN,
        op_version=4,
        values_floats=places,
        default_float=float("nan"),
        **keys,
    )


def _moved(boosted: Boosted, places: list[int]) -> Boosted:
    """The Boosted for a matrix in which feature i is column places[i]."""
    if places == list(range(len(places))) or len(places) != boosted.width:
        return boosted
    column = np.arange(boosted.width + len(boosted.whole) + boosted.zeros * boosted.width)
    column[: boosted.width] = places
    if boosted.zeros:
        column[-boosted.width :] = column[-boosted.width :][0] + np.array(places)
    return boosted._replace(
        trees=[each._replace(feature=column[each.feature]) for each in boosted.trees],
        whole=tuple(places[feature] for feature in boosted.whole),
    )


def add_booster(writer: Writer, matrix: str, boosted: Boosted) -> list[str]:
    """Adds the trees and what follows over the matrix; the names of label and probabilities, or of the value."""
    dtype = boosted.dtype

    def number(value: float) -> str:
        return writer.constant(np.array(value, dtype))

    if not np.isnan(boosted.missing):
        gone = writer.node("Equal", matrix, number(boosted.missing))
        matrix = writer.node("Where", gone, number(np.nan), matrix)
    matrix = _add_copies(writer, matrix, boosted)
    sums = add_forest(writer, matrix, boosted.trees, boosted.targets, dtype)
    if boosted.divisor != 1:
        sums = writer.node("Div", sums, number(boosted.divisor))
    if boosted.factor != 1.0:
        sums = writer.node("Mul", sums, number(boosted.factor))
    result = LINKS[boosted.link](writer, sums, dtype)
    if boosted.classes is None:
        return [result]
    if boosted.targets == 1:
        other = writer.node("Sub", number(1.0), result)
        result = writer.node("Concat", other, result, axis=1)
    label = writer.node("ArgMax", result, axis=1, keepdims=0)
    classes = boosted.classes
    if classes.dtype.kind != "i" or not np.array_equal(classes, np.arange(len(classes))):
        label = writer.node("Gather", writer.constant(classes), label)
    return [label, result]


def _add_copies(writer: Writer, matrix: str, boosted: Boosted) -> str:
    """The matrix with the copies that some decisions compare."""
    parts, given = [matrix], matrix
    if boosted.whole:
        chosen = writer.node("Gather", given, writer.constant(np.array(boosted.whole, np.int64)), axis=1)
        size = writer.node("Floor", writer.node("Abs", chosen))
        parts.append(writer.node("Mul", size, writer.node("Sign", chosen)))
    if boosted.zeros:
        limit = writer.constant(np.array(np.float32(1e-35), boosted.dtype))
        # NaN as well: what is missing goes where zero goes.
        beyond = writer.node("Greater", writer.node("Abs", given), limit)
        nothing = writer.constant(np.array(np.nan, boosted.dtype))
        parts.append(writer.node("Where", beyond, given, nothing))
    return matrix if len(parts) == 1 else writer.node("Concat", *parts, axis=1)


def _identity(writer: Writer, sums: str, dtype: Any) -> str:
    return sums


def _exponential(writer: Writer, sums: str, dtype: Any) -> str:
    return writer.node("Exp", sums)


def _logistic(writer: Writer, sums: str, dtype: Any) -> str:
    # Step by step as the originals: the operator Sigmoid rounds otherwise, and a tie is decided by the last bit.
    one = writer.constant(np.array(1.0, dtype))
    return writer.node("Div", one, writer.node("Add", one, writer.node("Exp", writer.node("Neg", sums))))


def _softmax(writer: Writer, sums: str, dtype: Any) -> str:
    axis = writer.constant(np.array([1], np.int64))
    shifted = writer.node("Sub", sums, writer.node("ReduceMax", sums, axis, keepdims=1))
    powers = writer.node("Exp", shifted)
    return writer.node("Div", powers, writer.node("ReduceSum", powers, axis, keepdims=1))


def _signed_square(writer: Writer, sums: str, dtype: Any) -> str:
    return writer.node("Mul", sums, writer.node("Abs", sums))


def _softplus(writer: Writer, sums: str, dtype: Any) -> str:
    one = writer.constant(np.array(1.0, dtype))
    return writer.node("Log", writer.node("Add", one, writer.node("Exp", sums)))


LINKS: Mapping[str, Callable[[Writer, str, Any], str]] = {
    "identity": _identity,
    "exp": _exponential,
    "logistic": _logistic,
    "softmax": _softmax,
    "signed square": _signed_square,
    "softplus": _softplus,
}
