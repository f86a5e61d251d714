"""How good the answers are on held-out rows: the bundle's baseline quality, and its calibration map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cloche.bundle.profile import Calibration, Holdout
from cloche.bundle.rows import as_array, clean, is_missing
from cloche.core.errors import ConfigError
from cloche.core.signature import Array, Columns, Field, Signature, count_rows

MAX_KNOTS = 200
#: Scores are gathered into so many groups of equal size before the map is fitted.
_GROUPS = 2_000
#: Larger confusion tables are left out of the profile.
_MAX_CONFUSION = 100
_TINY = 1e-15


def assess(
    task: str, signature: Signature, outputs: Columns, y: Any
) -> tuple[dict[str, float] | None, Holdout | None]:
    """The named metrics and the comparison with the labels `y`, one a row; (None, None) where neither applies.

    Classifiers: accuracy, precision, recall, f1 (of the second class where there are two, else the mean over
    classes) and roc_auc (one against the rest); regressors: mae, rmse, r2. Raises ConfigError CL-E204 when `y`
    does not fit the rows.
    """
    labels = check_labels(y, count_rows(outputs))
    if labels.ndim != 1:
        return None, None
    label, value = signature.output("label"), signature.output("value")
    if task == "classification" and label is not None and outputs["label"].ndim == 1:
        return _assess_classes(label, outputs, labels)
    if task == "other" and value is not None and len(signature.outputs) == 1 and outputs["value"].ndim == 1:
        # A class that gives a plain list of labels.
        return _assess_plain(value, outputs["value"], labels), None
    if task == "regression" and value is not None and outputs["value"].ndim == 1:
        return _assess_numbers(outputs["value"].astype(np.float64), labels)
    return None, None


def _assess_plain(value: Field, answers: Array, labels: Array) -> dict[str, float] | None:
    """Metrics of an output that holds labels, where `labels` are of its type; None otherwise."""
    texts = all(isinstance(each, str) for each in labels.tolist())
    same = texts if value.datatype == "BYTES" else labels.dtype.kind in "iub" and answers.dtype.kind in "iub"
    return _assess_classes(value, {"label": answers}, labels)[0] if same else None


def check_labels(y: Any, rows: int) -> Array:
    """The labels as an array, one a row and none missing; ConfigError CL-E204 otherwise.

    Raises InputError for dates, mixtures and whatever else no column holds.
    """
    if isinstance(y, str):
        raise ConfigError(
            f"the labels are the text {y!r}, and they are values, one a row",
            code="CL-E204",
            hint=f"give the column itself: y=X[{y!r}]",
        )
    labels = clean("y", as_array(y))
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape[:1] != (rows,):
        raise ConfigError(
            f"there are {len(labels)} labels for {rows} rows",
            code="CL-E204",
            hint="X and y must be the same rows: pass both halves of one split, such as X_test and y_test",
        )
    if labels.dtype.kind in "Of" and (missing := sum(map(is_missing, labels.ravel().tolist()))):
        raise ConfigError(f"{missing} labels are missing", code="CL-E204", hint="drop the rows that have no label")
    return labels


def roc_auc(positive: Array, scores: Array) -> float | None:
    """The share of (positive, negative) pairs in the right order, ties counting half; None without pairs."""
    hits = int(positive.sum())
    misses = len(positive) - hits
    if not hits or not misses:
        return None
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def calibrate(scores: Array, hits: Array) -> tuple[Array, Array]:
    """Isotonic regression of hits (0 or 1) on scores: knots of a rising map, at most MAX_KNOTS."""
    values, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    group = np.arange(len(values))
    if len(values) > _GROUPS:
        group = _gather(np.cumsum(counts), _GROUPS)
    firsts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    weights = np.add.reduceat(counts.astype(np.float64), firsts)
    sums = np.add.reduceat(np.bincount(places, weights=hits.astype(np.float64)), firsts)
    starts = _pool(sums / weights, weights)
    if len(starts) > MAX_KNOTS // 2:
        reached = np.cumsum(np.add.reduceat(weights, starts))
        merged = _gather(reached, MAX_KNOTS // 2)
        starts = starts[np.append(True, merged[1:] != merged[:-1])]
    shares = np.add.reduceat(sums, starts) / np.add.reduceat(weights, starts)
    lasts = np.append(firsts[1:], len(values)) - 1
    stops = np.append(starts[1:], len(firsts)) - 1
    knots = np.stack([values[firsts[starts]], values[lasts[stops]]], axis=1).reshape(-1)
    keep = np.append(True, knots[1:] > knots[:-1])
    return knots[keep], np.repeat(shares, 2)[keep]


def _gather(reached: Array, groups: int) -> Array:
    """A rising group number for each step of a running total, so that groups weigh about the same."""
    return np.asarray((reached - 1) * groups // reached[-1], dtype=np.int64)


def _pool(means: Array, weights: Array) -> Array:
    """Where the blocks start when neighbours out of order are pooled (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for block in zip(means.tolist(), weights.tolist(), range(len(means)), strict=True):
        mean, weight, first = block
        while blocks and blocks[-1][0] >= mean:
            before, heavy, first = blocks.pop()
            mean = (before * heavy + mean * weight) / (heavy + weight)
            weight += heavy
        blocks.append((mean, weight, first))
    return np.array([block[2] for block in blocks])


def _assess_classes(label: Field, outputs: Columns, labels: Array) -> tuple[dict[str, float], Holdout | None]:
    given = np.array([_name(value, label) for value in outputs["label"].tolist()], dtype=object)
    true = np.array([_name(value, label) for value in labels.tolist()], dtype=object)
    classes = label.classes or tuple(sorted({*given, *true}))
    known = {name: place for place, name in enumerate(classes)}
    for name in sorted({*given, *true} - known.keys(), key=str):
        known[name] = len(known)
    true_place = np.array([known[name] for name in true])
    given_place = np.array([known[name] for name in given])
    size = len(known)
    table = np.bincount(true_place * size + given_place, minlength=size * size).reshape(size, size)
    metrics = _class_metrics(table, binary=size == 2)
    probabilities = outputs.get("probabilities")
    if label.classes is None or probabilities is None or probabilities.shape != (len(true), len(classes)):
        return metrics, None
    scores = probabilities.astype(np.float64)
    area = _area(true_place, scores)
    if area is not None:
        metrics["roc_auc"] = area
    return metrics, _class_holdout(classes, table, scores, true_place, given_place)


def _class_metrics(table: Array, *, binary: bool) -> dict[str, float]:
    hits = np.diag(table).astype(np.float64)
    asked, said = table.sum(axis=1), table.sum(axis=0)
    precision = np.divide(hits, said, out=np.zeros_like(hits), where=said > 0)
    recall = np.divide(hits, asked, out=np.zeros_like(hits), where=asked > 0)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(hits), where=both > 0)
    seen = np.array([1]) if binary else np.flatnonzero(asked + said)
    return {
        "accuracy": float(hits.sum() / table.sum()),
        "precision": float(precision[seen].mean()),
        "recall": float(recall[seen].mean()),
        "f1": float(f1[seen].mean()),
    }


