"""What both arms of a rollout were asked, and what became of it, as plain numbers that add up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

#: Of the candidate how many and how many of them bad, or late, and the same of stable.
Arms: TypeAlias = tuple[int, int, int, int]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts are what was answered by both arms of a rollout, by version as it had been assigned.

    Answers out of the cache and refusals of what callers sent (4xx) are in neither arm. Bad are errors, time-outs,
    invalid outputs, and answers slower than the objective. Repeats are, of these, what says nothing new of a
    caller that can be told from others; `heaviest` are the bad answers beyond the first of who had most of them.
    Late are answers that took longer than nearly all of stable's used to, good or bad.
    """

    candidate: int = 0
    candidate_bad: int = 0
    stable: int = 0
    stable_bad: int = 0
    candidate_repeats: int = 0
    candidate_bad_repeats: int = 0
    stable_repeats: int = 0
    stable_bad_repeats: int = 0
    candidate_heaviest: int = 0
    stable_heaviest: int = 0
    candidate_late: int = 0
    stable_late: int = 0
    #: Repeats for who asks what is late: who was late once is told apart from who was bad once.
    candidate_timed_repeats: int = 0
    candidate_late_repeats: int = 0
    stable_timed_repeats: int = 0
    stable_late_repeats: int = 0

    def since(self, before: Counts) -> Counts:
        """What came on top; all of it, where the board is a new one and counts from nothing."""
        fresh = {name: getattr(self, name) - getattr(before, name) for name in COUNTED}
        return self if min(fresh.values()) < 0 else Counts(**fresh)

    @property
    def by_caller(self) -> Arms:
        """Candidate, its bad ones, stable, its bad ones, no caller more than once."""
        return (
            self.candidate - self.candidate_repeats,
            self.candidate_bad - self.candidate_bad_repeats,
            self.stable - self.stable_repeats,
            self.stable_bad - self.stable_bad_repeats,
        )

    @property
    def late_by_caller(self) -> Arms:
        """As `by_caller`, of what is late."""
        return (
            self.candidate - self.candidate_timed_repeats,
            self.candidate_late - self.candidate_late_repeats,
            self.stable - self.stable_timed_repeats,
            self.stable_late - self.stable_late_repeats,
        )


#: The names of what is counted.
COUNTED = Counts.__struct_fields__


class Tick(Counts, frozen=True, kw_only=True):
    """A Tick is what was answered in a slice of time."""

    seconds: float

    @classmethod
    def of(cls, seconds: float, several: Sequence[Counts]) -> Tick:
        """What several processes, or machines, answered in the same time."""
        return cls(seconds=seconds, **{name: sum(getattr(one, name) for one in several) for name in COUNTED})
