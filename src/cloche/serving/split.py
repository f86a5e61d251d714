"""How a deployment's requests are split between stable and candidate in one worker, and the guard over it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from cloche.core.board import Head, Slot
from cloche.core.ids import PredictionIds
from cloche.core.marks import Marks
from cloche.core.routing import choose
from cloche.engine.engine import Prepared
from cloche.engine.queue import Answer as Outcome
from cloche.rollout.analysis import Evidence, Policy, Verdict, assess, observe
from cloche.rollout.counts import Counts, Tick
from cloche.serving.callers import ArmCallers, Callers, caller_series

#: What was answered, by whom it had been assigned to; `outcome` is good or bad.
ARMS = "cloche_rollout_requests_total"
#: Of these the late ones, where stable's own pace says what is late.
LATE = "cloche_rollout_late_total"
#: The headers of a caller that does not say who it is.
NOBODY: Mapping[bytes, bytes] = {}


class Arm:
    """An Arm is one version's part of a split: it counts what becomes of what was assigned to it.

    Bad are answers of 500 and above, those of a caller who had waited longer than `slow_s` when it went away, and
    answers slower than that. Answers out of the cache and refusals of what was sent are neither good nor bad.
    Where `callers` tells callers apart, it hears of each as well. Later than `late_s` is late, good or bad.
    """

    __slots__ = ("_callers", "_cells", "_late", "_late_s", "_on_bad", "_places", "_slow_s", "is_counted")

    def __init__(
        self,
        slot: Slot,
        labels: Mapping[str, str],
        slow_s: float,
        on_bad: Callable[[], None] | None = None,
        callers: Callers | None = None,
        late_s: float | None = None,
    ) -> None:
        self._callers = None if callers is None else ArmCallers(slot, labels, callers)
        self._cells = slot.cells
        self._slow_s = slow_s
        self._late_s = float("inf") if late_s is None else late_s
        self._late = None if late_s is None else slot.series(name=LATE, **labels)
        # last: where these are on the board the others are, which is how the controller knows that all is counted
        self._places = [slot.series(name=ARMS, outcome=outcome, **labels) for outcome in ("good", "bad")]
        self.is_counted = slot.place(Head.DROPPED) not in self._places
        self._on_bad = on_bad

    def count(self, status: int, seconds: float, headers: Mapping[bytes, bytes] = NOBODY) -> None:
        """One request that was assigned to this arm is done."""
        if 400 <= status < 499:  # the caller's own fault, however long that took
            return
        is_bad = status >= 500 or seconds > self._slow_s
        if not is_bad and status == 499:
            return
        self._cells[self._places[is_bad]] += 1
        is_late = seconds > self._late_s
        if is_late and self._late is not None:
            self._cells[self._late] += 1
        if self._callers is not None:
            self._callers.count(headers, is_bad=is_bad, is_late=is_late)
        if (is_bad or is_late) and self._on_bad is not None:
            self._on_bad()

    def answered(self, prepared: Prepared | None, outcome: Outcome) -> None:
        """The model has answered; the answer is about to be written."""

    def told(self) -> tuple[int, ...]:
        """What is counted on the board of it: see `arm_series`."""
        late = 0 if self._late is None else self._cells[self._late]
        more = (0,) * 5 if self._callers is None else self._callers.told()
        return (*(self._cells[place] for place in self._places), late, *more)


class Split:
    """A Split sends a share of the requests to the candidate, by the hash of a key that the caller sends.

    Without the key's header it is the request's own id that decides. When the candidate harms, as far as this
    worker can see (see `rollout.analysis`), its share here falls to nothing at once and `tripped` is true. Late is
    what took longer than `late_s`, in both arms alike.
    """

    def __init__(
        self,
        slot: Slot,
        *,
        deployment: str,
        stable: int,
        candidate: int,
        rollout: int,
        weight: int,
        policy: Policy,
        slow_s: float,
        sticky: bytes | None = None,
        late_s: float | None = None,
        arm: Callable[..., Arm] = Arm,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.weight = weight
        self.tripped = False
        self._slot = slot
        self._rollout = rollout
        self._salt = rollout.to_bytes(8, "big")  # another rollout, others go first
        self._sticky = sticky
        self._ids = PredictionIds()
        self._policy = policy
        labels = {"deployment": deployment}
        callers = None
        if sticky is not None:
            callers = Callers(sticky, rollout, Marks(slot.board.path.with_suffix(".callers")), clock)
        named = {**labels, "version": str(stable), "arm": "stable"}
        self.stable = arm(slot, named, slow_s, callers=callers, late_s=late_s)
        named = {**labels, "version": str(candidate), "arm": "candidate"}
        self.candidate = arm(slot, named, slow_s, self._on_harm, callers, late_s)
        self._seen = self.told()
        self._evidence = Evidence()

    def takes(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the candidate is to answer."""
        if self.weight == 0 or self.tripped:
            return False
        key = headers.get(self._sticky) if self._sticky is not None else None
        if key is None:
            key = headers.get(b"x-request-id")
        if key is None:
            key = self._ids.next().encode()
        return choose(key, self._salt, self.weight)

    def _on_harm(self) -> None:
        """The candidate gave a bad answer, or a late one: is it worse than stable?"""
        if self.tripped or not (self.candidate.is_counted and self.stable.is_counted):
            return
        now = self.told()
        self._evidence = observe(self._evidence, Tick.of(0.0, [now.since(self._seen)]), self._policy)
        self._seen = now
        if assess(self._evidence, self._policy).verdict is Verdict.FAILED:
            self.tripped = True
            self._slot.set(Head.TRIPPED, self._rollout)

    def told(self) -> Counts:
        """All that both arms have counted, by this slot's processes ever."""
        return both_arms(self.candidate.told(), self.stable.told())


def arm_series(labels: Mapping[str, str]) -> list[dict[str, str]]:
    """The labels of all that is counted of an arm, in the order of `Arm.told`."""
    requests = [{**labels, "name": ARMS, "outcome": outcome} for outcome in ("good", "bad")]
    return [*requests, {**labels, "name": LATE}, *caller_series(labels)]


def both_arms(candidate: Sequence[int], stable: Sequence[int]) -> Counts:
    """What both arms have told."""
    found: dict[str, int] = {}
    for arm, told in (("candidate", candidate), ("stable", stable)):
        good, bad, late, repeats, bad_repeats, heaviest, timed_repeats, late_repeats = told
        found |= {arm: good + bad, f"{arm}_bad": bad, f"{arm}_heaviest": heaviest, f"{arm}_late": late}
        found |= {f"{arm}_repeats": repeats + bad_repeats, f"{arm}_bad_repeats": bad_repeats}
        found |= {f"{arm}_timed_repeats": timed_repeats, f"{arm}_late_repeats": late_repeats}
    return Counts(**found)
