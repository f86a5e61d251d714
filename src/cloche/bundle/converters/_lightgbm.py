"""The heavy half of the LightGBM converter: reads a model's own text, in which nothing is rounded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import narwhals as nw
import narwhals.selectors as ncs
import numpy as np

from cloche.bundle.converters import _boosted
from cloche.bundle.converters._boosted import Boosted, Fitted, refuse
from cloche.bundle.converters._forest import LEQ, MEMBER, Tree, Values
from cloche.bundle.converters.base import Converted, ConvertOptions
from cloche.bundle.rows import to_columns
from cloche.core.errors import InputError
from cloche.core.signature import Columns
from cloche.runtimes.onnx import first_line

#: Objective -> what becomes of the sums, and whether the answer is a class.
_OBJECTIVES = (
    {
        "binary": ("logistic", True),
        "multiclass": ("softmax", True),
        "multiclassova": ("logistic", True),
        "cross_entropy": ("logistic", False),
        "cross_entropy_lambda": ("softplus", False),
    }
    | dict.fromkeys(("poisson", "gamma", "tweedie"), ("exp", False))
    | dict.fromkeys(
        ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg"),
        ("identity", False),
    )
)
#: LightGBM takes what is this near to zero for zero.
_ZERO = float(np.float32(1e-35))
_NONE_IS_MISSING, _ZERO_IS_MISSING = 0, 1
#: How LightGBM names features that have no name.
_UNNAMED = re.compile(r"Column_\d+")


def convert(model: Any, rows: object | None, options: ConvertOptions) -> Converted:
    """The model as ONNX that answers the proof rows as LightGBM does. Raises ConversionError, InputError."""
    fitted = read(_load(model) if isinstance(model, Path) else model, rows)
    return _boosted.convert(fitted, rows, options)


def _load(path: Path) -> Any:
    try:
        return lightgbm.Booster(model_file=path)
    except lightgbm.basic.LightGBMError as error:
        raise refuse(f"LightGBM can't read {path.name}: {first_line(error)}", "check the file") from error


def read(model: Any, rows: object | None = None) -> Fitted:
    """A fitted estimator or a booster as Fitted. Raises ConversionError for what is not exact as ONNX."""
    booster, boosted = _booster_of(model), read_booster(model)
    names = [] if all(map(_UNNAMED.fullmatch, booster.feature_name())) else booster.feature_name()
    categories = _categories(booster, rows)

    def native(columns: Columns) -> Any:
        parts = list(columns.values())
        if categories:
            return _frame(parts, categories)
        return parts[0] if parts[0].ndim == 2 else np.column_stack(parts)

    def answer(rows: Any) -> Columns:
        try:
            return _ask(model, rows, boosted)
        except (ValueError, lightgbm.basic.LightGBMError) as error:
            raise InputError(
                f"the model itself fails on these rows: {first_line(error)}",
                code="CL-E105",
                hint="give rows that model.predict takes",
            ) from error

    return Fitted(
        boosted=boosted,
        framework=f"LightGBM {lightgbm.__version__}",
        description=type(model).__name__,
        names=names,
        native=native,
        answer=answer,
        size=len(booster.model_to_string()),
        categories=categories,
    )


def _booster_of(model: Any) -> Any:
    if isinstance(model, lightgbm.Booster):
        return model
    if not isinstance(model, lightgbm.LGBMModel):
        raise refuse(f"a {type(model).__name__} of LightGBM is no model", "pack the booster that was trained")
    if not model.__sklearn_is_fitted__():
        raise refuse(f"{type(model).__name__} is not fitted", "call fit before packing")
    if callable(model.objective):
        raise refuse(f"{type(model).__name__} has an objective of its own, which no file keeps")
    return model.booster_


def _categories(booster: Any, rows: object | None) -> dict[int, Sequence[Any]]:
    """Feature -> its categories, of the columns that were categorical in the pandas frame at fit.

    The model keeps their values but not always their places: those are the categorical columns of the rows, or
    their columns of strings, or else what the model says.
    """
    kept = booster.pandas_categorical
    if not kept:
        return {}
    names = [name.replace(" ", "_") for name in booster.feature_name()]
    frame = nw.from_native(rows, eager_only=True, pass_through=True)
    typed = frame.select(ncs.categorical() | ncs.enum()).columns if isinstance(frame, nw.DataFrame) else []
    words = [] if rows is None else [name for name, column in to_columns(rows).items() if column.dtype == object]
    infos = _header(booster.model_to_string())["feature_infos"].split(" ")
    said = [name for name, info in zip(names, infos, strict=True) if info != "none" and info[0] != "["]
    for found in (typed, words, said):
        spelled = [name.replace(" ", "_") for name in found]
        places = sorted(names.index(name) for name in spelled if name in names)
        if len(places) == len(kept):
            return dict(zip(places, kept, strict=True))
    raise refuse("which columns are categories can't be told", "give a pandas frame like that of the training")


def _frame(parts: list[Values], categories: dict[int, Sequence[Any]]) -> Any:
    pandas = import_module("pandas")
    columns = {
        str(place): pandas.Categorical(part, categories=categories[place]) if place in categories else part
        for place, part in enumerate(parts)
    }
    return pandas.DataFrame(columns)


def _ask(model: Any, rows: Any, boosted: Boosted) -> Columns:
    values = np.asarray(model.predict(rows))
    if boosted.classes is None:
        return {"value": values}
    if isinstance(model, lightgbm.Booster):
        # It answers as the estimator would.
        chances = np.column_stack([1.0 - values, values]) if values.ndim == 1 else values
        return {"label": chances.argmax(axis=1), "probabilities": chances}
    labels = values.astype(np.str_).astype(object) if values.dtype.kind in "OUS" else values
    if labels.dtype.kind in "iuf":
        labels = labels.astype(np.int64)
    return {"label": labels, "probabilities": np.asarray(model.predict_proba(rows))}


def read_booster(model: Any) -> Boosted:
    """The trees of an estimator or booster that its `predict` uses. Raises ConversionError."""
    text = _booster_of(model).model_to_string()
    header = _header(text)
    objective, *rest = header.get("objective", "custom").split(" ")
    settings = dict(each.partition(":")[::2] for each in rest)
    if objective not in _OBJECTIVES:
        raise refuse(f"the objective {objective} of LightGBM is not converted")
    link, classifies = _OBJECTIVES[objective]
    if isinstance(model, lightgbm.LGBMClassifier) and not classifies:
        raise refuse(f"the objective {objective} of LightGBM gives no probabilities")
    width, targets = int(header["max_feature_idx"]) + 1, int(header["num_tree_per_iteration"])
    dumps = [_fields(block) for block in re.split(r"^Tree=\d+$", text.split("end of trees")[0], flags=re.M)[1:]]
    whole = sorted({feature for dump in dumps for feature in dump.feature[dump.categorical].tolist()})
    copies = np.arange(width)
    copies[whole] = width + np.arange(len(whole))
    return Boosted(
        trees=[_grow(dump, i % targets, copies, width + len(whole)) for i, dump in enumerate(dumps)],
        targets=targets,
        dtype=np.float64,
        link="signed square" if "sqrt" in settings else link,
        classes=_classes(model, targets) if classifies else None,
        width=width,
        factor=float(settings.get("sigmoid", 1.0)) if link == "logistic" else 1.0,
        divisor=len(dumps) // targets if "average_output" in header else 1,
        whole=tuple(whole),
        zeros=any((dump.missing == _ZERO_IS_MISSING).any() for dump in dumps),
    )


def _header(text: str) -> dict[str, str]:
    lines = text.partition("\n\n")[0].splitlines()
    return dict(line.partition("=")[::2] for line in lines)


class _Dump(NamedTuple):
    """A tree as LightGBM writes it."""

    feature: Values
    threshold: Values
    left: Values
    right: Values
    leaf: Values
    categorical: Values
    default_left: Values
    missing: Values
    #: One set a categorical decision, in the order of their numbers, which stand as their thresholds.
    sets: tuple[Values, ...]


def _fields(block: str) -> _Dump:
    found = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
    if found.get("is_linear") == "1":
        raise refuse("linear trees of LightGBM are not converted", "train without linear_tree")

    def numbers(key: str, dtype: type) -> Values:
        return np.array(found.get(key, "").split(), dtype)

    kinds = numbers("decision_type", np.int64)
    words, ends = numbers("cat_threshold", np.uint32), numbers("cat_boundaries", np.int64)
    bits = np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little")
    return _Dump(
        feature=numbers("split_feature", np.int64),
        threshold=numbers("threshold", np.float64),
        left=numbers("left_child", np.int64),
        right=numbers("right_child", np.int64),
        leaf=numbers("leaf_value", np.float64),
        categorical=kinds & 1 == 1,
        default_left=kinds >> 1 & 1,
        missing=kinds >> 2 & 3,
        sets=tuple(np.flatnonzero(bits[32 * a : 32 * b]) for a, b in pairwise(ends)),
    )


def _grow(dump: _Dump, target: int, copies: Values, zeros_from: int) -> Tree:
    """The tree; `copies` is where each feature without its fraction stands, `zeros_from` where the copies do
    in which zero is missing."""
    threshold, missing, categorical = dump.threshold, dump.missing, dump.categorical
    # What is so near to zero is zero before it is compared.
    near = np.abs(threshold) <= _ZERO
    moved = np.where(threshold < 0, np.nextafter(-_ZERO, -np.inf), _ZERO)
    feature = np.where(missing == _ZERO_IS_MISSING, dump.feature + zeros_from, dump.feature)
    # Where nothing was missing at training, NaN is zero; and it is in no set.
    nan_left = np.where(missing == _NONE_IS_MISSING, threshold >= 0, dump.default_left)
    return Tree(
        feature=np.where(categorical, copies[dump.feature], feature),
        threshold=np.where(categorical, 0.0, np.where(near, moved, threshold)),
        true=dump.left,
        false=dump.right,
        missing_true=np.where(categorical, 0, nan_left),
        mode=np.where(categorical, MEMBER, LEQ),
        leaf=dump.leaf,
        target=target,
        members=tuple(dump.sets[int(number)] for number in threshold[categorical]),
    )


def _classes(model: Any, targets: int) -> Values:
    if not isinstance(model, lightgbm.LGBMClassifier):
        return np.arange(max(targets, 2))
    classes = np.asarray(model.classes_)
    if classes.dtype.kind in "OUS":
        return classes.astype(np.str_).astype(object)
    # It takes no fractions for classes.
    return classes if classes.dtype.kind == "b" else classes.astype(np.int64)
