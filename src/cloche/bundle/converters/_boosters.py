"""Boosters as steps of scikit-learn models: what skl2onnx is told of their classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)

from cloche.bundle.converters._boosted import Boosted, add_booster, refuse
from cloche.bundle.converters._encoders import Writer
from cloche.bundle.converters._forest import ML_DOMAIN, ML_OPSET
from cloche.bundle.converters._prepare import parts
from cloche.bundle.converters.base import BOOSTERS, is_from, load_heavy

_TENSORS = {
    DoubleTensorType: np.dtype(np.float64),
    FloatTensorType: np.dtype(np.float32),
    Int64TensorType: np.dtype(np.int64),
}
#: On a prepared copy: its rows are sparse, and what a sparse matrix does not hold is missing to XGBoost.
_SPARSE = "cloche_rows_are_sparse_"
#: On a prepared copy: other models are beside it, whose answers are float64 where the rows are.
_WIDE = "cloche_answers_as_wide_as_rows_"


def register(prepared: Any, original: Any, rows: Any) -> bool:
    """Makes skl2onnx know the classes of the boosters in a prepared model; False where there are none.

    `original` is the model that it was prepared of, and `rows` some that this takes.
    """
    boosters = [part for part in parts(prepared) if _package(part)]
    if boosters and any(hasattr(part, "tree_") or "Hist" in type(part).__name__ for part in parts(prepared)):
        raise refuse(f"a {type(boosters[0]).__name__} and trees of scikit-learn in one model are not converted")
    kinds = {type(part) for part in boosters}
    for kind in kinds:
        update_registered_converter(
            kind, f"Cloche{kind.__name__}", _shape, _convert, parser=_parse, options={"zipmap": [True, False]}
        )
    if kinds and _feeds_sparse(original, rows):
        setattr(prepared.steps[-1][1], _SPARSE, True)
    if any(hasattr(part, "estimators_") for part in parts(prepared)):
        for part in boosters:
            setattr(part, _WIDE, True)
    return bool(kinds)


def raise_opset(model: ModelProto) -> None:
    """Says that the graph holds what skl2onnx does not know of: it goes up to the third set of operators."""
    for each in model.opset_import:
        if each.domain == ML_DOMAIN:
            each.version = ML_OPSET


def _feeds_sparse(model: Any, rows: Any) -> bool:
    """Whether a pipeline hands a sparse matrix to XGBoost at its end."""
    steps = getattr(model, "steps", None)
    if not steps or _package(steps[-1][1]) != "xgboost":
        return False
    return hasattr(model[:-1].transform(rows), "tocsr")


def _package(part: Any) -> str | None:
    return next((package for package in BOOSTERS if is_from(part, package)), None)


def _read(part: Any) -> Boosted:
    package = _package(part)
    heavy = load_heavy(f"cloche.bundle.converters._{package}", f"a {type(part).__name__}", str(package))
    boosted: Boosted = heavy.read_booster(part)
    if not hasattr(part, _SPARSE):
        return boosted
    if not np.isnan(boosted.missing):
        raise refuse("sparse rows with a missing value of their own are not converted")
    return boosted._replace(missing=0.0)


class _Writer(Writer):
    """A Writer of operators that skl2onnx thinks it knows; `raise_opset` makes it true."""

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        if attributes.get("op_version") == ML_OPSET:
            attributes["op_version"] = 3
        return super().node(kind, *inputs, output=output, **attributes)


def _parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    operator = scope.declare_local_operator(f"Cloche{type(model).__name__}", model)
    operator.inputs = inputs
    names = ["value"] if _read(model).classes is None else ["label", "probabilities"]
    operator.outputs.extend(scope.declare_local_variable(name, DoubleTensorType()) for name in names)
    return operator.outputs


def _shape(operator: Any) -> None:
    boosted = _read(operator.raw_operator)
    narrow = boosted.dtype == np.float32 and not _widens(operator)
    number = FloatTensorType if narrow else DoubleTensorType
    operator.outputs[-1].type = number([None, boosted.targets])
    if boosted.classes is not None:
        operator.outputs[-1].type = number([None, len(boosted.classes)])
        label = StringTensorType if boosted.classes.dtype == object else Int64TensorType
        operator.outputs[0].type = label([None])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    writer, boosted = _Writer(scope, container), _read(operator.raw_operator)
    results = add_booster(writer, _matrix(writer, operator, boosted), boosted)
    if boosted.dtype == np.float32 and _widens(operator):
        results[-1] = writer.node("Cast", results[-1], to=TensorProto.DOUBLE)
    for output, name in zip(operator.outputs, results, strict=True):
        writer.node("Identity", name, output=output.full_name)


def _widens(operator: Any) -> bool:
    is_double = isinstance(operator.inputs[0].type, DoubleTensorType)
    return hasattr(operator.raw_operator, _WIDE) and is_double


def _matrix(writer: Writer, operator: Any, boosted: Boosted) -> str:
    """The operator's inputs as one matrix of the booster's type."""
    wanted = np.dtype(boosted.dtype)
    names = []
    for variable in operator.inputs:
        name = str(variable.full_name)
        if _TENSORS.get(type(variable.type)) != wanted:
            name = writer.node("Cast", name, to=helper.np_dtype_to_tensor_dtype(wanted))
        names.append(name)
    return names[0] if len(names) == 1 else writer.node("Concat", *names, axis=1)
