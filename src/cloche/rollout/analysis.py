"""Is the candidate worse than stable, or good enough to go on? Pure: from counts to a verdict."""

from __future__ import annotations

import math
from enum import Enum

import msgspec

from cloche.rollout.bets import BETTER, WORSE, Bets, lower_bound
from cloche.rollout.counts import COUNTED, Arms, Counts, Tick

#: Of the chance to let a worse candidate pass, what is spent on stable's rate being misjudged.
_BOUND_SHARE = 0.2
#: Late answers count against a candidate where they are more than so many times stable's and this share of all.
_TIMES_LATE, _LATE_ANYWAY = 2.0, 0.025
#: Of the chance to give up a good candidate, what is spent on that: errors are to be seen first.
_PACE_SHARE = 0.1
#: Stable's rate is bounded anew once it has had so many times the requests: it costs a bisection.
_ANEW = 1.02


class Verdict(Enum):
    """A Verdict is what an analysis says; too little is INCONCLUSIVE, neither good nor bad.

    ERROR is that nothing can be measured.
    """

    SUCCESSFUL = "successful"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A Policy is how sure an analysis must be."""

    #: The chance that a candidate as good as stable is ever given up.
    alpha: float = 0.01
    #: The chance that one worse by `margin` ever goes on.
    beta: float = 0.05
    #: How much higher than stable's its share of bad answers may be, as a share (0.005: half a percent point).
    margin: float = 0.005
    #: The share of bad answers that is allowed at all; None where nothing was said.
    objective: float | None = None
    #: Whether answers that are late for stable's own measure count; else the objective says what is slow.
    times: bool = False
    least_requests: int = 100
    least_s: float = 30.0


class Evidence(Counts, frozen=True, kw_only=True):
    """Evidence is all that was seen of a candidate, in a few numbers that do not grow with it."""

    seconds: float = 0.0
    #: Bad answers, whose: a candidate as good as stable has its share of the requests.
    against_stable: Bets = Bets.on(WORSE)
    #: What these bets know of, by caller.
    compared: Arms = (0, 0, 0, 0)
    #: Late answers, whose: the candidate may have twice as many as stable, and one in twenty.
    against_pace: Bets = Bets.on(WORSE)
    #: What these bets know of, by caller; of stable's with those that are taken for late anyway.
    timed: Arms = (0, 0, 0, 0)
    #: Stable's share of bad answers is no lower, which was known when it had had so many requests.
    stable_at_least: float = 0.0
    bounded_at: int = 0
    #: The candidate's answers, how many are bad: at least stable's share and the margin.
    for_going_on: Bets = Bets.on(BETTER)


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """An Assessment is a verdict with its reasons; `eta_s` is when it can go on if all stays as it was."""

    verdict: Verdict
    why: str
    #: The share of the evidence that is needed to go on, 0 to 1.
    progress: float = 0.0
    eta_s: float | None = None


def observe(evidence: Evidence, tick: Tick, policy: Policy) -> Evidence:
    """The evidence with one more tick."""
    # the bound is known before the tick, so that it is no bet on what has been seen
    evidence = _bounded(evidence, policy)
    worst = _worst_allowed(evidence, policy)
    going = evidence.for_going_on.after(tick.candidate_bad, tick.candidate, worst)
    totals = {name: getattr(evidence, name) + getattr(tick, name) for name in COUNTED}
    seconds = evidence.seconds + tick.seconds
    seen = _compared(msgspec.structs.replace(evidence, seconds=seconds, for_going_on=going, **totals))
    return _timed(seen) if policy.times else seen


def assess(evidence: Evidence, policy: Policy) -> Assessment:
    """What the evidence says by now; it may be asked at any time and as often as one likes."""
    pace_alpha = policy.alpha * _PACE_SHARE if policy.times else 0.0
    guards = 1 if policy.objective is None else 2
    least = math.log(guards / (policy.alpha - pace_alpha))
    seen = f"{_share(evidence.candidate_bad, evidence.candidate)} bad of {evidence.candidate:,}"
    if evidence.candidate_heaviest > evidence.candidate_bad / 2:
        seen += ", most of them one caller's"
    if evidence.against_stable.log_evidence >= least:
        beside = f"{_share(evidence.stable_bad, evidence.stable)} of {evidence.stable:,} on stable"
        return Assessment(verdict=Verdict.FAILED, why=f"worse than stable: {seen}, {beside}")
    if policy.objective is not None and _over(policy.objective, evidence) >= least:
        return Assessment(verdict=Verdict.FAILED, why=f"over the objective of {policy.objective:.3g}: {seen}")
    if policy.times and evidence.against_pace.log_evidence >= math.log(1 / pace_alpha):
        mine = f"{_share(evidence.candidate_late, evidence.candidate)} late of {evidence.candidate:,}"
        beside = f"{_share(evidence.stable_late, evidence.stable)} of {evidence.stable:,} on stable"
        return Assessment(verdict=Verdict.FAILED, why=f"slower than stable: {mine}, {beside}")
    needed = math.log(1 / (policy.beta * (1 - _BOUND_SHARE)))
    have = max(0.0, evidence.for_going_on.log_evidence)
    progress = min(1.0, have / needed)
    if evidence.candidate < policy.least_requests or evidence.seconds < policy.least_s:
        why = f"too little seen: {seen} in {evidence.seconds:.0f} s"
        return Assessment(
            verdict=Verdict.INCONCLUSIVE, why=why, progress=progress, eta_s=_eta(evidence, policy, needed)
        )
    if progress >= 1.0:
        why = f"not worse than stable by {policy.margin:.3g}: {seen}"
        return Assessment(verdict=Verdict.SUCCESSFUL, why=why, progress=1.0)
    return Assessment(
        verdict=Verdict.INCONCLUSIVE,
        why=f"{progress:.0%} of the evidence that is needed to go on: {seen}",
        progress=progress,
        eta_s=_eta(evidence, policy, needed),
    )


def _over(objective: float, evidence: Evidence) -> float:
    """The evidence that more is bad than the objective allows; not by one caller's doing."""
    bad = evidence.candidate_bad - evidence.candidate_heaviest
    return Bets.on(WORSE).after(bad, evidence.candidate, objective).log_evidence


