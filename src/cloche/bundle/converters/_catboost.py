"""The heavy half of the CatBoost converter: reads the JSON that CatBoost writes of a model."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import catboost
import numpy as np

from cloche.bundle.converters import _boosted
from cloche.bundle.converters._boosted import Boosted, Fitted, refuse
from cloche.bundle.converters._forest import GT, Tree, Values, constant, switch_points
from cloche.bundle.converters.base import Converted, ConvertOptions
from cloche.core.errors import InputError
from cloche.core.signature import Columns
from cloche.runtimes.onnx import first_line

#: Loss of a classifier -> what becomes of the sums.
_CLASSIFIES = {
    "Logloss": "logistic",
    "CrossEntropy": "logistic",
    "MultiClass": "softmax",
    "MultiClassOneVsAll": "logistic",
}
#: Losses whose regressor answers the exponential of the sum.
_EXPONENTS = frozenset({"Poisson", "Tweedie"})
#: Losses whose answers are more than sums.
_REFUSED = frozenset({"RMSEWithUncertainty", "SurvivalAft"})
_NO_CATEGORIES = "encode them as numbers, for example by an OrdinalEncoder in a scikit-learn pipeline"


def convert(model: Any, rows: object | None, options: ConvertOptions) -> Converted:
    """The model as ONNX that answers the proof rows as CatBoost does. Raises ConversionError, InputError."""
    return _boosted.convert(read(_load(model) if isinstance(model, Path) else model), rows, options)


def _load(path: Path) -> Any:
    """The estimator that answers what the file's loss is for."""
    try:
        model = catboost.CatBoost().load_model(str(path))
        loss = _loss(_dump(model))
        kind = catboost.CatBoostClassifier if loss in _CLASSIFIES else catboost.CatBoostRegressor
        return kind().load_model(str(path))
    except catboost.CatBoostError as error:
        raise refuse(f"CatBoost can't read {path.name}: {first_line(error)}", "check the file") from error


def read(model: Any) -> Fitted:
    """A fitted model as Fitted. Raises ConversionError for what is not exact as ONNX."""
    boosted = read_booster(model)
    names = list(model.feature_names_)

    def native(columns: Columns) -> Any:
        parts = list(columns.values())
        return parts[0] if parts[0].ndim == 2 else np.column_stack(parts)

    def answer(rows: Any) -> Columns:
        try:
            return _ask(model, rows, boosted)
        except catboost.CatBoostError as error:
            raise InputError(
                f"the model itself fails on these rows: {first_line(error)}",
                code="CL-E105",
                hint="give rows that model.predict takes",
            ) from error

    return Fitted(
        boosted=boosted,
        framework=f"CatBoost {catboost.__version__}",
        description=type(model).__name__,
        names=[] if names == [str(place) for place in range(len(names))] else names,
        native=native,
        answer=answer,
        size=len(model._serialize_model()),
    )


def _ask(model: Any, rows: Any, boosted: Boosted) -> Columns:
    if boosted.classes is None:
        return {"value": np.asarray(model.predict(rows))}
    labels = np.asarray(model.predict(rows, prediction_type="Class")).ravel()
    chances = np.asarray(model.predict(rows, prediction_type="Probability"))
    return {"label": _as_labels(labels, boosted.classes), "probabilities": chances}


def _as_labels(labels: Values, classes: Values) -> Values:
    if classes.dtype.kind == "b":
        return np.asarray(labels.astype(np.str_) == "True")
    return labels.astype(np.str_).astype(object) if classes.dtype == object else labels.astype(np.int64)


def _dump(model: Any) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.json"
        model.save_model(str(file), format="json")
        dump: dict[str, Any] = json.loads(file.read_bytes())
    return dump


def _loss(dump: dict[str, Any]) -> str:
    return str(dump["model_info"]["params"]["loss_function"]["type"])


