"""Reads fitted vectorisers of scikit-learn as data: which terms they count, and how they weigh them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.pipeline import FeatureUnion, Pipeline

from cloche.core.errors import ConversionError
from cloche.runtimes.steps_terms import Terms

VECTORIZERS = (CountVectorizer, HashingVectorizer)


def refuse(message: str, hint: str = "pack a Python class with `load` and `predict` instead") -> ConversionError:
    return ConversionError(message, code="CL-E802", hint=hint)


def steps_of(model: Any) -> list[Any]:
    """The steps of a pipeline, inner pipelines unfolded; the model itself where it is none."""
    if hasattr(model, "best_estimator_"):  # of a search
        return steps_of(model.best_estimator_)
    if not isinstance(model, Pipeline):
        return [model]
    members = [step for _, step in model.steps if step is not None and step != "passthrough"]
    return [step for member in members for step in steps_of(member)]


def begins_with_text(model: Any) -> bool:
    """Whether its first step takes raw text."""
    first = next(iter(steps_of(model)), None)
    if isinstance(first, FeatureUnion):
        return any(begins_with_text(member) for _, member in first.transformer_list)
    return isinstance(first, VECTORIZERS)


def read_terms(steps: list[Any], column: str) -> tuple[list[Terms], list[Any]]:
    """What the first steps count in a column, and the steps behind them. Raises ConversionError (CL-E802)."""
    first, *rest = steps
    parts = _read_union(first, column) if isinstance(first, FeatureUnion) else [_read(first, column)]
    if rest and isinstance(rest[0], TfidfTransformer):
        if len(parts) > 1 or parts[0].idf is not None or parts[0].norm is not None:
            raise refuse("a TfidfTransformer behind anything but one CountVectorizer is not converted")
        parts = [_weighed(parts[0], rest.pop(0))]
    return parts, rest


def _read_union(union: Any, column: str) -> list[Terms]:
    if union.transformer_weights:
        raise refuse("a FeatureUnion with transformer_weights is not converted")
    found: list[Terms] = []
    for name, member in union.transformer_list:
        if isinstance(member, str):
            if member == "drop":
                continue
            raise refuse(f"{name!r} of the FeatureUnion passes the text through")
        parts, rest = read_terms(steps_of(member), column)
        if rest:
            raise refuse(f"{type(rest[0]).__name__} inside a FeatureUnion of texts is not converted")
        found += parts
    return found


def _read(vectorizer: Any, column: str) -> Terms:
    name = type(vectorizer).__name__
    if isinstance(vectorizer, HashingVectorizer):
        raise refuse(
            "HashingVectorizer keeps no vocabulary, only hashes",
            "fit with TfidfVectorizer or CountVectorizer (max_features bounds its size), or pack a Python class",
        )
    if type(vectorizer) not in (CountVectorizer, TfidfVectorizer):
        raise refuse(f"{name} is not a vectoriser that is known here")
    for parameter in ("preprocessor", "tokenizer"):
        if getattr(vectorizer, parameter) is not None:
            raise refuse(f"the {parameter} of {name} is a function, which can't become data")
    for parameter in ("analyzer", "strip_accents"):
        if callable(getattr(vectorizer, parameter)):
            raise refuse(f"the {parameter} of {name} is a function, which can't become data")
    if vectorizer.input != "content":
        raise refuse(f"{name} reads files (input={vectorizer.input!r}), and a server gets texts")
    if np.dtype(vectorizer.dtype) not in (np.int64, np.int32, np.float32, np.float64):
        raise refuse(f"{name} counts in {np.dtype(vectorizer.dtype)}, which may overflow")
    is_word = vectorizer.analyzer == "word"
    least, most = vectorizer.ngram_range
    vocabulary = [""] * len(vectorizer.vocabulary_)
    for term, place in vectorizer.vocabulary_.items():
        vocabulary[place] = term
    terms = Terms(
        column=column,
        analyzer=vectorizer.analyzer,
        lowercase=bool(vectorizer.lowercase),
        strip_accents=vectorizer.strip_accents or None,
        pattern=vectorizer.token_pattern if is_word else None,
        stop_words=tuple(sorted(vectorizer.get_stop_words() or ())) if is_word else (),
        ngrams=(int(least), int(most)),
        binary=bool(vectorizer.binary),
        sublinear=False,
        idf=None,
        norm=None,
        vocabulary=tuple(vocabulary),
    )
    return _weighed(terms, vectorizer) if isinstance(vectorizer, TfidfVectorizer) else terms


def _weighed(terms: Terms, weights: Any) -> Terms:
    """The terms with what a fitted TfidfVectorizer or TfidfTransformer makes of their counts."""
    return msgspec.structs.replace(
        terms,
        sublinear=bool(weights.sublinear_tf),
        idf=tuple(np.asarray(weights.idf_, np.float64).tolist()) if weights.use_idf else None,
        norm=weights.norm,
    )
