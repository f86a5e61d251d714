"""What changed between two bundles: signature, quality, profile, size and speed."""

from __future__ import annotations

import msgspec
import numpy as np

from cloche.bundle.bundle import Bundle
from cloche.bundle.profile import Categorical, Column, Numeric, Profile, Scores
from cloche.core.signature import Array, Field

Pair = tuple[float | None, float | None]


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """A Shift is how far a column's distribution lies from before: 0 the same, 1 nothing in common."""

    column: str
    #: The largest difference of the cumulative shares (numbers), or half the sum of all (words).
    distance: float
    #: Shares of missing values, before and after.
    missing: tuple[float, float]


class BundleDiff(msgspec.Struct, frozen=True, kw_only=True):
    """A BundleDiff is what changed from `before` to `after`, names or digests of two bundles."""

    before: str
    after: str
    same: bool
    #: Sentences, one a change; empty when callers need not change anything.
    signature: tuple[str, ...]
    #: Metric -> (before, after); None where one of them lacks it.
    quality: dict[str, Pair]
    #: The columns that both profiles have, the farthest first.
    profile: tuple[Shift, ...]
    #: Named costs with their unit -> (before, after).
    costs: dict[str, Pair]
    #: Anything else that a reader should know ("framework: scikit-learn 1.8 -> 1.9").
    other: tuple[str, ...]


def diff(before: Bundle, after: Bundle) -> BundleDiff:
    """Compare two bundles, of the same model or not."""
    old, new = before.manifest, after.manifest
    return BundleDiff(
        before=before.reference or before.digest[:12],
        after=after.reference or after.digest[:12],
        same=before.digest == after.digest,
        signature=(
            *_fields("input", old.signature.inputs, new.signature.inputs),
            *_fields("output", old.signature.outputs, new.signature.outputs),
        ),
        quality=_pairs(old.quality or {}, new.quality or {}),
        profile=_shifts(before.profile(), after.profile()),
        costs=_pairs(_costs(before), _costs(after)),
        other=tuple(
            f"{what}: {left} -> {right}"
            for what, left, right in (
                ("framework", old.framework, new.framework),
                ("model", old.description, new.description),
                ("runtime", old.runtime.kind, new.runtime.kind),
                ("commit", old.lineage.git_commit, new.lineage.git_commit),
                ("rows", old.rows, new.rows),
            )
            if left != right
        ),
    )


def _pairs(old: dict[str, float], new: dict[str, float]) -> dict[str, Pair]:
    return {name: (old.get(name), new.get(name)) for name in {**old, **new}}


def _costs(bundle: Bundle) -> dict[str, float]:
    found = bundle.manifest.measured
    if found is None:
        return {}
    return {
        "size_bytes": found.size_bytes,
        "memory_bytes": found.memory_bytes,
        "load_s": found.load_s,
        "row_p50_s": found.row_p50_s,
        "row_p99_s": found.row_p99_s,
        "rows_per_s": found.rows_per_s,
    }


def _fields(what: str, old: tuple[Field, ...], new: tuple[Field, ...]) -> list[str]:
    before, after = {field.name: field for field in old}, {field.name: field for field in new}
    words = [f"{what} {name} is gone" for name in before if name not in after]
    for name, field in after.items():
        was = before.get(name)
        if was is None:
            words.append(f"{what} {name} is new: {field.datatype} {list(field.shape)}")
            continue
        if (was.datatype, was.shape) != (field.datatype, field.shape):
            words.append(
                f"{what} {name} was {was.datatype} {list(was.shape)}, is {field.datatype} {list(field.shape)}"
            )
        if was.missing != field.missing:
            words.append(f"{what} {name} may {'now' if field.missing else 'no longer'} be missing")
        words += _sets(f"categories of {what} {name}", was.categories, field.categories)
        words += _sets(f"classes of {what} {name}", was.classes, field.classes)
    return words


def _sets(what: str, old: tuple[str, ...] | None, new: tuple[str, ...] | None) -> list[str]:
    gone, come = sorted({*(old or ())} - {*(new or ())}), sorted({*(new or ())} - {*(old or ())})
    if (old is None) != (new is None) or not (gone or come):
        return []
    return [
        f"{what}: "
        + "; ".join(
            f"{word} {', '.join(few[:5])}{', …' if len(few) > 5 else ''}"
            for word, few in (("no longer", gone), ("new", come))
            if few
        )
    ]


def _shifts(old: Profile | None, new: Profile | None) -> tuple[Shift, ...]:
    if old is None or new is None:
        return ()
    before, after = {**old.inputs, **old.outputs}, {**new.inputs, **new.outputs}
    found = [
        Shift(column=name, distance=distance, missing=(_missing(column), _missing(after[name])))
        for name, column in before.items()
        if name in after and (distance := _distance(column, after[name])) is not None
    ]
    return tuple(sorted(found, key=lambda shift: -shift.distance))


def _distance(old: Column, new: Column) -> float | None:
    """None where the two can't be compared."""
    if isinstance(old, Numeric) and isinstance(new, Numeric):
        return _numeric_distance(old, new)
    if isinstance(old, Categorical) and isinstance(new, Categorical):
        left, right = _shares(old), _shares(new)
        return sum(abs(left.get(word, 0.0) - right.get(word, 0.0)) for word in {**left, **right}) / 2
    if isinstance(old, Scores) and isinstance(new, Scores) and old.rows and new.rows:
        left_share, right_share = (np.cumsum(column.counts) / column.rows for column in (old, new))
        return float(np.abs(left_share - right_share).max())
    return None


def _numeric_distance(old: Numeric, new: Numeric) -> float | None:
    if old.minimum is None or new.minimum is None:
        return None
    points = np.union1d(old.ends, new.ends)
    left, right = (_cumulative(column, points) for column in (old, new))
    return float(np.abs(left - right).max())


def _cumulative(column: Numeric, points: Array) -> Array:
    """The share of values up to each point, linear within a bin."""
    counts = np.cumsum(column.counts[1:-1])
    return np.asarray(np.interp(points, column.ends, counts / counts[-1], left=0.0))


def _shares(column: Categorical) -> dict[str | None, float]:
    """Shares by value; None stands for all that have no name."""
    present = max(1, column.rows - column.missing)
    named: dict[str | None, float] = {
        value: count / present for value, count in zip(column.values, column.counts, strict=True)
    }
    return named | {None: column.other / present}


def _missing(column: Column) -> float:
    return 0.0 if isinstance(column, Scores) else column.missing / max(1, column.rows)
