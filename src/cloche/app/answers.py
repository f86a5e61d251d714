"""What a batch run answered, counted beside what the model answered when it was packed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cloche.bundle.profile import Categorical, Column, Numeric, Profile, Scores, bin_numbers

#: Outputs, and labels of each, that are told.
_MOST_OUTPUTS = 10
_MOST_LABELS = 10
_QUANTILES = {"p05": 0.05, "p50": 0.5, "p95": 0.95}


class Answers:
    """An Answers counts outputs as they go by, from any thread; one that the profile lacks is not counted."""

    def __init__(self, profile: Profile | None) -> None:
        known = {} if profile is None else profile.outputs
        self._known: dict[str, Column] = dict(list(known.items())[:_MOST_OUTPUTS])
        self._labels: dict[str, Counter[str]] = {}
        self._numbers: dict[str, Any] = {}
        self._lock = threading.Lock()

    def counted(self, outputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same outputs, counted."""
        for name, values in outputs.items():
            if isinstance(values, Mapping):
                for part, column in values.items():
                    self._count(f"{name}[{part}]", column)
            else:
                self._count(name, values)
        return outputs

    def told(self) -> dict[str, Any]:
        """For each output its labels' shares, or quantiles, of this run and at packing."""
        with self._lock:
            return {name: found for name, column in self._known.items() if (found := self._compared(name, column))}

    def _count(self, name: str, values: Any) -> None:
        column = self._known.get(name)
        if column is None or np.ndim(values) != 1:
            return
        if isinstance(column, Categorical):
            labels = Counter(map(str, np.asarray(values).tolist()))
            with self._lock:
                self._labels.setdefault(name, Counter()).update(labels)
            return
        numbers = np.asarray(values, np.float64)
        counts = _binned(numbers[np.isfinite(numbers)], column)
        with self._lock:
            self._numbers[name] = self._numbers.get(name, 0) + counts

    def _compared(self, name: str, column: Column) -> dict[str, Any] | None:
        if isinstance(column, Categorical):
            counts = self._labels.get(name)
            if not counts:
                return None
            packed = dict(zip(column.values, column.counts, strict=True))
            shown = [label for label, _ in counts.most_common(_MOST_LABELS)]
            shown += [label for label in packed if label not in shown][: _MOST_LABELS - len(shown)]
            return {
                "shares": {label: _share(counts[label], counts.total()) for label in shown},
                "packed": {label: _share(packed.get(label, 0), column.rows) for label in shown},
            }
        counts = self._numbers.get(name)
        if counts is None or not counts.sum():
            return None
        edges = _edges(column)
        return {
            "quantiles": {name: _quantile(counts, edges, part) for name, part in _QUANTILES.items()},
            "packed": {name: _quantile(column.counts, edges, part) for name, part in _QUANTILES.items()},
        }


def _binned(numbers: Any, column: Numeric | Scores) -> Any:
    if isinstance(column, Numeric):
        return bin_numbers(numbers, column)
    return np.histogram(numbers, bins=len(column.counts), range=(0.0, 1.0))[0]


def _edges(column: Numeric | Scores) -> list[float]:
    """The upper end of each bin; what lies above the last of a profile is told as that."""
    if isinstance(column, Scores):
        bins = len(column.counts)
        return [(place + 1) / bins for place in range(bins)]
    if column.minimum is None:
        return [0.0] * len(column.counts)
    return [column.minimum, *column.ends, column.ends[-1]]


def _quantile(counts: Sequence[int], edges: Sequence[float], part: float) -> float:
    sums = np.cumsum(counts)
    place = int(np.searchsorted(sums, part * sums[-1], side="left"))
    return float(edges[min(place, len(edges) - 1)])


def _share(count: int, rows: int) -> float:
    return round(count / max(rows, 1), 6)
