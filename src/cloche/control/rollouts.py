"""Rollouts as they are driven: what was seen goes to `rollout.machine.advance`, what follows goes to the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from cloche.control.fleet import Fleet, Sight
from cloche.core.routing import BUCKETS
from cloche.rollout.abtest import LEAST, Difference, Sums, difference, is_badly_dealt
from cloche.rollout.analysis import Assessment, Evidence, Policy, Verdict, assess, observe
from cloche.rollout.counts import Counts, Tick
from cloche.rollout.machine import HELD, Command, Phase, Rollout, Seen, advance, weight
from cloche.rollout.shadow import Tally, add, describe
from cloche.rollout.strategy import Strategy
from cloche.serving.metered import UNITS
from cloche.store.database import Store
from cloche.store.deployments import DeploymentRow, Deployments, RolloutRow
from cloche.store.events import PAGE
from cloche.store.machines import Lease

#: In the history, who did what nobody asked for.
CLOCHE = "cloche"
#: How often what was answered is looked at.
TICK_S = 1.0
#: That an interval of an A/B trial is ever wrong.
_ALPHA = 0.05
#: Stable fails when so large a share of its answers is bad, of about that many of the last seconds.
_FAILS, _LEAST_RECENT, _HALF_LIFE_S = 0.2, 20, 5.0


class Proof(Protocol):
    """A Proof is the first load of a version, in a process that is thrown away."""

    def outcome(self) -> str | None:
        """None while it goes on, "" when all went well, else why it did not."""
        ...

    def close(self) -> None: ...


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A Plan is what a rollout of a deployment goes by: how it is judged, and what a promotion does."""

    policy: Policy
    warm_s: float
    #: The alias by which the deployment was asked for; a promotion moves it.
    alias: str | None


class Known(msgspec.Struct, frozen=True):
    """Known is the evidence of a rollout, and what each machine had seen of it by then."""

    evidence: Evidence = Evidence()
    counts: Mapping[str, Counts] = {}
    deaths: Mapping[str, int] = {}
    #: What a shadow has compared, what an A/B trial has summed (of stable, of the candidate).
    tally: Tally = Tally()
    sums: Mapping[str, tuple[Sums, Sums]] = {}
    #: What of that each machine had told by then: it begins anew when its processes, or its board, do.
    told_tallies: Mapping[str, Mapping[str, Tally]] = {}
    told_sums: Mapping[str, Mapping[str, tuple[Sums, Sums]]] = {}
    #: Why not all that is answered is counted, where it isn't.
    uncounted: str | None = None


class Passage:
    """A Passage is one rollout that is driven by this process."""

    def __init__(self, row: RolloutRow, proof: Proof | None) -> None:
        self.row = row
        self.rollout = msgspec.convert(row.state, Rollout)
        self.known = Known() if row.evidence is None else msgspec.convert(row.evidence, Known)
        self.proof = proof
        self.ticked = float("-inf")
        self.crashed: str | None = None
        #: Stable's requests and bad answers, those of long ago counting little.
        self.recent = (0.0, 0.0)
        #: What each machine sees of it, at the last look.
        self.sights: Mapping[str, Sight] = {}


