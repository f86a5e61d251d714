"""Exact ONNX for scikit-learn's imputers, encoders and Normalizer: float64, and a missing string is "".

ONNX Runtime has no float64 imputer, skl2onnx's encoders know neither missing values nor fractions, and its
Normalizer divides a row of zeros by zero; these
converters take the place of its own (`CONVERTERS` and `SHAPES` are handed to `convert_sklearn`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, numpy_helper
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import Normalizer, OneHotEncoder, OrdinalEncoder

Values = npt.NDArray[Any]


class Writer:
    """A Writer adds nodes to the graph that skl2onnx builds, and names what they give."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope = scope
        self._container = container

    def constant(self, value: Values) -> str:
        name = str(self._scope.get_unique_variable_name("constant"))
        if value.dtype.kind in "OUS":
            texts = [str(each).encode() for each in value.ravel()]
            self._container.add_initializer(name, TensorProto.STRING, value.shape, texts)
        else:
            kind = numpy_helper.from_array(value).data_type
            self._container.add_initializer(name, kind, value.shape, value.ravel())
        return name

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        result = output or str(self._scope.get_unique_variable_name(kind.lower()))
        name = self._scope.get_unique_operator_name(kind)
        self._container.add_node(kind, list(inputs), [result], name=name, **attributes)
        return result

    def double(self, variable: Any) -> str:
        """The variable, as strings or float64."""
        name = str(variable.full_name)
        if isinstance(variable.type, (StringTensorType, DoubleTensorType)):
            return name
        return self.node("Cast", name, to=TensorProto.DOUBLE)

    def finish(self, output: Any, name: str) -> None:
        """Hands a float64 or string result on as the operator's output."""
        if isinstance(output.type, FloatTensorType):
            self.node("Cast", name, output=output.full_name, to=TensorProto.FLOAT)
        else:
            self.node("Identity", name, output=output.full_name)


def _columns(writer: Writer, operator: Any) -> list[tuple[str, bool]]:
    """Each column of the operator's inputs as ([n, 1], is it strings)."""
    columns = []
    for variable in operator.inputs:
        name, strings = writer.double(variable), isinstance(variable.type, StringTensorType)
        width = variable.type.shape[1] if len(variable.type.shape) > 1 else 1
        if width == 1:
            columns.append((name, strings))
            continue
        if width is None:
            if len(operator.inputs) > 1:
                raise NotImplementedError("the number of columns is not known")
            width = operator.raw_operator.n_features_in_
        columns.extend(
            (writer.node("Gather", name, writer.constant(np.array([i])), axis=1), strings) for i in range(width)
        )
    return columns


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, (float, np.floating)) and bool(np.isnan(value)))


def _matches(writer: Writer, column: str, categories: Values, *, strings: bool) -> str:
    """[n, categories] of 0.0 and 1.0: which category each row is; no 1.0 where it is none."""
    missing = [_is_missing(value) for value in categories.tolist()]
    if strings:
        texts = ["" if gone else str(value) for value, gone in zip(categories.tolist(), missing, strict=True)]
        if len(set(texts)) < len(texts):
            raise NotImplementedError('a column holds both "" and missing values, which ONNX can\'t tell apart')
        equal = writer.node("Equal", column, writer.constant(np.array([texts], dtype=object)))
        return writer.node("Cast", equal, to=TensorProto.DOUBLE)
    if any(isinstance(value, str) for value in categories.tolist()):
        raise NotImplementedError("the categories of a column are strings, and its rows are numbers")
    numbers = np.array([[np.nan if gone else float(v) for v, gone in zip(categories, missing, strict=True)]])
    equal = writer.node("Equal", column, writer.constant(numbers))
    if any(missing):
        # scikit-learn sorts a missing value last, so that this one mask of a row is its column.
        mask = writer.node("And", writer.node("IsNaN", column), writer.constant(np.array([missing])))
        equal = writer.node("Or", equal, mask)
    return writer.node("Cast", equal, to=TensorProto.DOUBLE)


def _one_hot(scope: Any, operator: Any, container: Any) -> None:
    encoder, writer = operator.raw_operator, Writer(scope, container)
    blocks = []
    for i, (column, strings) in enumerate(_columns(writer, operator)):
        matches = _matches(writer, column, encoder.categories_[i], strings=strings)
        matrix, rare = _one_hot_matrix(encoder, i)
        block = matches
        if not np.array_equal(matrix, np.eye(len(matrix))):
            block = writer.node("MatMul", matches, writer.constant(matrix))
        if rare is not None and encoder.handle_unknown in ("infrequent_if_exist", "warn"):
            # What matches nothing counts as rare: the block gains 1 - (sum of the matches) there.
            ones = writer.constant(np.ones((len(matrix), 1)))
            unknown = writer.node("Sub", writer.constant(np.array(1.0)), writer.node("MatMul", matches, ones))
            block = writer.node("Add", block, writer.node("Mul", unknown, writer.constant(rare)))
        blocks.append(block)
    joined = blocks[0] if len(blocks) == 1 else writer.node("Concat", *blocks, axis=1)
    writer.finish(operator.outputs[0], joined)


def _one_hot_matrix(encoder: Any, i: int) -> tuple[Values, Values | None]:
    """[categories, outputs]: which output each category sets; and the row of the rare ones' output, if any."""
    count = len(encoder.categories_[i])
    codes, rare = np.arange(count), None
    mappings = getattr(encoder, "_default_to_infrequent_mappings", None)
    if getattr(encoder, "_infrequent_enabled", False) and mappings is not None and mappings[i] is not None:
        codes = np.asarray(mappings[i])
        rare = np.zeros((1, int(codes.max()) + 1))
        rare[0, -1] = 1.0
    matrix = np.zeros((count, int(codes.max()) + 1))
    matrix[np.arange(count), codes] = 1.0
    drop = None if encoder.drop_idx_ is None else encoder.drop_idx_[i]
    if drop is not None:
        matrix = np.delete(matrix, int(drop), axis=1)
        rare = None if rare is None else np.delete(rare, int(drop), axis=1)
    return matrix, rare


