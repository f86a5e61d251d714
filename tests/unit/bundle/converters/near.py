"""Rows at and around split points, where float32 and float64, < and <=, decide differently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cloche.bundle.converters.base import Converted
from cloche.runtimes.base import RuntimePlace, load_runtime
from cloche.runtimes.files import Held

ROWS = 10_000
#: What no threshold is near to, and what is none or both of a number's signs.
ODD = (np.nan, 0.0, -0.0, 1e-45, -1e-45, 1e-35, -1e-35, 1.1e-35, 3e38, -3e38)


def near_splits(splits: Sequence[tuple[int, float]], rows: Any, dtype: type, odd: Sequence[float] = ()) -> Any:
    """Two values of each row moved to a split point, a float32 beside it, halfway between, or an ulp off those.

    In every third row a value becomes one of `odd`.
    """
    random = np.random.default_rng(1)
    rows = rows.astype(np.float64)
    each = np.arange(len(rows))
    columns = np.array([column for column, _ in splits])
    thresholds = np.array([threshold for _, threshold in splits], np.float64)
    for _ in range(2):
        chosen = random.integers(len(splits), size=len(rows))
        single = _narrow(thresholds[chosen], np.float32)
        below = np.nextafter(single, np.float32(-np.inf)).astype(np.float64)
        above = np.nextafter(single, np.float32(np.inf)).astype(np.float64)
        middle = single.astype(np.float64)
        near = np.stack(
            [thresholds[chosen], below, middle, above, (below + middle) / 2, (middle + above) / 2], axis=1
        )
        value = near[each, random.integers(near.shape[1], size=len(rows))]
        beside = np.stack([np.nextafter(value, -np.inf), value, np.nextafter(value, np.inf)], axis=1)
        rows[each, columns[chosen]] = beside[each, random.integers(3, size=len(rows))]
    if odd:
        third = each[random.random(len(rows)) < 0.33]
        rows[third, random.integers(rows.shape[1], size=len(third))] = random.choice(odd, len(third))
    return _narrow(rows, dtype)


def _narrow(values: Any, dtype: type) -> Any:
    with np.errstate(over="ignore"):  # a threshold may be the largest float64
        return values.astype(dtype)


def ask(converted: Converted, columns: dict[str, Any]) -> Any:
    """What the converted model answers to columns, as it is served."""
    files = converted.files
    runtime = load_runtime(converted.runtime, converted.signature, Held(files), RuntimePlace(digest=""))
    return runtime.run(columns)
