"""The passage from stable to candidate: a table of moves, and what holds of any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.core.errors import ConfigError
from cloche.core.routing import BUCKETS
from cloche.rollout.analysis import Assessment, Verdict
from cloche.rollout.machine import Command, Phase, Rollout, Seen, advance, weight
from cloche.rollout.strategy import Step, Strategy, ab, blue_green, canary, now, parse_steps

GOOD = Assessment(verdict=Verdict.SUCCESSFUL, why="not worse")
BAD = Assessment(verdict=Verdict.FAILED, why="worse than stable")
BLIND = Assessment(verdict=Verdict.ERROR, why="no room left to count in")
LITTLE = Assessment(verdict=Verdict.INCONCLUSIVE, why="too little seen")
WARM = "every worker has it warm"
CANARY = Strategy(name="canary", steps=(Step(500, 600), Step(5_000, 600), Step(BUCKETS)), ramp_s=10, bake_s=60)


def at(phase: Phase, step: int = 0, *, paused: bool = False, strategy: Strategy = CANARY) -> Rollout:
    return Rollout(strategy=strategy, entered=1_000, phase=phase, step=step, paused=paused)


def seen(after_s: float, assessment: Assessment = LITTLE, **more: object) -> Seen:
    return Seen(now=1_000 + after_s, assessment=assessment, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rollout", "what", "phase", "step", "why"),
    [
        (at(Phase.LOADING), seen(99), Phase.LOADING, 0, None),
        (at(Phase.LOADING), seen(1, is_ready=True), Phase.STEPPING, 0, "every worker has it warm"),
        (at(Phase.LOADING), seen(1, broken="worker 1: no memory"), Phase.ABORTED, 0, "worker 1: no memory"),
        (at(Phase.LOADING, paused=True), seen(1, is_ready=True), Phase.LOADING, 0, None),
        (at(Phase.STEPPING), seen(609, GOOD), Phase.STEPPING, 0, None),
        (at(Phase.STEPPING), seen(610, LITTLE), Phase.STEPPING, 0, None),
        (at(Phase.STEPPING), seen(1e6, LITTLE), Phase.STEPPING, 0, None),
        (at(Phase.STEPPING), seen(610, GOOD), Phase.STEPPING, 1, "not worse"),
        (at(Phase.STEPPING, paused=True), seen(610, GOOD), Phase.STEPPING, 0, None),
        (at(Phase.STEPPING, paused=True), seen(1, BAD), Phase.ABORTED, 0, "worse than stable"),
        (at(Phase.STEPPING), seen(1, tripped="worker 2: 4 of 4 bad"), Phase.ABORTED, 0, "worker 2: 4 of 4 bad"),
        (at(Phase.STEPPING), seen(1, command=Command.ABORT), Phase.ABORTED, 0, "aborted by hand"),
        (at(Phase.STEPPING), seen(1, command=Command.PROMOTE), Phase.STEPPING, 2, "promoted by hand"),
        (at(Phase.STEPPING), seen(1, BAD, command=Command.PROMOTE), Phase.ABORTED, 0, "worse than stable"),
        (at(Phase.STEPPING, 2), seen(10), Phase.BAKING, 2, "it has all of the traffic"),
        (at(Phase.BAKING, 2), seen(59), Phase.BAKING, 2, None),
        (at(Phase.BAKING, 2), seen(60), Phase.SUCCEEDED, 2, "nothing was seen against it"),
        (
            at(Phase.STEPPING, 2, paused=True),
            seen(1, command=Command.PROMOTE),
            Phase.SUCCEEDED,
            2,
            "promoted by hand",
        ),
        (at(Phase.LOADING), seen(1, is_ready=True, command=Command.PROMOTE), Phase.LOADING, 0, None),
        (at(Phase.BAKING, 2), seen(1, command=Command.PROMOTE), Phase.SUCCEEDED, 2, "promoted by hand"),
        (at(Phase.STEPPING), seen(300, command=Command.RESUME), Phase.STEPPING, 0, None),
        (at(Phase.STEPPING, paused=True), seen(300, command=Command.PAUSE), Phase.STEPPING, 0, None),
        (at(Phase.BAKING, 2), seen(1, BAD), Phase.ABORTED, 2, "worse than stable"),
        # what can't be measured stays where it is, unless somebody has a word in it
        (
            at(Phase.LOADING, strategy=now()),
            seen(1, BLIND, is_ready=True),
            Phase.STEPPING,
            0,
            WARM,
        ),
        (at(Phase.STEPPING), seen(1, BLIND, tripped="4 of 4 bad"), Phase.ABORTED, 0, "4 of 4 bad"),
        (at(Phase.STEPPING), seen(610, BLIND, command=Command.PROMOTE), Phase.STEPPING, 2, "promoted by hand"),
        (at(Phase.SUCCEEDED, 2), seen(1, BAD, command=Command.ABORT), Phase.SUCCEEDED, 2, None),
        (at(Phase.ABORTED, 1), seen(1e6, GOOD, is_ready=True, command=Command.PROMOTE), Phase.ABORTED, 1, None),
    ],
)
def test_moves(rollout: Rollout, what: Seen, phase: Phase, step: int, why: str | None) -> None:
    after = advance(rollout, what)
    assert (after.phase, after.step) == (phase, step)
    if why is None:
        assert after is rollout
    else:
        assert (after.why, after.entered) == (why, what.now)


@pytest.mark.parametrize(
    "rollout",
    [
        at(Phase.LOADING),
        at(Phase.STEPPING),
        at(Phase.STEPPING, 2),
        at(Phase.BAKING, 2),
        at(Phase.LOADING, strategy=ab()),
    ],
)
def test_what_can_not_be_measured_is_held_and_goes_on_once_it_can(rollout: Rollout) -> None:
    held = advance(rollout, seen(1e6, BLIND, is_ready=True))
    assert (held.phase, held.step, held.why) == (rollout.phase, rollout.step, "held: no room left to count in")
    assert advance(held, seen(1e6 + 1, BLIND, is_ready=True)) == held
    after = advance(held, seen(1e6 + 2, GOOD, is_ready=True))
    assert (after.phase, after.step) != (held.phase, held.step)
    quiet = advance(held, seen(0, LITTLE))
    assert rollout.phase is Phase.LOADING or quiet.why == "it can be measured again"


def test_a_trial_that_can_not_be_measured_any_more_ends_by_its_time() -> None:
    trial = ab("50% for 1h")
    assert advance(at(Phase.STEPPING, strategy=trial), seen(3_601, BLIND)).phase is Phase.REPORTED


def test_who_resumes_waits_as_long_again() -> None:
    paused = advance(at(Phase.STEPPING), seen(300, command=Command.PAUSE))
    assert paused.paused
    resumed = advance(paused, seen(5_000, GOOD, command=Command.RESUME))
    assert not resumed.paused
    assert advance(resumed, seen(5_599, GOOD)) is resumed
    assert advance(resumed, seen(5_600, GOOD)).step == 1


def test_weights_grow_in_a_ramp_from_half_a_percent() -> None:
    first, second = at(Phase.STEPPING, 0), at(Phase.STEPPING, 1)
    assert [weight(first, 1_000 + second) for second in (0, 1, 5, 10, 99)] == [50, 95, 275, 500, 500]
    assert [weight(second, 1_000 + passed) for passed in (0, 5, 10)] == [500, 2_750, 5_000]
    assert weight(at(Phase.LOADING), 1e9) == weight(at(Phase.ABORTED, 2), 1e9) == 0
    assert weight(at(Phase.BAKING, 2), 1_000) == weight(at(Phase.SUCCEEDED, 2), 1_000) == BUCKETS


def test_blue_green_flips_once_and_bakes() -> None:
    flipped = advance(at(Phase.LOADING, strategy=blue_green()), seen(1, is_ready=True))
    assert weight(flipped, flipped.entered) == BUCKETS
    assert advance(flipped, seen(1.1)).phase is Phase.BAKING


def test_now_is_over_as_soon_as_it_is_warm() -> None:
    rollout = at(Phase.LOADING, strategy=now())
    for _ in range(3):
        rollout = advance(rollout, seen(1, is_ready=True))
    assert rollout.phase is Phase.SUCCEEDED


LOOKS = st.tuples(
    st.floats(0, 1_000),
    st.sampled_from([GOOD, LITTLE, BAD]),
    st.booleans(),
    st.sampled_from([None, *Command]),
    st.sampled_from([None, "it tripped"]),
)


@given(st.lists(LOOKS, max_size=30), st.sampled_from([CANARY, blue_green(), now(), canary()]))
def test_whatever_is_seen(
    looks: list[tuple[float, Assessment, bool, Command | None, str | None]], strategy: Strategy
) -> None:
    """No traffic before it is warm, more only by verdict or by hand, none once it harms; the end is the end."""
    rollout, time, shared = at(Phase.LOADING, strategy=strategy), 1_000.0, 0
    for passed, assessment, is_ready, command, tripped in looks:
        time += passed
        before = rollout
        what = Seen(now=time, assessment=assessment, is_ready=is_ready, command=command, tripped=tripped)
        rollout = advance(before, what)
        share = weight(rollout, time)
        assert 0 <= share <= BUCKETS
        assert share >= shared or rollout.phase is Phase.ABORTED, "somebody would flip back"
        shared = share
        if before.is_over:
            assert rollout is before
        elif before.phase is Phase.LOADING and not is_ready:
            assert share == 0
        elif tripped or command is Command.ABORT:
            assert (rollout.phase, share) == (Phase.ABORTED, 0)
        elif rollout.step > before.step and strategy.judged:
            assert assessment is GOOD or command is Command.PROMOTE


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([], "0 steps"),
        (["5% for 10m", "50%"], "don't grow"),
        (["50%", "5%", "100%"], "don't grow"),
        (["0%", "100%"], "don't grow"),
        (["5% for a while", "100%"], "is not a step"),
        (["5% for 10", "100%"], "not a duration"),
        (["5", "100%"], "'5' is not a step"),
        (["101%"], "is not a step"),
        (["100%"] * 21, "21 steps"),
    ],
)
def test_steps_that_can_not_be(texts: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_steps(texts)


def test_steps_as_people_write_them() -> None:
    assert parse_steps(["0.5% for 90s", " 5 % for 10m", "100%"]) == (
        Step(50, 90.0),
        Step(500, 600.0),
        Step(BUCKETS),
    )
    assert canary().steps == (Step(500, 600.0), Step(5_000, 600.0), Step(BUCKETS))


@pytest.mark.parametrize(
    ("phase", "what", "harmed"),
    [
        (Phase.STEPPING, seen(1, BAD), True),
        (Phase.STEPPING, seen(1, tripped="a process ended"), True),
        (Phase.LOADING, seen(1, tripped="a process ended"), True),
        (Phase.STEPPING, seen(1, BAD, command=Command.ABORT), False),
        (Phase.LOADING, seen(1, broken="no memory"), False),
        (Phase.STEPPING, seen(1, stable_fails="60% are bad"), False),
    ],
)
def test_what_it_was_given_up_for_is_written_down_with_it(phase: Phase, what: Seen, harmed: bool) -> None:
    after = advance(at(phase), what)
    assert (after.phase, after.harmed) == (Phase.ABORTED, harmed)
