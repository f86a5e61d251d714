"""The heavy half of the XGBoost converter: reads a booster's own JSON, in which nothing is rounded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from cloche.bundle.converters import _boosted
from cloche.bundle.converters._boosted import Boosted, Fitted, refuse
from cloche.bundle.converters._forest import LT, Tree, Values, constant
from cloche.bundle.converters.base import Converted, ConvertOptions
from cloche.core.errors import InputError
from cloche.core.signature import Columns
from cloche.runtimes.onnx import first_line

#: Objective -> what becomes of the sums, and whether the answer is a class.
_OBJECTIVES = {
    "binary:logistic": ("logistic", True),
    "multi:softprob": ("softmax", True),
    "multi:softmax": ("softmax", True),
    "reg:logistic": ("logistic", False),
    "count:poisson": ("exp", False),
    "reg:gamma": ("exp", False),
    "reg:tweedie": ("exp", False),
} | dict.fromkeys(
    (
        "binary:logitraw",
        "rank:map",
        "rank:ndcg",
        "rank:pairwise",
        "reg:absoluteerror",
        "reg:pseudohubererror",
        "reg:quantileerror",
        "reg:squarederror",
        "reg:squaredlogerror",
    ),
    ("identity", False),
)


_NO_CATEGORIES = "encode categories as numbers, for example by an OrdinalEncoder in a scikit-learn pipeline"


def convert(model: Any, rows: object | None, options: ConvertOptions) -> Converted:
    """The model as ONNX that answers the proof rows as XGBoost does. Raises ConversionError, InputError."""
    return _boosted.convert(read(_load(model) if isinstance(model, Path) else model), rows, options)


def _load(path: Path) -> Any:
    """The estimator that was saved, where one was; else the booster."""
    try:
        booster = xgboost.Booster(model_file=path)
    except xgboost.core.XGBoostError as error:
        raise refuse(f"XGBoost can't read {path.name}: {first_line(error)}", "check the file") from error
    saved = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
    kinds = {"classifier": "XGBClassifier", "regressor": "XGBRegressor", "ranker": "XGBRanker"}
    if saved not in kinds:
        return booster
    estimator = getattr(xgboost, kinds[saved])()
    estimator.load_model(path)
    return estimator


def read(model: Any) -> Fitted:
    """A fitted estimator or a booster as Fitted. Raises ConversionError for what is not exact as ONNX."""
    booster = _booster_of(model)
    boosted = read_booster(model)
    names = list(booster.feature_names or ())
    alone = model is booster

    def native(columns: Columns) -> Any:
        parts = list(columns.values())
        matrix = parts[0] if parts[0].ndim == 2 else np.column_stack(parts)
        matrix = matrix.astype(np.float32) if matrix.dtype.kind == "b" else matrix
        return xgboost.DMatrix(matrix, feature_names=names or None) if alone else matrix

    def answer(rows: Any) -> Columns:
        try:
            return _ask_booster(booster, rows, boosted) if alone else _ask_estimator(model, rows, boosted)
        except (ValueError, xgboost.core.XGBoostError) as error:
            raise InputError(
                f"the model itself fails on these rows: {first_line(error)}",
                code="CL-E105",
                hint="give rows that model.predict takes",
            ) from error

    return Fitted(
        boosted=boosted,
        framework=f"XGBoost {xgboost.__version__}",
        description=type(model).__name__,
        names=names,
        native=native,
        answer=answer,
        size=len(booster.save_raw("ubj")),
    )


def _booster_of(model: Any) -> Any:
    if isinstance(model, xgboost.Booster):
        return model
    if not isinstance(model, xgboost.XGBModel):
        raise refuse(f"a {type(model).__name__} of XGBoost is no model", "pack the booster that was trained")
    if not model.__sklearn_is_fitted__():
        raise refuse(f"{type(model).__name__} is not fitted", "call fit before packing")
    if callable(model.objective):
        raise refuse(f"{type(model).__name__} has an objective of its own, which no file keeps")
    return model.get_booster()


def _ask_estimator(model: Any, rows: Any, boosted: Boosted) -> Columns:
    values = np.asarray(model.predict(rows))
    if boosted.classes is None:
        return {"value": values}
    return {"label": values.astype(np.int64), "probabilities": np.asarray(model.predict_proba(rows))}


def _ask_booster(booster: Any, rows: Any, boosted: Boosted) -> Columns:
    """A booster that was trained to tell classes apart answers as the estimator would."""
    values = np.asarray(booster.predict(rows))
    if boosted.classes is None:
        return {"value": values}
    if boosted.targets == 1:
        values = np.column_stack([1 - values, values])
    elif values.ndim == 1:  # multi:softmax gives the class alone
        sums = np.asarray(booster.predict(rows, output_margin=True))
        powers = np.exp(sums - sums.max(axis=1, keepdims=True))
        values = powers / powers.sum(axis=1, keepdims=True)
    return {"label": values.argmax(axis=1), "probabilities": values}


def read_booster(model: Any) -> Boosted:
    """The trees of an estimator or booster that its `predict` uses. Raises ConversionError."""
    booster = _booster_of(model)
    learner = json.loads(booster.save_raw("json"))["learner"]
    shape, objective = learner["learner_model_param"], learner["objective"]["name"]
    if objective not in _OBJECTIVES:
        raise refuse(f"the objective {objective} of XGBoost is not converted")
    link, classifies = _OBJECTIVES[objective]
    forest, weights = _forest_of(learner["gradient_booster"])
    stop = _last_tree(model, booster, forest)
    targets = max(
        int(shape["num_class"]), int(shape.get("num_target", 1)), 1, *(1 + i for i in forest["tree_info"])
    )
    if isinstance(model, xgboost.XGBClassifier) and not classifies:
        raise refuse(f"the objective {objective} of XGBoost gives no probabilities")
    if classifies and link == "logistic" and targets > 1:
        raise refuse("classifiers of several labels at once are not converted", "pack one model a label")
    trees = [
        constant(float(base), target)
        for target, base in enumerate(_margins(shape["base_score"], link, targets))
        if base
    ]
    for dump, target, weight in zip(forest["trees"][:stop], forest["tree_info"], weights, strict=False):
        trees.append(_read_tree(dump, int(target), weight))
    return Boosted(
        trees=trees,
        targets=targets,
        dtype=np.float32,
        link=link,
        classes=np.arange(max(targets, 2)) if classifies else None,
        width=int(shape["num_feature"]),
        missing=float("nan") if model is booster else float(model.missing),
    )


def _forest_of(booster: dict[str, Any]) -> tuple[dict[str, Any], Sequence[float]]:
    """The trees, and what the leaves of each are multiplied by."""
    if booster["name"] == "gbtree":
        forest = booster["model"]
        return forest, forest.get("weight_drop") or [1.0] * len(forest["trees"])  # a dart of 3.4
    if booster["name"] == "dart":
        return booster["gbtree"]["model"], booster["weight_drop"]
    raise refuse(f"the booster {booster['name']} of XGBoost is not converted: it has no trees")


def _last_tree(model: Any, booster: Any, forest: dict[str, Any]) -> int:
    """How many trees `predict` uses: an estimator goes up to the best iteration, a booster to the end."""
    if model is booster or (best := booster.attr("best_iteration")) is None:
        return len(forest["trees"])
    return int(forest["iteration_indptr"][int(best) + 1])


def _margins(base_score: str, link: str, targets: int) -> Values:
    """What the sums start from; kept as an answer, not as a sum."""
    scores = np.atleast_1d(np.array(json.loads(base_score), np.float32))
    if link == "logistic":
        scores = -np.log(1 / scores - 1)
    elif link == "exp":
        scores = np.log(scores)
    return np.broadcast_to(scores, targets)


def _read_tree(dump: dict[str, Any], target: int, weight: float) -> Tree:
    if int(dump["tree_param"]["size_leaf_vector"]) > 1:
        raise refuse(
            "trees with several outputs in a leaf are not converted",
            'train with multi_strategy="one_output_per_tree"',
        )
    if any(dump["split_type"]):
        raise refuse("XGBoost's own splits by category are not converted", _NO_CATEGORIES)
    left, right = np.array(dump["left_children"]), np.array(dump["right_children"])
    split = left >= 0
    # A decision is named by its place among the decisions, a leaf by ~place among the leaves.
    place = np.where(split, np.cumsum(split) - 1, ~(np.cumsum(~split) - 1))
    values = np.array(dump["split_conditions"], np.float64).astype(np.float32)
    return Tree(
        feature=np.array(dump["split_indices"])[split],
        threshold=values[split],
        true=place[left[split]],
        false=place[right[split]],
        missing_true=np.array(dump["default_left"])[split],
        mode=np.full(split.sum(), LT),
        leaf=values[~split] * np.float32(weight),
        target=target,
    )