class Rollouts:
    """A Rollouts drives every rollout of this machine's deployments; call `turn` several times a second.

    `plan` says how a deployment's is judged, `prove` begins the first load of a version.
    """

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        *,
        lease: Lease | None,
        plan: Callable[[DeploymentRow], Plan],
        prove: Callable[[DeploymentRow, int], Proof],
    ) -> None:
        self._store = store
        self._deployments = Deployments(store, lease)
        self._fleet = fleet
        self._plan = plan
        self._prove = prove
        self._passages: dict[int, Passage] = {}

    def turn(self, rows: Mapping[str, DeploymentRow]) -> None:
        """Take every rollout on as far as it can go by now."""
        under_way = {row.rollout: row for row in rows.values() if row.rollout is not None}
        for number in [number for number in self._passages if number not in under_way]:
            self._drop(number)
        for number, row in under_way.items():
            self._go_on(number, row)

    def close(self) -> None:
        """Leave them as they are; whoever leads next goes on from what is written down."""
        for number in list(self._passages):
            self._drop(number)

    def _drop(self, number: int) -> None:
        passage = self._passages.pop(number)
        if passage.proof is not None:
            passage.proof.close()

    def _go_on(self, number: int, row: DeploymentRow) -> None:
        passage = self._passages.get(number)
        if passage is None:
            stored = self._deployments.rollout(number)
            proof = self._prove(row, stored.candidate) if row.candidate is None else None
            passage = self._passages[number] = Passage(stored, proof)
        plan = self._plan(row)
        now = self._store.now()
        ticks = now - passage.ticked >= TICK_S
        trips = self._fleet.has_tripped(number)
        is_ready = row.candidate is not None and self._fleet.are_at(row.revision)
        # before it gets any traffic it is known whether that can be counted
        begins = is_ready and passage.rollout.phase is Phase.LOADING
        if ticks or trips or begins:
            passage.sights = self._fleet.sights(row, passage.row)
            self._observe(passage, plan, now)
        broken = self._broken(passage, row)
        stored = self._deployments.rollout(number)
        seen = Seen(
            now=now,
            assessment=judge(passage.known, plan.policy),
            is_ready=is_ready,
            broken=broken,
            tripped=passage.crashed or (self._harm(passage) if trips else None),
            command=None if stored.command is None else Command(stored.command),
            stable_fails=_fails(passage, plan.policy),
            found=_found(passage.rollout.strategy, passage.known),
        )
        fresh = advance(passage.rollout, seen)
        self._settle(passage, row, stored, fresh, plan, seen)

    def _observe(self, passage: Passage, plan: Plan, now: float) -> None:
        """Take in what was answered since the last look."""
        row, known = passage.row, passage.known
        seconds = max(0.0, min(now - passage.ticked, 10 * TICK_S))
        passage.ticked = now
        fresh = [
            sight.counts.since(known.counts[name])
            for name, sight in passage.sights.items()
            if name in known.counts  # of one that is new, what it had counted before is not of this rollout
        ]
        # a second in which nobody asked the candidate says nothing of how long it takes to know it
        tick = Tick.of(seconds if any(one.candidate for one in fresh) else 0.0, fresh)
        passage.recent = _decayed(passage.recent, seconds, tick)
        evidence = observe(known.evidence, tick, plan.policy)
        deaths = {name: sight.deaths for name, sight in passage.sights.items()}
        if any(count > known.deaths.get(name, count) for name, count in deaths.items()):
            passage.crashed = f"a process ended while it ran {row.model}:{row.candidate}"
        counts = {name: sight.counts for name, sight in passage.sights.items()}
        passage.known = Known(
            evidence,
            {**known.counts, **counts},
            {**known.deaths, **deaths},
            *_trials(known, passage.sights),
            uncounted=next((sight.uncounted for sight in passage.sights.values() if sight.uncounted), None),
        )

    def _broken(self, passage: Passage, row: DeploymentRow) -> str | None:
        """Why the candidate can't be loaded; where its first load went well, it is let into the workers."""
        if passage.proof is not None:
            outcome = passage.proof.outcome()
            if outcome is None:
                return None
            passage.proof.close()
            passage.proof = None
            if outcome:
                return outcome
            self._deployments.admit(row.name, passage.row.id)
            return None
        return next((sight.trouble for sight in passage.sights.values() if sight.trouble), None)

    def _harm(self, passage: Passage) -> str:
        row, evidence = passage.row, passage.known.evidence
        words = f"{row.model}:{row.candidate} harms: {_arms(row, evidence)}"
        late = f"{evidence.candidate_late:,} took longer than nearly all used to, {evidence.stable_late:,} there"
        if evidence.candidate_late > evidence.candidate_bad:
            words = f"{words}; {late}"
        usual = next((sight.usual_error for sight in passage.sights.values() if sight.usual_error), None)
        return words if usual is None else f"{words}; most often: {usual}"

    def _settle(
        self, passage: Passage, row: DeploymentRow, stored: RolloutRow, fresh: Rollout, plan: Plan, seen: Seen
    ) -> None:
        who = stored.commander if stored.command is not None and stored.commander else CLOCHE
        if fresh.is_over:
            self._keep(passage, fresh, stored)
            self._end(passage, row.name, who, plan, seen)
            return
        self._move(passage, row, who, fresh, seen.now)
        if fresh != passage.rollout or stored.command is not None or passage.ticked == seen.now:
            self._keep(passage, fresh, stored)

    def _end(self, passage: Passage, name: str, who: str, plan: Plan, seen: Seen) -> None:
        rollout, number = passage.rollout, passage.row.id
        if rollout.phase is Phase.SUCCEEDED:
            why = f"{rollout.why}: {_arms(passage.row, passage.known.evidence)}"
            self._deployments.promote(name, number, who, why, alias=plan.alias, warm_s=plan.warm_s)
        elif rollout.phase is Phase.REPORTED:
            why = f"{rollout.why}: {describe_trial(rollout.strategy, passage.known)}"
            self._deployments.abort(name, number, CLOCHE, why, block=False, how="reported")
        else:
            by_hand = seen.command is Command.ABORT
            why = self._harm(passage) if rollout.why == seen.assessment.why else rollout.why
            self._deployments.abort(name, number, who if by_hand else CLOCHE, why, block=rollout.harmed)

    def _move(self, passage: Passage, row: DeploymentRow, who: str, fresh: Rollout, now: float) -> None:
        number, old, candidate = passage.row.id, passage.rollout, passage.row.candidate
        share = weight(fresh, now)
        moved = fresh.phase is not old.phase or fresh.step != old.step
        if row.candidate is not None and (share != row.weight or moved):
            self._deployments.shift(row.name, number, share, who, _step(fresh) if moved else None)
        if fresh.why.startswith(HELD) and not old.why.startswith(HELD):
            for action in ("held", PAGE):
                self._deployments.note(row.name, number, CLOCHE, action, candidate, fresh.why)
        elif fresh.paused != old.paused:
            action = "paused" if fresh.paused else "resumed"
            self._deployments.note(row.name, number, who, action, candidate, fresh.why)

    def _keep(self, passage: Passage, fresh: Rollout, stored: RolloutRow) -> None:
        passage.rollout = fresh
        state: Any = msgspec.to_builtins(fresh)
        self._deployments.keep(stored.id, state, msgspec.to_builtins(passage.known), stored.command)