def read_booster(model: Any) -> Boosted:
    """The trees of a model. Raises ConversionError."""
    if not isinstance(model, catboost.CatBoost):
        raise refuse(f"a {type(model).__name__} of CatBoost is no model", "pack the model that was fitted")
    if not model.is_fitted():
        raise refuse(f"{type(model).__name__} is not fitted", "call fit before packing")
    try:
        dump = _dump(model)
    except catboost.CatBoostError as error:
        raise refuse(f"CatBoost can't write the model down: {first_line(error)}") from error
    features, loss = dump["features_info"], _loss(dump)
    for kind, words in (("categorical", "categories"), ("text", "texts"), ("embedding", "embeddings")):
        if features.get(f"{kind}_features"):
            raise refuse(f"CatBoost's own features of {words} are not converted", _NO_CATEGORIES)
    scale, bias = dump["scale_and_bias"]
    floats = sorted(features["float_features"], key=lambda each: int(each["feature_index"]))
    nan_true = np.array([each["nan_value_treatment"] == "AsTrue" for each in floats], np.int64)
    trees: list[Tree] = []
    for each in dump["oblivious_trees"] if "oblivious_trees" in dump else dump["trees"]:
        trees += (_read_symmetric if "splits" in each else _read_free)(each, len(bias), nan_true)
    trees += [constant(float(value) / scale, target) for target, value in enumerate(bias) if value]
    classifies = loss in _CLASSIFIES
    if isinstance(model, catboost.CatBoostClassifier) and not classifies:
        raise refuse(f"the loss {loss} of CatBoost is not converted for classifiers")
    if loss in _REFUSED:
        raise refuse(f"the loss {loss} of CatBoost is not converted")
    linked = loss in _EXPONENTS and isinstance(model, catboost.CatBoostRegressor)
    link = _CLASSIFIES.get(loss, "exp" if linked else "identity")
    return Boosted(
        trees=trees,
        targets=len(bias),
        dtype=np.float64,
        link=link,
        classes=_classes(model) if classifies else None,
        width=len(floats),
        factor=float(scale),
    )


def _classes(model: Any) -> Values:
    classes = np.asarray(model.classes_)
    if classes.dtype.kind in "OUS":
        return classes.astype(np.str_).astype(object)
    if classes.dtype.kind == "b":
        return classes
    if not np.array_equal(classes, classes.astype(np.int64)):
        raise refuse("the classes are not whole numbers", "fit on strings or integers")
    return classes.astype(np.int64)


def _split(split: dict[str, Any]) -> tuple[int, float]:
    if split["split_type"] != "FloatFeature":
        raise refuse(f"CatBoost's splits of the kind {split['split_type']} are not converted", _NO_CATEGORIES)
    return int(split["float_feature_index"]), float(split["border"])


def _read_symmetric(dump: dict[str, Any], targets: int, nan_true: Values) -> list[Tree]:
    """A tree a target; every level asks one question, whose answer is one bit of the leaf's number."""
    questions = [_split(each) for each in reversed(dump["splits"] or [])]
    depth = len(questions)
    level = np.repeat(np.arange(depth), 2 ** np.arange(depth))
    # The decisions are numbered by level; below the last come the leaves.
    false = 2 * np.arange(len(level)) + 1
    children = [np.where(child < len(level), child, ~(child - len(level))) for child in (false, false + 1)]
    feature = np.array([question[0] for question in questions], np.int64)[level]
    border = np.array([question[1] for question in questions], np.float64)[level]
    leaves = np.array(dump["leaf_values"], np.float64).reshape(-1, targets)
    return _trees(feature, border, children[1], children[0], leaves, nan_true)


def _read_free(dump: dict[str, Any], targets: int, nan_true: Values) -> list[Tree]:
    """A tree a target, of nodes that each ask their own question."""
    questions: list[tuple[int, float]] = []
    leaves: list[Any] = []
    children: list[list[int]] = []
    waiting: list[tuple[dict[str, Any], int, int]] = [(dump, -1, 0)]
    while waiting:
        node, parent, side = waiting.pop()
        if "split" in node:
            place = len(questions)
            questions.append(_split(node["split"]))
            children.append([0, 0])
            waiting += [(node["left"], place, 0), (node["right"], place, 1)]
        else:
            place = ~len(leaves)
            leaves.append(node["value"])
        if parent >= 0:
            children[parent][side] = place
    sides = np.array(children, np.int64).reshape(-1, 2)
    feature = np.array([question[0] for question in questions], np.int64)
    border = np.array([question[1] for question in questions], np.float64)
    return _trees(
        feature, border, sides[:, 1], sides[:, 0], np.array(leaves, np.float64).reshape(-1, targets), nan_true
    )


def _trees(
    feature: Values, border: Values, true: Values, false: Values, leaves: Values, nan_true: Values
) -> list[Tree]:
    """One tree a column of leaves; CatBoost asks whether float32(x) is greater than a float32 border."""
    return [
        Tree(
            feature=feature,
            threshold=switch_points(border.astype(np.float32).astype(np.float64)),
            true=true,
            false=false,
            missing_true=nan_true[feature],
            mode=np.full(len(feature), GT),
            leaf=leaves[:, target],
            target=target,
        )
        for target in range(leaves.shape[1])
    ]
