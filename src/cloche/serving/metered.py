"""An A/B trial's split: besides what went wrong its arms sum what callers got, and who was dealt to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from cloche.core.board import Slot
from cloche.core.marks import Claims
from cloche.core.signature import Columns
from cloche.engine.engine import Prepared
from cloche.engine.queue import Answer as Outcome
from cloche.serving.callers import Callers
from cloche.serving.split import NOBODY, Arm, Split

#: Sums of an arm: `metric` is latency (seconds) or score, `sum` n, total or squares.
SUMS = "cloche_trial_sums"
#: The board holds whole numbers: a millionth of a millionth, as the square of a short time is next to nothing.
SCALE = 10**12
#: Where sums are no longer added to: there is evidence enough.
_FULL = 2**62
METRICS = ("latency", "score")
#: Among the sums, `n` only: callers that were dealt to an arm, or requests of those that can't be told apart.
UNITS = "units"
_STATS = ("n", "total", "squares")


class MeteredSplit(Split):
    """A MeteredSplit counts whom it deals to which arm: some thousands of callers once each.

    Who sends no name is another caller each time. It counts before anything has become of a request.
    """

    def __init__(
        self, slot: Slot, *, deployment: str, stable: int, candidate: int, rollout: int, **given: Any
    ) -> None:
        self._cells = slot.cells
        arms = ((stable, "stable"), (candidate, "candidate"))
        named = [{"deployment": deployment, "version": str(version), "arm": arm} for version, arm in arms]
        self._units = [slot.series(**sums_labels(labels, UNITS, rollout)[0]) for labels in named]
        arm = partial(MeteredArm, trial=rollout)
        given |= {"deployment": deployment, "stable": stable, "candidate": candidate, "rollout": rollout}
        super().__init__(slot, arm=arm, **given)
        self._claims = Claims(slot.board.path.with_suffix(f".trial-{deployment}"), rollout)

    def takes(self, headers: Mapping[bytes, bytes]) -> bool:
        if self.weight == 0 or self.tripped:
            return False
        is_taken = super().takes(headers)
        key = headers.get(self._sticky) if self._sticky is not None else None
        if key is None or self._claims.claim(key):
            self._cells[self._units[is_taken]] += 1
        return is_taken


class MeteredArm(Arm):
    """A MeteredArm sums the seconds of its answers, and their scores (see `score_of`)."""

    __slots__ = ("_sums",)

    def __init__(
        self,
        slot: Slot,
        labels: Mapping[str, str],
        slow_s: float,
        on_bad: Callable[[], None] | None = None,
        callers: Callers | None = None,
        late_s: float | None = None,
        *,
        trial: int,
    ) -> None:
        self._sums = {
            metric: [slot.series(**one) for one in sums_labels(labels, metric, trial)] for metric in METRICS
        }
        super().__init__(slot, labels, slow_s, on_bad, callers, late_s)

    def answered(self, prepared: Prepared | None, outcome: Outcome) -> None:
        score = score_of(outcome[0]) if outcome[1] >= 0 else None  # out of the cache it is known already
        if score is not None:
            self._add("score", score)

    def count(self, status: int, seconds: float, headers: Mapping[bytes, bytes] = NOBODY) -> None:
        super().count(status, seconds, headers)
        if status < 400:
            self._add("latency", seconds)

    def _add(self, metric: str, value: float) -> None:
        n, total, squares = self._sums[metric]
        cells = self._cells
        if max(value, value * value) * SCALE + max(cells[total], cells[squares]) > _FULL:
            return
        cells[n] += 1
        cells[total] += int(value * SCALE)
        cells[squares] += int(value * value * SCALE)


def sums_labels(labels: Mapping[str, str], metric: str, trial: int) -> list[dict[str, str]]:
    """The labels of an arm's three sums of a metric."""
    return [{**labels, "name": SUMS, "metric": metric, "trial": str(trial), "stat": stat} for stat in _STATS]


def score_of(outputs: Columns) -> float | None:
    """The mean over rows of the last class's probability; None of a model that gives none."""
    chances = outputs.get("probabilities")
    if chances is None or not len(chances):
        return None
    return float(np.mean(chances[..., -1]))