def judge(known: Known, policy: Policy) -> Assessment:
    """What is known says by now; harm that was seen is harm, though not all was counted."""
    said = assess(known.evidence, policy)
    if known.uncounted is None or said.verdict is Verdict.FAILED:
        return said
    return Assessment(verdict=Verdict.ERROR, why=known.uncounted)


def _decayed(recent: tuple[float, float], seconds: float, tick: Tick) -> tuple[float, float]:
    left = 0.5 ** (seconds / _HALF_LIFE_S)
    return recent[0] * left + tick.stable, recent[1] * left + tick.stable_bad - tick.stable_heaviest


def _fails(passage: Passage, policy: Policy) -> str | None:
    """How badly the stable version fails just now, where it clearly does more than it may."""
    asked, bad = passage.recent
    if asked < _LEAST_RECENT or policy.objective is None or bad / asked <= max(2 * policy.objective, _FAILS):
        return None
    return f"{bad / asked:.0%} of the answers of {passage.row.model}:{passage.row.stable} are bad"


def describe_trial(strategy: Strategy, known: Known) -> str:
    """What a trial has found out, in words."""
    if strategy.trial == "shadow":
        return describe(known.tally)
    why_not = doubt(strategy, known)
    if why_not is not None:
        return why_not
    words = [_sentence(metric, one) for metric, one in differences(known).items()]
    return "; ".join(words) or f"fewer than {LEAST} answers in one of the arms: nothing can be said"


