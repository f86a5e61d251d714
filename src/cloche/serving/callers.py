"""Who calls in a rollout, told apart by the sticky header: one heavy caller must not decide over a version.

Callers stay with one version, so that what goes wrong by a caller's own doing goes wrong in one arm only, again
and again. For the comparison of both arms a caller's requests therefore count once a minute, by the first of them
whatever becomes of it, and not at all any more once it was counted as bad: which arm that falls to is then chance,
as the hash has dealt the callers out. What is decided by requests (the objective) leaves the bad answers of one
caller out: those of the one that had most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from hashlib import blake2b

from cloche.core.board import Slot
from cloche.core.marks import Marks

#: Of the requests of an arm those that say nothing new of their caller; `outcome` is good or bad.
REPEATS = "cloche_rollout_repeats_total"
#: Bad answers of an arm beyond the first of the caller with most of them.
HEAVIEST = "cloche_rollout_one_caller_total"
#: As the repeats, for what is late: `outcome` is any or late.
TIMED_REPEATS = "cloche_rollout_timed_repeats_total"
_MINUTE_S = 60.0
#: So many callers are known apart at once; where more come in a minute it is cut short.
_MOST = 4096


class Callers:
    """A Callers tells the callers of one rollout apart; those bad, or late, once it shares through `failed`."""

    def __init__(
        self, header: bytes, rollout: int, failed: Marks, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.header = header
        self._salt = rollout.to_bytes(8, "big")
        self._failed = failed
        self._clock = clock
        self._until = float("-inf")
        self._arms: list[set[int]] = []

    def arm(self) -> set[int]:
        """Whom an arm has seen within the minute; it ends for all arms at once, or one would count more."""
        self._arms.append(set())
        return self._arms[-1]

    def repeats(self, seen: set[int], key: bytes, *, is_bad: bool, is_late: bool) -> tuple[bool, bool]:
        """Whether this caller has been counted: by this arm within the minute, or ever as bad; or ever as late."""
        now = self._clock()
        if now >= self._until or len(seen) >= _MOST:
            self._until = now + _MINUTE_S
            for one in self._arms:
                one.clear()
        if hash(key) in seen:
            return True, True
        seen.add(hash(key))
        # Python's own hash differs between processes
        digest = blake2b(key, digest_size=16, salt=self._salt).digest()
        return self._is_known(digest[:8], is_bad), self._is_known(digest[8:], is_late)

    def _is_known(self, digest: bytes, is_hit: bool) -> bool:
        mark = int.from_bytes(digest, "big", signed=True) or 1
        if self._failed.has(mark):
            return True
        if is_hit:
            self._failed.add(mark)
        return False


class ArmCallers:
    """An ArmCallers counts on the board what of an arm's requests is one caller's over again."""

    __slots__ = ("_bad", "_callers", "_cells", "_most", "_places", "_seen")

    def __init__(self, slot: Slot, labels: Mapping[str, str], callers: Callers) -> None:
        self._cells = slot.cells
        self._places = [slot.series(**one) for one in caller_series(labels)]
        self._callers = callers
        self._seen = callers.arm()
        self._bad: dict[int, int] = {}
        self._most = 1

    def count(self, headers: Mapping[bytes, bytes], *, is_bad: bool, is_late: bool) -> None:
        """One request was counted for the arm; one that names nobody is a caller of its own."""
        key = headers.get(self._callers.header)
        if key is None:
            return
        cells, places = self._cells, self._places
        repeats, repeats_late = self._callers.repeats(self._seen, key, is_bad=is_bad, is_late=is_late)
        if repeats:
            cells[places[is_bad]] += 1
        if repeats_late:
            cells[places[3]] += 1
            if is_late:
                cells[places[4]] += 1
        if is_bad:
            self._weigh(hash(key))

    def told(self) -> tuple[int, ...]:
        """What is counted on the board of it: see `caller_series`."""
        return tuple(self._cells[place] for place in self._places)

    def _weigh(self, caller: int) -> None:
        bad = self._bad
        count = bad[caller] = bad.get(caller, 0) + 1
        if count > self._most:
            self._most = count
            self._cells[self._places[2]] += 1
        if len(bad) > _MOST:  # the heavy ones stay
            self._bad = dict(sorted(bad.items(), key=lambda one: one[1])[_MOST // 2 :])


def caller_series(labels: Mapping[str, str]) -> list[dict[str, str]]:
    """The labels of what is counted of an arm's callers, in the order of `ArmCallers.told`."""
    return [
        {**labels, "name": REPEATS, "outcome": "good"},
        {**labels, "name": REPEATS, "outcome": "bad"},
        {**labels, "name": HEAVIEST},
        {**labels, "name": TIMED_REPEATS, "outcome": "any"},
        {**labels, "name": TIMED_REPEATS, "outcome": "late"},
    ]