def _compared(evidence: Evidence) -> Evidence:
    """The evidence with its bets on whose the bad answers are, as soon as each arm has had a request more.

    Given how many requests each arm had, the bad ones of equal arms are drawn from them without replacement, which
    a bet gains no more from than from as many with (Hoeffding, JASA 58, 1963, theorem 4). That holds whenever one
    looks, as long as how bad the answers were has no say in it. Of callers that stay with one arm it holds since
    each counts as bad once only: whose the next new one is has been dealt by the hash, whatever its habits are.
    """
    totals = evidence.by_caller
    bets = _bet(evidence.against_stable, evidence.compared, totals, 1.0)
    return evidence if bets is None else msgspec.structs.replace(evidence, against_stable=bets, compared=totals)


def _timed(evidence: Evidence) -> Evidence:
    """The evidence with its bets on whose the late answers are.

    Two versions that are alike do not take quite as long: a candidate does not run in the event loop, and has
    fewer requests to join. So it may have some late answers more, by as many as are counted as stable's anyway.
    """
    asked, late, stable, stable_late = evidence.late_by_caller
    totals = (asked, late, stable, stable_late + int(_LATE_ANYWAY * stable))
    bets = _bet(evidence.against_pace, evidence.timed, totals, _TIMES_LATE)
    return evidence if bets is None else msgspec.structs.replace(evidence, against_pace=bets, timed=totals)


def _bet(bets: Bets, known: Arms, totals: Arms, times: float) -> Bets | None:
    """The bets with what came on top of what they knew; None as long as that is not to be had in both arms.

    The candidate may have hits at `times` the odds that it has by its share.
    """
    candidate, hits, stable, stable_hits = (total - old for total, old in zip(totals, known, strict=True))
    # a request and that it is a repeat are counted one after the other: half of that may be seen for a moment
    if candidate <= 0 or stable <= 0 or min(hits, stable_hits) < 0:
        return None
    share = times * candidate / (times * candidate + stable)
    return bets.after(hits, hits + stable_hits, share)


def _bounded(evidence: Evidence, policy: Policy) -> Evidence:
    """The evidence with a bound, not much older, on stable's share of bad answers, as far as that is steady."""
    if evidence.stable < evidence.bounded_at * _ANEW or not evidence.stable_bad:
        return evidence
    bound = lower_bound(evidence.stable_bad, evidence.stable, policy.beta * _BOUND_SHARE)
    return msgspec.structs.replace(evidence, stable_at_least=bound, bounded_at=evidence.stable)


def _worst_allowed(evidence: Evidence, policy: Policy) -> float:
    return min(evidence.stable_at_least + policy.margin, 0.999)


def _eta(evidence: Evidence, policy: Policy, needed: float) -> float | None:
    """Seconds until there is enough to go on at the rates so far; None where that is not in sight."""
    if not evidence.candidate or not evidence.seconds:
        return None
    likely = (evidence.candidate_bad + 0.5) / (evidence.candidate + 1)
    gain = evidence.for_going_on.growth(likely, _worst_allowed(evidence, policy))
    if gain <= 0:
        return None
    per_s = evidence.candidate / evidence.seconds
    missing = max(0.0, needed - evidence.for_going_on.log_evidence) / gain / per_s
    floor = max(policy.least_s - evidence.seconds, (policy.least_requests - evidence.candidate) / per_s)
    return max(missing, floor, 0.0)


def _share(bad: int, of: int) -> str:
    return f"{bad / of:.2%}" if of else "none"