def doubt(strategy: Strategy, known: Known) -> str | None:
    """Why nothing can be concluded from an A/B trial, whatever its metrics say."""
    dealt = known.sums.get(UNITS)
    if dealt is None:
        return None
    # a caller that goes to several machines is dealt by each, and always alike
    stable, candidate = (one.n // max(1, len(known.told_sums)) for one in dealt)
    if min(stable, candidate) < LEAST:
        return f"fewer than {LEAST} callers in one of the arms: nothing can be said"
    share = strategy.steps[0].weight / BUCKETS
    if is_badly_dealt(candidate, stable, share):
        real = f"{candidate:,} of {candidate + stable:,}, {candidate / (candidate + stable):.1%}"
        return f"the candidate was dealt {real} of the callers, not {share:.1%}: nothing can be concluded"
    return None


def differences(known: Known) -> dict[str, Difference]:
    """By metric how the candidate differs from stable; those together are wrong with a chance of 5 % at most.

    They are to be believed where there is no `doubt`.
    """
    seen = known.evidence
    errors = (
        Sums.of_share(seen.stable_bad, seen.stable),
        Sums.of_share(seen.candidate_bad, seen.candidate),
    )
    metrics = {"errors": errors, **{name: arms for name, arms in known.sums.items() if name != UNITS}}
    found = {name: difference(*arms, _ALPHA / len(metrics)) for name, arms in metrics.items()}
    return {name: one for name, one in found.items() if one is not None}


def _found(strategy: Strategy, known: Known) -> str | None:
    """What an A/B trial was to find out, once it is clear."""
    if strategy.trial != "ab" or not strategy.metric or doubt(strategy, known) is not None:
        return None
    one = differences(known).get(strategy.metric)
    return f"{strategy.metric} differ clearly" if one is not None and one.is_clear else None


def _sentence(metric: str, one: Difference) -> str:
    scale, unit = {"errors": (100, " pp"), "latency": (1000, " ms"), "score": (1, "")}[metric]
    effect, low, high = (f"{scale * value:+.3g}" for value in (one.effect, one.low, one.high))
    clear = "" if one.is_clear else ", which may be nothing"
    return f"{metric} {effect}{unit} ({low} to {high}){clear}"


def _trials(known: Known, sights: Mapping[str, Sight]) -> tuple[Any, Any, Any, Any]:
    """What a trial knows with what came on top on each machine; what one has lost meanwhile stays."""
    tally, sums = known.tally, dict(known.sums)
    for name, sight in sights.items():
        told_tallies = known.told_tallies.get(name, {})
        tally = add(
            [tally, *(one.since(told_tallies.get(worker, Tally())) for worker, one in sight.tallies.items())]
        )
        before = known.told_sums.get(name, {})
        for metric, arms in sight.sums.items():
            held, told = sums.get(metric, (Sums(), Sums())), before.get(metric, (Sums(), Sums()))
            stable, candidate = (one.plus(arm.since(old)) for one, arm, old in zip(held, arms, told, strict=True))
            sums[metric] = stable, candidate
    tallies = {**known.told_tallies, **{name: sight.tallies for name, sight in sights.items()}}
    return tally, sums, tallies, {**known.told_sums, **{name: sight.sums for name, sight in sights.items()}}


def begin(
    deployments: Deployments, name: str, version: int, strategy: Strategy, now: float, who: str, why: str
) -> int:
    """Begin a rollout and return its number. Raises as `Deployments.begin`."""
    steps = " → ".join(f"{step.weight / 100:g} %" for step in strategy.steps)
    plan: Any = msgspec.to_builtins(Rollout(strategy=strategy, entered=now))
    words = f"{strategy.name}: {steps}"
    return deployments.begin(name, version, plan, who, f"{words}; {why}" if why else words)


def _step(rollout: Rollout) -> str:
    share = rollout.strategy.steps[rollout.step].weight / 100
    goal = f"on to {share:g} %" if rollout.phase is Phase.STEPPING else f"{rollout.phase.value} at {share:g} %"
    return f"{goal}: {rollout.why}"


def _arms(row: RolloutRow, evidence: Evidence) -> str:
    """`6 of 21 requests to fraud:4 went wrong, 0 of 402 to fraud:3 in the same time`."""
    mine = (
        f"{evidence.candidate_bad:,} of {evidence.candidate:,} requests to {row.model}:{row.candidate} went wrong"
    )
    theirs = f"{evidence.stable_bad:,} of {evidence.stable:,} to {row.model}:{row.stable} in the same time"
    return f"{mine}, {theirs}"
