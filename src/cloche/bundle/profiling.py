"""Counts held-out rows and the model's answers to them into a profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import msgspec
import numpy as np

from cloche.bundle.profile import (
    FORMAT,
    Categorical,
    Column,
    Holdout,
    Numeric,
    Profile,
    Scores,
    bin_numbers,
)
from cloche.core.signature import Array, Columns, Field, Signature, count_rows

#: Equal-probability bins of a numeric column.
BINS = 20
#: Categories that are counted by name.
CATEGORIES = 254
SCORE_BINS = 200
#: Longer strings are texts, not categories.
MAX_CATEGORY_CHARACTERS = 200
#: Columns of a matrix that are profiled one by one, and classes whose scores are.
MAX_DIMENSIONS = 1_024
MAX_CLASSES = 64
#: Numbers of one column that are counted; of more a sample is.
MAX_NUMBERS = 4_000_000
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def make_profile(
    signature: Signature, inputs: Columns, outputs: Columns, holdout: Holdout | None = None
) -> Profile:
    """Profile held-out rows and the model's answers to them, as the signature names both."""
    return Profile(
        format=FORMAT,
        rows=count_rows(inputs),
        inputs=_columns(signature.inputs, inputs),
        outputs=_columns(signature.outputs, outputs),
        holdout=holdout,
    )


def with_facts(signature: Signature, inputs: Columns, texts: Collection[str] = ()) -> Signature:
    """The signature with what the rows show: missing values, ranges, categories; `texts` have no categories."""
    fields = [
        field if field.name in texts else _with_facts(field, inputs[field.name]) for field in signature.inputs
    ]
    return msgspec.structs.replace(signature, inputs=tuple(fields))


def profile_numbers(values: Array) -> Numeric:
    """A column of numbers of any shape, flattened."""
    numbers = np.asarray(values, dtype=np.float64).reshape(-1)
    missing = int(np.isnan(numbers).sum())
    finite = np.sort(numbers[np.isfinite(numbers)])
    if not len(finite):
        return Numeric(
            rows=len(numbers),
            missing=missing,
            infinite=len(numbers) - missing,
            minimum=None,
            maximum=None,
            mean=None,
            variance=None,
            quantiles={},
            ends=(),
            counts=(0, 0),
        )
    # An end is a value that was seen, so that bins of values without ties are exactly equal.
    places = np.ceil(np.arange(1, BINS + 1) * len(finite) / BINS).astype(np.int64) - 1
    named = np.quantile(finite, _QUANTILES, method="inverted_cdf")
    with np.errstate(over="ignore", invalid="ignore"):
        mean, variance = float(finite.mean()), float(finite.var())
    bare = Numeric(
        rows=len(numbers),
        missing=missing,
        infinite=len(numbers) - missing - len(finite),
        minimum=float(finite[0]),
        maximum=float(finite[-1]),
        mean=mean if np.isfinite(mean) else None,
        variance=variance if np.isfinite(variance) else None,
        quantiles={f"{share:g}": float(value) for share, value in zip(_QUANTILES, named, strict=True)},
        ends=tuple(np.unique(finite[np.maximum(places, 0)]).tolist()),
        counts=(),
    )
    return msgspec.structs.replace(bare, counts=tuple(bin_numbers(finite, bare).tolist()))


def profile_words(values: Array) -> Categorical:
    """A column of words (object, bool or integer labels); None is missing."""
    words = Counter(values.reshape(-1).tolist())
    missing = words.pop(None, 0)
    named = sorted((-count, _word(value)) for value, count in words.items())
    kept = [(word, -less) for less, word in named if len(word) <= MAX_CATEGORY_CHARACTERS][:CATEGORIES]
    present = sum(words.values())
    return Categorical(
        rows=missing + present,
        missing=missing,
        values=tuple(word for word, _ in kept),
        counts=tuple(count for _, count in kept),
        other=present - sum(count for _, count in kept),
        distinct=len(named),
    )


def profile_scores(values: Array) -> Scores:
    """A column of probabilities."""
    places = np.clip((values.reshape(-1).astype(np.float64) * SCORE_BINS).astype(np.int64), 0, SCORE_BINS - 1)
    return Scores(rows=len(places), counts=tuple(np.bincount(places, minlength=SCORE_BINS).tolist()))


def _columns(fields: tuple[Field, ...], columns: Columns) -> dict[str, Column]:
    found: dict[str, Column] = {}
    for field in fields:
        column = columns[field.name]
        if field.classes is not None and field.name == "label":
            found[field.name] = profile_words(column)
        elif field.classes is not None and column.ndim == 2:
            found |= {
                f"{field.name}[{name}]": profile_scores(column[:, place])
                for place, name in enumerate(field.classes[:MAX_CLASSES])
            }
        elif column.ndim == 2 and field.datatype != "BYTES" and column.shape[1] <= MAX_DIMENSIONS:
            for place in range(column.shape[1]):
                found[f"{field.name}[{place}]"] = _column(field, column[:, place])
        else:
            found[field.name] = _column(field, column)
    return found


def _column(field: Field, column: Array) -> Column:
    if field.datatype in ("BYTES", "BOOL"):
        return profile_words(column)
    if column.size > MAX_NUMBERS:
        # Many images: a sample tells as much, and is sorted in a second.
        column = column.reshape(-1)[np.random.default_rng(0).integers(0, column.size, MAX_NUMBERS)]
    return profile_numbers(column)


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _with_facts(field: Field, column: Array) -> Field:
    if field.datatype == "BOOL":
        return field
    if field.datatype == "BYTES":
        words = profile_words(column)
        # Values that hardly come twice are names or texts: an unknown one is no news.
        few = words.distinct <= CATEGORIES and words.other == 0
        repeated = 2 * words.distinct <= words.rows - words.missing
        known = {*words.values, *(field.categories or ())}
        return msgspec.structs.replace(
            field,
            missing=field.missing or words.missing > 0,
            categories=tuple(sorted(known)) if (few and repeated) or field.categories else None,
        )
    # No copy in float64: images are gigabytes.
    finite = np.isfinite(column)
    seen = bool(finite.any())
    low, high = _limits(column.dtype)
    return msgspec.structs.replace(
        field,
        missing=field.missing or bool(np.isnan(column).any()),
        minimum=float(np.min(column, where=finite, initial=high)) if seen else None,
        maximum=float(np.max(column, where=finite, initial=low)) if seen else None,
    )


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The least and the greatest number of a type."""
    limits: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return limits.min, limits.max
