"""Splits a pipeline on text into terms, a matrix of weights where the next step is linear, and the rest."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_selection import SelectorMixin
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline

from cloche.bundle.converters._prepare import describe
from cloche.bundle.converters._terms import begins_with_text, read_terms, refuse, steps_of
from cloche.core.signature import Array
from cloche.runtimes.steps_terms import Terms


class Split(NamedTuple):
    """A Split is a model in two: what the step does with text, and what the graph does with that."""

    parts: list[Terms]
    #: Features that the rest takes, by number; None: all, or those that `projection` weighs.
    kept: Array | None
    #: (features, width); None: the rest takes the features themselves.
    projection: Array | None
    #: Takes what the step makes, and the other columns behind it.
    rest: Any
    #: The other columns, in the order that the rest takes them.
    others: list[str]


class _Linear(NamedTuple):
    """A _Linear is a step that begins with X @ weights, and the same step that takes the product instead."""

    weights: Array
    #: Makes the step over (width + others) columns, the weights of the others given.
    rest: Any


def split(model: Any, column: str) -> Split:
    """A pipeline that begins with text, or with a ColumnTransformer that has columns of text.

    `column` is the name of the text where the model does not know names. Raises ConversionError (CL-E802).
    """
    steps = steps_of(model)
    if isinstance(steps[0], ColumnTransformer):
        return _split_columns(steps)
    if not begins_with_text(model):
        raise refuse(f"{describe(model)} takes text somewhere else than in its first step")
    parts, rest = read_terms(steps, column)
    features = sum(len(part.vocabulary) for part in parts)
    kept = np.arange(features)
    while rest and isinstance(rest[0], SelectorMixin):
        kept = kept[rest.pop(0).get_support()]
    if not rest:
        raise refuse(f"{describe(model)} ends without a classifier or regressor")
    selected = None if len(kept) == features else kept
    weights = weights_of(rest[0], len(kept))
    if weights is None:
        return Split(parts, selected, None, _chain(rest), [])
    if selected is not None:
        weights, chosen = np.zeros((features, weights.shape[1]), weights.dtype), weights
        weights[kept] = chosen
    first = with_weights(rest[0], np.eye(weights.shape[1], dtype=weights.dtype))
    return Split(parts, None, weights, _chain([first, *rest[1:]]), [])


def _chain(steps: list[Any]) -> Any:
    return steps[0] if len(steps) == 1 else Pipeline([(f"step{i}", step) for i, step in enumerate(steps)])


def weights_of(step: Any, features: int) -> Array | None:
    """The matrix (features, width) that a step begins with; None where it does not begin with one."""
    if isinstance(step, (MultinomialNB, ComplementNB)):
        found = step.feature_log_prob_
    elif isinstance(step, TruncatedSVD):
        found = step.components_
    elif isinstance(step, (MLPClassifier, MLPRegressor)):
        found = step.coefs_[0].T
    elif "coef_" in vars(step):  # not where it is computed from something else, as SVC's
        found = step.coef_.toarray() if hasattr(step.coef_, "toarray") else np.atleast_2d(step.coef_)
    else:
        return None
    return np.ascontiguousarray(found.T) if found.shape[-1] == features else None


def with_weights(step: Any, weights: Array) -> Any:
    """A copy of a step with another matrix, (features, width), of weights."""
    changed = copy.copy(step)
    changed.n_features_in_ = len(weights)
    vars(changed).pop("feature_names_in_", None)
    if isinstance(step, (MultinomialNB, ComplementNB)):
        changed.feature_log_prob_ = weights.T
    elif isinstance(step, TruncatedSVD):
        changed.components_ = weights.T
    elif isinstance(step, (MLPClassifier, MLPRegressor)):
        changed.coefs_ = [weights, *step.coefs_[1:]]
    else:
        changed.coef_ = weights[:, 0] if np.ndim(step.coef_) == 1 else weights.T
    return changed


def _split_columns(steps: list[Any]) -> Split:
    """Terms of every column of text; the rest takes what the step makes, then the other columns by name."""
    columns, *rest = steps
    if not rest:
        raise refuse("a ColumnTransformer alone is neither a classifier nor a regressor")
    names = [str(name) for name in getattr(columns, "feature_names_in_", [])]
    if not names:
        raise refuse("text in an array without names is not converted", "fit on a frame")
    places = columns.output_indices_
    parts: list[Terms] = []
    texts: dict[str, Array] = {}  # transformer -> its places in the ColumnTransformer's output
    for name, member, chosen in columns.transformers_:
        if isinstance(member, str) or not begins_with_text(member):
            continue
        if not isinstance(chosen, str):
            raise refuse(f"{name!r} takes text from columns that are not named by one string")
        found, behind = read_terms(steps_of(member), chosen)
        if behind:
            raise refuse(f"{type(behind[0]).__name__} behind text in a ColumnTransformer is not converted")
        parts += found
        texts[name] = np.arange(places[name].start, places[name].stop)
    if not texts:
        raise refuse("text stands in no column of its own")
    before = np.concatenate(list(texts.values()))
    total = max(place.stop for place in places.values())
    weights = weights_of(rest[0], total)
    if weights is None:
        width, projection = len(before), None
    else:
        width, projection = weights.shape[1], weights[before]
        behind_text = np.delete(np.arange(total), before)
        joined = np.vstack([np.eye(width, dtype=weights.dtype), weights[behind_text]])
        rest = [with_weights(rest[0], joined), *rest[1:]]
    others = _other_columns(columns, names, texts)
    slim = _renumbered(columns, names, texts, others, None if projection is not None else before, width)
    return Split(parts, None, projection, _chain([slim, *rest]), others)


def _other_columns(columns: Any, names: list[str], texts: dict[str, Array]) -> list[str]:
    """The columns that transformers other than those of text take, in the order of fit."""
    taken = {
        place
        for name, member, _ in columns.transformers_
        if name not in texts and not (isinstance(member, str) and member == "drop")
        for place in columns._transformer_to_input_indices[name]
    }
    return [name for place, name in enumerate(names) if place in taken]


def _renumbered(
    columns: Any,
    names: list[str],
    texts: dict[str, Array],
    others: list[str],
    features: Array | None,
    width: int,
) -> Any:
    """A copy that takes `width` columns of the step's first, then the others, each by its number.

    Where `features` are passed one by one, each text's stay where they were in the output; a product comes first.
    """
    slim = copy.copy(columns)
    where = {name: width + place for place, name in enumerate(others)}
    members: list[tuple[str, Any, list[int]]] = []
    if features is None:
        members.append(("terms", "passthrough", list(range(width))))
    start = 0
    for name, member, _ in columns.transformers_:
        if name in texts:
            size = len(texts[name])
            if features is not None:
                members.append((name, "passthrough", list(range(start, start + size))))
            start += size
        elif not (isinstance(member, str) and member == "drop"):
            indices = columns._transformer_to_input_indices[name]
            members.append((name, member, [where[names[int(i)]] for i in indices]))
    slim.transformers_ = [member for member in members if member[2]]
    slim._transformer_to_input_indices = {name: indices for name, _, indices in slim.transformers_}
    slim.n_features_in_ = width + len(others)
    vars(slim).pop("feature_names_in_", None)
    return slim
