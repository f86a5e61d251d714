"""Reference statistics of held-out rows and of the model's answers to them: `profile.json`.

Windows of live traffic count on the very same bins, so that drift is a comparison of two rows of integers. A
column's kind is a tag: dimensions of texts, images and embeddings come as kinds of their own.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
import numpy as np

from cloche.core.signature import Array, Columns, Field, Signature, count_rows

FORMAT = 1
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
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


class Numeric(msgspec.Struct, frozen=True, kw_only=True, tag="numeric", tag_field="kind"):
    """A Numeric is a column of numbers, counted on bins of equal probability."""

    rows: int
    missing: int
    infinite: int
    #: None where no finite value was seen; mean and variance also where they overflow.
    minimum: float | None
    maximum: float | None
    mean: float | None
    variance: float | None
    quantiles: dict[str, float]
    #: Upper ends of the bins, the last is the maximum. Bin 0 is what lies below the minimum; bin i holds
    #: values above the end before it, up to its own; the last bin is what lies above the maximum.
    ends: tuple[float, ...]
    #: Two more than `ends` has; both guard bins are 0 here.
    counts: tuple[int, ...]


class Categorical(msgspec.Struct, frozen=True, kw_only=True, tag="categorical", tag_field="kind"):
    """A Categorical is a column of words: its most frequent values and how often each was seen."""

    rows: int
    missing: int
    values: tuple[str, ...]
    counts: tuple[int, ...]
    #: Rows with a value that was seen but is not among `values`; `distinct` counts those too.
    other: int
    distinct: int
    #: Rows with a value that was never seen: 0 here, what windows count beside it.
    unseen: int = 0


class Scores(msgspec.Struct, frozen=True, kw_only=True, tag="scores", tag_field="kind"):
    """A Scores is a column of probabilities, counted on 200 bins of equal width from 0 to 1."""

    rows: int
    counts: tuple[int, ...]


Column: TypeAlias = Numeric | Categorical | Scores


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """A Calibration says how often a score comes true: a rising map, linear between its knots."""

    #: `probability` of the second class where there are two, else the `confidence` in the label given.
    of: Literal["probability", "confidence"]
    scores: tuple[float, ...]
    shares: tuple[float, ...]


class Holdout(msgspec.Struct, frozen=True, kw_only=True):
    """A Holdout is how the answers compared with the labels."""

    rows: int
    #: Log loss for classifiers, squared error for regressors; of one row.
    loss_mean: float
    loss_variance: float
    #: Rows are true classes, columns given ones, in the order of the signature's classes.
    confusion: tuple[tuple[int, ...], ...] | None = None
    calibration: Calibration | None = None


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A Profile is the reference that drift and quality are measured against.

    A matrix input `x` gives `x[0]`, `x[1]`, ...; `probabilities` gives `probabilities[<class>]`.
    """

    format: int
    rows: int
    inputs: dict[str, Column]
    outputs: dict[str, Column]
    holdout: Holdout | None = None


def encode_profile(profile: Profile) -> bytes:
    """The bytes of `profile.json`."""
    return msgspec.json.encode(profile, order="sorted")


def decode_profile(data: bytes) -> Profile:
    """The profile in these bytes."""
    return msgspec.json.decode(data, type=Profile)


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


def with_facts(signature: Signature, inputs: Columns) -> Signature:
    """The signature with what the rows show: missing values, ranges, categories."""
    fields = tuple(_with_facts(field, inputs[field.name]) for field in signature.inputs)
    return msgspec.structs.replace(signature, inputs=fields)


def bin_numbers(values: Array, profile: Numeric) -> Array:
    """Counts of finite values on the profile's bins, guard bins first and last; int64."""
    if profile.minimum is None:
        return np.zeros(len(profile.counts), dtype=np.int64)
    places = np.searchsorted(np.array(profile.ends), values, side="left") + 1
    places[values < profile.minimum] = 0
    return np.bincount(places, minlength=len(profile.ends) + 2)


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
    words = [_word(value) for value in values.reshape(-1).tolist()]
    present = [word for word in words if word is not None]
    named, counts = np.unique(np.array(present, dtype=object), return_counts=True)
    order = [
        place
        for place in np.argsort(-counts, kind="stable").tolist()
        if len(named[place]) <= MAX_CATEGORY_CHARACTERS
    ][:CATEGORIES]
    kept = tuple(int(counts[place]) for place in order)
    return Categorical(
        rows=len(words),
        missing=len(words) - len(present),
        values=tuple(str(named[place]) for place in order),
        counts=kept,
        other=len(present) - sum(kept),
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
    return profile_numbers(column)


def _word(value: object) -> str | None:
    if value is None:
        return None
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
    numbers = np.asarray(column, dtype=np.float64)
    finite = numbers[np.isfinite(numbers)]
    return msgspec.structs.replace(
        field,
        missing=field.missing or bool(np.isnan(numbers).any()),
        minimum=float(finite.min()) if finite.size else None,
        maximum=float(finite.max()) if finite.size else None,
    )
