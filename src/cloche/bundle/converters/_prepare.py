"""A fitted scikit-learn model as skl2onnx can read it: a copy that names columns by number."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier

from cloche.bundle.converters.base import is_from

#: What skl2onnx converts to something else.
_WRONG = frozenset({"FixedThresholdClassifier", "TunedThresholdClassifierCV"})


def prepare(model: Any, names: list[str] | None) -> Any:
    """A deep copy whose column transformers name columns by number; `names` are a frame's, None for an array."""
    prepared = copy.deepcopy(model)
    for part in parts(prepared):
        if not hasattr(part, "n_features_in_"):
            continue  # a template that was cloned before fit
        if isinstance(part, ColumnTransformer):
            _number_columns(part, names)
        elif isinstance(part, VotingClassifier):
            part.flatten_transform = False  # of transform, which no prediction calls
        elif _splits_by_category(part):
            raise NotImplementedError(f"{type(part).__name__} with categorical_features is not converted")
        elif type(part).__name__ in _WRONG:
            raise NotImplementedError(f"{type(part).__name__} is not converted: its threshold would be lost")
    return prepared


def parts(model: Any) -> Iterator[Any]:
    """The model and every fitted estimator inside it."""
    seen: set[int] = set()
    waiting = [model]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, BaseEstimator) or is_from(part, "catboost"):
            yield part
            waiting.extend(vars(part).values())
        elif isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, (list, tuple)) or (isinstance(part, np.ndarray) and part.dtype == object):
            waiting.extend(part.ravel() if isinstance(part, np.ndarray) else part)


def _splits_by_category(part: Any) -> bool:
    categorical = getattr(part, "is_categorical_", None)
    return categorical is not None and bool(np.any(categorical))


def _number_columns(transformer: Any, names: list[str] | None) -> None:
    indices = getattr(transformer, "_transformer_to_input_indices", {})
    fitted = list(getattr(transformer, "feature_names_in_", []))
    numbered = []
    for name, step, columns in transformer.transformers_:
        found = list(indices.get(name, columns if isinstance(columns, list) else []))
        if names is not None and fitted:
            # Rows may come in another order than those of fit: scikit-learn goes by name.
            found = [names.index(str(fitted[i])) for i in found]
        if found and not (isinstance(step, str) and step == "drop"):
            numbered.append((name, step, [int(i) for i in found]))
    transformer.transformers_ = numbered


def describe(model: Any) -> str:
    """The classes of a model and its steps: "Pipeline(ColumnTransformer, LogisticRegression)"."""
    steps = getattr(model, "steps", None) or getattr(model, "estimators", None)
    name = type(model).__name__
    if not isinstance(steps, list):
        return name
    members = [step[1] if isinstance(step, tuple) else step for step in steps]
    inner = [describe(member) for member in members if not isinstance(member, str)]
    return f"{name}({', '.join(inner)})"
