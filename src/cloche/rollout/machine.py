"""The passage from stable to candidate, as a pure function: what was seen, and where that leads."""

from __future__ import annotations

from enum import Enum

import msgspec

from cloche.core.routing import BUCKETS
from cloche.rollout.analysis import Assessment, Verdict
from cloche.rollout.strategy import Strategy

#: The first weight of a ramp, in hundredths of a percent: what fails always is seen there.
_FIRST = 50
_SUBSTEPS = 10
#: What `why` begins with while a rollout is held.
HELD = "held: "


class Phase(Enum):
    """A Phase is where a rollout is; it ends as SUCCEEDED, ABORTED or (a trial) REPORTED and stays so."""

    LOADING = "loading"
    STEPPING = "stepping"
    BAKING = "baking"
    SUCCEEDED = "succeeded"
    ABORTED = "aborted"
    REPORTED = "reported"


class Command(Enum):
    """A Command is what a person, or an alert, wants of a rollout."""

    PROMOTE = "promote"
    ABORT = "abort"
    PAUSE = "pause"
    RESUME = "resume"


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A Rollout is one passage; `entered` is when it came to this step, by the clock that `advance` is given."""

    strategy: Strategy
    entered: float
    phase: Phase = Phase.LOADING
    step: int = 0
    paused: bool = False
    #: It was given up for what the candidate did, not by hand or before it had traffic.
    harmed: bool = False
    #: Why it came to where it is, in words.
    why: str = "waiting for every worker to load the candidate"

    @property
    def is_over(self) -> bool:
        return self.phase in (Phase.SUCCEEDED, Phase.ABORTED, Phase.REPORTED)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Seen is what is known of a rollout at one moment, `now` (seconds)."""

    now: float
    assessment: Assessment
    #: Every live worker has the candidate warm.
    is_ready: bool = False
    #: Why a worker can't load it, where one can't.
    broken: str | None = None
    #: Why a worker has taken its traffic off it, where one has.
    tripped: str | None = None
    command: Command | None = None
    #: How badly stable fails by itself just now, where it does.
    stable_fails: str | None = None
    #: What a trial has found out, once it has.
    found: str | None = None


def advance(rollout: Rollout, seen: Seen) -> Rollout:
    """Where the rollout is after what was seen; the same where nothing follows from it.

    What harms is taken off first, whoever wanted what: a guard that fires ends a paused rollout too.
    """
    if rollout.is_over:
        return rollout
    harm = _harm(rollout, seen)
    if harm is not None:
        given_up = _enter(rollout, seen, Phase.ABORTED, rollout.step, harm)
        # written down with the decision: who takes over from a process that dies now has not seen what it saw
        return msgspec.structs.replace(given_up, harmed=_is_its_doing(seen))
    if seen.command is not None:
        return _obey(rollout, seen, seen.command)
    if rollout.paused:
        return rollout
    last = len(rollout.strategy.steps) - 1
    held = _held(rollout, seen)
    if held is not None:
        return msgspec.structs.replace(rollout, why=f"{HELD}{held}")
    if rollout.phase is not Phase.LOADING and rollout.why.startswith(HELD):
        rollout = msgspec.structs.replace(rollout, why="it can be measured again")
    if rollout.phase is Phase.LOADING:
        return _enter(rollout, seen, Phase.STEPPING, 0, "every worker has it warm") if seen.is_ready else rollout
    if rollout.strategy.trial and seen.found is not None:
        return _enter(rollout, seen, Phase.REPORTED, rollout.step, seen.found)
    if not _is_due(rollout, seen):
        return rollout
    if rollout.strategy.trial:
        return _enter(rollout, seen, Phase.REPORTED, rollout.step, "its time is over")
    if rollout.phase is Phase.BAKING:
        return _enter(rollout, seen, Phase.SUCCEEDED, last, "nothing was seen against it")
    if rollout.step == last:
        return _enter(rollout, seen, Phase.BAKING, last, "it has all of the traffic")
    if rollout.strategy.judged and seen.assessment.verdict is not Verdict.SUCCESSFUL:
        return rollout
    return _enter(rollout, seen, Phase.STEPPING, rollout.step + 1, seen.assessment.why)