def _ordinal(scope: Any, operator: Any, container: Any) -> None:
    encoder, writer = operator.raw_operator, Writer(scope, container)
    columns = []
    for i, (column, strings) in enumerate(_columns(writer, operator)):
        categories = encoder.categories_[i]
        matches = _matches(writer, column, categories, strings=strings)
        codes = np.arange(len(categories), dtype=np.float64)
        mappings = getattr(encoder, "_default_to_infrequent_mappings", None)
        if getattr(encoder, "_infrequent_enabled", False) and mappings is not None and mappings[i] is not None:
            raise NotImplementedError("an OrdinalEncoder that joins rare categories is not converted")
        missing = np.array([_is_missing(value) for value in categories.tolist()])
        blank = np.isnan(encoder.encoded_missing_value)
        codes[missing] = 0.0 if blank else encoder.encoded_missing_value
        code = writer.node("MatMul", matches, writer.constant(codes.reshape(-1, 1)))
        known = np.where(missing & blank, 0.0, 1.0).reshape(-1, 1)
        # A row that matches nothing, or is missing, has no code of the categories.
        is_known = writer.node("Cast", writer.node("MatMul", matches, writer.constant(known)), to=TensorProto.BOOL)
        other = np.nan if encoder.handle_unknown == "error" else float(encoder.unknown_value)
        otherwise = writer.constant(np.array(other))
        if (missing & blank).any() and not np.isnan(other):
            gone = writer.node("MatMul", matches, writer.constant(1.0 - known))
            is_gone = writer.node("Cast", gone, to=TensorProto.BOOL)
            otherwise = writer.node("Where", is_gone, writer.constant(np.array(np.nan)), otherwise)
        columns.append(writer.node("Where", is_known, code, otherwise))
    joined = columns[0] if len(columns) == 1 else writer.node("Concat", *columns, axis=1)
    writer.finish(operator.outputs[0], joined)


def _impute(scope: Any, operator: Any, container: Any) -> None:
    imputer, writer = operator.raw_operator, Writer(scope, container)
    if imputer.add_indicator:
        raise NotImplementedError("a SimpleImputer with add_indicator is not converted")
    if len({isinstance(variable.type, StringTensorType) for variable in operator.inputs}) > 1:
        raise NotImplementedError("a SimpleImputer over strings and numbers at once is not converted")
    names = [writer.double(variable) for variable in operator.inputs]
    column = names[0] if len(names) == 1 else writer.node("Concat", *names, axis=1)
    statistics = np.asarray(imputer.statistics_)
    dropped = [_is_missing(value) for value in statistics.tolist()]
    if any(dropped):
        raise NotImplementedError("a SimpleImputer that drops columns without any value is not converted")
    sought = imputer.missing_values
    if isinstance(operator.inputs[0].type, StringTensorType):
        fill = np.array([[str(value) for value in statistics]], dtype=object)
        text = np.array("" if _is_missing(sought) else str(sought), dtype=object)
        gone = writer.node("Equal", column, writer.constant(text))
    else:
        fill = statistics.astype(np.float64).reshape(1, -1)
        if _is_missing(sought):
            gone = writer.node("IsNaN", column)
        else:
            gone = writer.node("Equal", column, writer.constant(np.array(float(sought))))
    writer.finish(operator.outputs[0], writer.node("Where", gone, writer.constant(fill), column))


def _encoded_shape(operator: Any) -> None:
    encoder = operator.raw_operator
    width = len(encoder.categories_)
    if isinstance(encoder, OneHotEncoder):
        width = sum(_one_hot_matrix(encoder, i)[0].shape[1] for i in range(width))
    operator.outputs[0].type = DoubleTensorType([None, width])


def _imputed_shape(operator: Any) -> None:
    strings = isinstance(operator.inputs[0].type, StringTensorType)
    kind = StringTensorType if strings else DoubleTensorType
    if isinstance(operator.inputs[0].type, FloatTensorType):
        kind = FloatTensorType
    operator.outputs[0].type = kind([None, operator.raw_operator.n_features_in_])


def _normalize(scope: Any, operator: Any, container: Any) -> None:
    writer = Writer(scope, container)
    if len(operator.inputs) > 1:
        raise NotImplementedError("a Normalizer of several inputs is not converted")
    rows, norm = writer.double(operator.inputs[0]), operator.raw_operator.norm
    kind, axes = {"l2": "ReduceL2", "l1": "ReduceL1", "max": "ReduceMax"}[norm], writer.constant(np.array([1]))
    length = writer.node(kind, writer.node("Abs", rows) if norm == "max" else rows, axes, keepdims=1)
    empty = writer.node("Equal", length, writer.constant(np.array([0.0])))
    safe = writer.node("Where", empty, writer.constant(np.array([1.0])), length)
    writer.finish(operator.outputs[0], writer.node("Div", rows, safe))


#: scikit-learn class -> what writes its nodes.
CONVERTERS: dict[type, Callable[[Any, Any, Any], None]] = {
    Normalizer: _normalize,
    OneHotEncoder: _one_hot,
    OrdinalEncoder: _ordinal,
    SimpleImputer: _impute,
}

#: scikit-learn class -> what says the type of its output.
SHAPES: dict[type, Callable[[Any], None]] = {
    OneHotEncoder: _encoded_shape,
    OrdinalEncoder: _encoded_shape,
    SimpleImputer: _imputed_shape,
}
