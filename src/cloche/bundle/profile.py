"""Reference statistics of held-out rows and of the model's answers to them: `profile.json`.

Windows of live traffic count on the very same bins, so that drift is a comparison of two rows of integers. A
column's kind is a tag: dimensions of texts, images and embeddings come as kinds of their own.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
import numpy as np

from cloche.core.signature import Array

FORMAT = 1


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


def bin_numbers(values: Array, profile: Numeric) -> Array:
    """Counts of finite values on the profile's bins, guard bins first and last; int64."""
    if profile.minimum is None:
        return np.zeros(len(profile.counts), dtype=np.int64)
    places = np.searchsorted(np.array(profile.ends), values, side="left") + 1
    places[values < profile.minimum] = 0
    return np.bincount(places, minlength=len(profile.ends) + 2)