def _area(true: Array, scores: Array) -> float | None:
    if scores.shape[1] == 2:
        return roc_auc(true == 1, scores[:, 1])
    areas = [roc_auc(true == place, scores[:, place]) for place in range(scores.shape[1])]
    found = [area for area in areas if area is not None]
    return float(np.mean(found)) if found else None


def _class_holdout(classes: Sequence[str], table: Array, scores: Array, true: Array, given: Array) -> Holdout:
    rows = np.arange(len(true))
    known = true < len(classes)
    share = np.where(known, scores[rows, np.where(known, true, 0)], 0.0)
    loss = -np.log(np.clip(share, _TINY, 1.0))
    if len(classes) == 2:
        knots, shares = calibrate(scores[:, 1], true == 1)
    else:
        knots, shares = calibrate(scores.max(axis=1), true == given)
    return Holdout(
        rows=len(true),
        loss_mean=float(loss.mean()),
        loss_variance=float(loss.var()),
        confusion=tuple(map(tuple, table.tolist())) if len(table) <= _MAX_CONFUSION else None,
        calibration=Calibration(
            of="probability" if len(classes) == 2 else "confidence",
            scores=tuple(knots.tolist()),
            shares=tuple(shares.tolist()),
        ),
    )


def _assess_numbers(given: Array, labels: Array) -> tuple[dict[str, float], Holdout | None]:
    try:
        true = labels.astype(np.float64)
    except (TypeError, ValueError):
        raise ConfigError("the labels of a regressor must be numbers", code="CL-E204") from None
    if not np.isfinite(true).all():
        raise ConfigError("some labels are infinite", code="CL-E204", hint="drop those rows")
    with np.errstate(over="ignore", invalid="ignore"):
        error = given - true
        squared = error**2
        spread = float(((true - true.mean()) ** 2).sum())
        metrics = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt(squared.mean()))}
        if spread > 0:
            metrics["r2"] = 1.0 - float(squared.sum()) / spread
        mean, variance = float(squared.mean()), float(squared.var())
    found = {name: value for name, value in metrics.items() if np.isfinite(value)}
    if not (np.isfinite(mean) and np.isfinite(variance)):
        return found, None
    return found, Holdout(rows=len(true), loss_mean=mean, loss_variance=variance)


def _name(value: object, label: Field) -> str:
    """A label as the signature's classes are written: 1.0 and "1" are the class `1` of an integer label."""
    if isinstance(value, bool):
        return str(value) if str(value) in (label.classes or ()) else str(int(value))
    if isinstance(value, float) and value.is_integer() and label.datatype != "BYTES":
        return str(int(value))
    return str(value)
