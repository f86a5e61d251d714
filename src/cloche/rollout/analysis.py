"""Is the candidate worse than stable, or good enough to go on? Pure: from counts to a verdict."""

from __future__ import annotations

import math
from enum import Enum

import msgspec

from cloche.rollout.bets import BETTER, WORSE, Bets, lower_bound

#: Of the chance to let a worse candidate pass, what is spent on stable's rate being misjudged.
_BOUND_SHARE = 0.2
#: Stable's rate is bounded anew once it has had so many times the requests: it costs a bisection.
_ANEW = 1.02


class Verdict(Enum):
    """A Verdict is what an analysis says; too little is INCONCLUSIVE, neither good nor bad."""

    SUCCESSFUL = "successful"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


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
    least_requests: int = 100
    least_s: float = 30.0


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """A Tick is what was answered in a slice of time, by version as it had been assigned.

    Answers out of the cache and refusals of what callers sent (4xx) are in neither arm. Bad are errors, time-outs,
    invalid outputs, and answers slower than the objective.
    """

    seconds: float
    candidate: int
    candidate_bad: int
    stable: int
    stable_bad: int


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence is all that was seen of a candidate, in a few numbers that do not grow with it."""

    seconds: float = 0.0
    candidate: int = 0
    candidate_bad: int = 0
    stable: int = 0
    stable_bad: int = 0
    #: Bad answers, whose: a candidate as good as stable has its share of the requests.
    against_stable: Bets = Bets.on(WORSE)
    #: What these bets know of: candidate, its bad ones, stable, its bad ones.
    compared: tuple[int, int, int, int] = (0, 0, 0, 0)
    #: Stable's share of bad answers is no lower, which was known when it had had so many requests.
    stable_at_least: float = 0.0
    bounded_at: int = 0
    #: The candidate's answers, how many are bad: no more than the objective.
    against_objective: Bets = Bets.on(WORSE)
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
    against_objective = evidence.against_objective
    if policy.objective is not None:
        against_objective = against_objective.after(tick.candidate_bad, tick.candidate, policy.objective)
    seen = msgspec.structs.replace(
        evidence,
        seconds=evidence.seconds + tick.seconds,
        candidate=evidence.candidate + tick.candidate,
        candidate_bad=evidence.candidate_bad + tick.candidate_bad,
        stable=evidence.stable + tick.stable,
        stable_bad=evidence.stable_bad + tick.stable_bad,
        against_objective=against_objective,
        for_going_on=going,
    )
    return _compared(seen)


def assess(evidence: Evidence, policy: Policy) -> Assessment:
    """What the evidence says by now; it may be asked at any time and as often as one likes."""
    guards = 1 if policy.objective is None else 2
    least = math.log(guards / policy.alpha)
    seen = f"{_share(evidence.candidate_bad, evidence.candidate)} bad of {evidence.candidate:,}"
    if evidence.against_stable.log_evidence >= least:
        beside = f"{_share(evidence.stable_bad, evidence.stable)} of {evidence.stable:,} on stable"
        return Assessment(verdict=Verdict.FAILED, why=f"worse than stable: {seen}, {beside}")
    if policy.objective is not None and evidence.against_objective.log_evidence >= least:
        return Assessment(verdict=Verdict.FAILED, why=f"over the objective of {policy.objective:.3g}: {seen}")
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


def _compared(evidence: Evidence) -> Evidence:
    """The evidence with its bets on whose the bad answers are, as soon as each arm has had a request more.

    Given how many requests each arm had, the bad ones of equal arms are drawn from them without replacement, which
    a bet gains no more from than from as many with (Hoeffding, JASA 58, 1963, theorem 4). That holds whenever one
    looks, as long as how bad the answers were has no say in it.
    """
    totals = (evidence.candidate, evidence.candidate_bad, evidence.stable, evidence.stable_bad)
    candidate, candidate_bad, stable, stable_bad = (
        total - known for total, known in zip(totals, evidence.compared, strict=True)
    )
    if not candidate or not stable:
        return evidence
    share = candidate / (candidate + stable)
    bets = evidence.against_stable.after(candidate_bad, candidate_bad + stable_bad, share)
    return msgspec.structs.replace(evidence, against_stable=bets, compared=totals)


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