def _obey(rollout: Rollout, seen: Seen, command: Command) -> Rollout:
    """What a person wants, where it makes a difference; nothing is promoted before it is warm."""
    if command is Command.PAUSE and not rollout.paused:
        return msgspec.structs.replace(rollout, paused=True, why="paused by hand")
    if command is Command.RESUME and rollout.paused:
        # it stays as long again at its step, past the ramp: the weight never goes back
        entered = seen.now - rollout.strategy.ramp_s
        return msgspec.structs.replace(rollout, paused=False, entered=entered, why="resumed by hand")
    if command is Command.PROMOTE and rollout.phase is not Phase.LOADING:
        last = len(rollout.strategy.steps) - 1
        phase = Phase.STEPPING if rollout.step < last else Phase.SUCCEEDED
        return _enter(rollout, seen, phase, last, "promoted by hand")
    return rollout


def weight(rollout: Rollout, now: float) -> int:
    """The candidate's share of the traffic at a moment, in hundredths of a percent; it falls by an abort only.

    A ramp that has begun is finished while a rollout is paused.
    """
    if rollout.phase in (Phase.LOADING, Phase.ABORTED, Phase.REPORTED):
        return 0
    if rollout.phase in (Phase.BAKING, Phase.SUCCEEDED):
        return BUCKETS
    steps, ramp_s = rollout.strategy.steps, rollout.strategy.ramp_s
    goal = steps[rollout.step].weight
    before = steps[rollout.step - 1].weight if rollout.step else min(_FIRST, goal)
    passed = 1.0 if ramp_s <= 0 else min(1.0, max(0.0, now - rollout.entered) / ramp_s)
    return before + (goal - before) * int(passed * _SUBSTEPS) // _SUBSTEPS


def _harm(rollout: Rollout, seen: Seen) -> str | None:
    if seen.command is Command.ABORT:
        return "aborted by hand"
    if seen.tripped is not None:
        return seen.tripped
    if seen.broken is not None and rollout.phase is Phase.LOADING:
        return seen.broken
    if seen.stable_fails is not None and rollout.phase in (Phase.STEPPING, Phase.BAKING):
        # it did not before the candidate had traffic, or that would not have begun
        return f"{seen.stable_fails} since the candidate has traffic: that goes first"
    if seen.assessment.verdict is Verdict.FAILED and rollout.phase is not Phase.LOADING:
        return seen.assessment.why
    return None


def _is_its_doing(seen: Seen) -> bool:
    by_hand = seen.command is Command.ABORT
    return not by_hand and (seen.tripped is not None or seen.assessment.verdict is Verdict.FAILED)


def _held(rollout: Rollout, seen: Seen) -> str | None:
    """Why it is to stay where it is, though nothing speaks against the candidate."""
    if rollout.phase is Phase.LOADING and seen.stable_fails is not None:
        return f"{seen.stable_fails}, and it is not the candidate's doing"
    strategy = rollout.strategy
    # a trial that has begun ends by its time; who wants it now has not asked that it be watched
    has_to_wait = rollout.phase is Phase.LOADING or not strategy.trial
    is_watched = strategy.judged or strategy.trial or strategy.bake_s > 0
    if seen.assessment.verdict is Verdict.ERROR and has_to_wait and is_watched:
        return seen.assessment.why
    return None


def _is_due(rollout: Rollout, seen: Seen) -> bool:
    """Whether it has been at this step for as long as it must."""
    strategy = rollout.strategy
    if rollout.phase is Phase.BAKING:
        return seen.now - rollout.entered >= strategy.bake_s
    return seen.now - rollout.entered >= strategy.ramp_s + strategy.steps[rollout.step].hold_s


def _enter(rollout: Rollout, seen: Seen, phase: Phase, step: int, why: str) -> Rollout:
    return msgspec.structs.replace(rollout, phase=phase, step=step, entered=seen.now, paused=False, why=why)
