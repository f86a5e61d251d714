"""Trials: a shadow or an A/B has one step, ends with a report, and stable has all of the traffic again."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.core.errors import ConfigError
from cloche.core.routing import BUCKETS
from cloche.rollout.analysis import Assessment, Verdict
from cloche.rollout.machine import Command, Phase, Rollout, Seen, advance, weight
from cloche.rollout.strategy import (
    Metric,
    Step,
    Strategy,
    ab,
    blue_green,
    canary,
    make_strategy,
    now,
    parse_step,
    shadow,
)

GOOD = Assessment(verdict=Verdict.SUCCESSFUL, why="not worse")
BAD = Assessment(verdict=Verdict.FAILED, why="worse than stable")
LITTLE = Assessment(verdict=Verdict.INCONCLUSIVE, why="too little seen")
SHADOW, AB = shadow("20% for 1h"), ab("50% for 1d", "score")
HOUR, DAY = 3_600.0, 86_400.0


def at(strategy: Strategy, phase: Phase = Phase.STEPPING, *, paused: bool = False) -> Rollout:
    return Rollout(strategy=strategy, entered=1_000, phase=phase, paused=paused)


def seen(after_s: float, assessment: Assessment = LITTLE, **more: object) -> Seen:
    return Seen(now=1_000 + after_s, assessment=assessment, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rollout", "what", "phase", "why"),
    [
        (at(SHADOW, Phase.LOADING), seen(9 * DAY, found="it differs"), Phase.LOADING, None),
        (at(SHADOW, Phase.LOADING), seen(1, is_ready=True), Phase.STEPPING, "every worker has it warm"),
        (at(SHADOW, Phase.LOADING), seen(1, broken="no memory"), Phase.ABORTED, "no memory"),
        (at(SHADOW), seen(HOUR - 1, GOOD), Phase.STEPPING, None),
        (at(SHADOW), seen(HOUR), Phase.REPORTED, "its time is over"),
        # nothing is judged: a trial ends at its time whatever is known by then
        (at(AB), seen(DAY, LITTLE), Phase.REPORTED, "its time is over"),
        (at(AB), seen(DAY, GOOD), Phase.REPORTED, "its time is over"),
        (at(AB), seen(1, found="score differs clearly"), Phase.REPORTED, "score differs clearly"),
        (at(AB), seen(DAY, found="score differs clearly"), Phase.REPORTED, "score differs clearly"),
        # only a trial finds something out
        (at(canary()), seen(1, found="score differs clearly"), Phase.STEPPING, None),
        (at(AB, paused=True), seen(9 * DAY, found="score differs clearly"), Phase.STEPPING, None),
        (at(AB), seen(1, BAD), Phase.ABORTED, "worse than stable"),
        (at(AB, paused=True), seen(1, BAD), Phase.ABORTED, "worse than stable"),
        (at(AB), seen(DAY, BAD, found="score differs"), Phase.ABORTED, "worse than stable"),
        (at(AB), seen(1, tripped="6 of 21 bad"), Phase.ABORTED, "6 of 21 bad"),
        (at(AB), seen(1, found="score differs", command=Command.ABORT), Phase.ABORTED, "aborted by hand"),
        (at(SHADOW), seen(1, command=Command.ABORT), Phase.ABORTED, "aborted by hand"),
        # the winner is taken over at once
        (at(AB), seen(1, command=Command.PROMOTE), Phase.SUCCEEDED, "promoted by hand"),
        (at(AB, paused=True), seen(1, command=Command.PROMOTE), Phase.SUCCEEDED, "promoted by hand"),
        (at(SHADOW), seen(1, command=Command.PROMOTE), Phase.SUCCEEDED, "promoted by hand"),
        (at(AB, Phase.LOADING), seen(1, is_ready=True, command=Command.PROMOTE), Phase.LOADING, None),
        (at(AB), seen(1, BAD, command=Command.PROMOTE), Phase.ABORTED, "worse than stable"),
        # stable that fails by itself: no trial begins, one that has begun goes first
        (
            at(AB, Phase.LOADING),
            seen(1, is_ready=True, stable_fails="30% are bad"),
            Phase.LOADING,
            "held: 30% are bad, and it is not the candidate's doing",
        ),
        (
            at(SHADOW),
            seen(1, stable_fails="30% are bad"),
            Phase.ABORTED,
            "30% are bad since the candidate has traffic: that goes first",
        ),
        (at(AB, Phase.REPORTED), seen(1, stable_fails="30% are bad"), Phase.REPORTED, None),
        # what is over stays as it is
        (at(AB, Phase.REPORTED), seen(DAY, BAD, command=Command.PROMOTE), Phase.REPORTED, None),
        (at(SHADOW, Phase.REPORTED), seen(DAY, found="it differs", is_ready=True), Phase.REPORTED, None),
    ],
)
def test_moves_of_a_trial(rollout: Rollout, what: Seen, phase: Phase, why: str | None) -> None:
    after = advance(rollout, what)
    assert (after.phase, after.step) == (phase, 0)
    if why is None:
        assert after is rollout
    else:
        assert after.why == why
        # who waits goes on waiting since then
        assert after.entered == (rollout.entered if phase is Phase.LOADING else what.now)


@pytest.mark.parametrize(("strategy", "share"), [(SHADOW, 2_000), (AB, 5_000)])
def test_a_trial_has_its_share_from_the_first_moment_to_the_last_and_none_after(
    strategy: Strategy, share: int
) -> None:
    assert weight(at(strategy, Phase.LOADING), 1_000) == 0
    assert [weight(at(strategy), 1_000 + passed) for passed in (0.0, 1.0, 1e9)] == [share] * 3
    assert weight(at(strategy, paused=True), 1_000) == share
    assert weight(at(strategy, Phase.REPORTED), 1e9) == 0
    assert weight(at(strategy, Phase.ABORTED), 1e9) == 0
    assert weight(at(strategy, Phase.SUCCEEDED), 1_000) == BUCKETS


def test_a_paused_trial_goes_on_for_as_long_again() -> None:
    paused = advance(at(SHADOW), seen(HOUR / 2, command=Command.PAUSE))
    assert (paused.paused, paused.phase) == (True, Phase.STEPPING)
    resumed = advance(paused, seen(9 * HOUR, command=Command.RESUME))
    assert (resumed.paused, resumed.entered) == (False, 1_000 + 9 * HOUR)
    assert advance(resumed, seen(10 * HOUR - 1)) is resumed
    assert advance(resumed, seen(10 * HOUR)).phase is Phase.REPORTED


def test_only_an_end_is_over() -> None:
    over = {phase for phase in Phase if at(SHADOW, phase).is_over}
    assert over == {Phase.SUCCEEDED, Phase.ABORTED, Phase.REPORTED}


def test_a_trial_survives_being_written_down() -> None:
    for strategy in (SHADOW, AB):
        rollout = at(strategy, paused=True)
        assert msgspec.convert(msgspec.to_builtins(rollout), Rollout) == rollout


LOOKS = st.tuples(
    st.floats(0, 2 * DAY),
    st.sampled_from([GOOD, LITTLE, BAD]),
    st.booleans(),
    st.sampled_from([None, *Command]),
    st.sampled_from([None, "it tripped"]),
    st.sampled_from([None, "score differs clearly"]),
)
Look = tuple[float, Assessment, bool, Command | None, str | None, str | None]


@given(st.lists(LOOKS, max_size=30), st.sampled_from([SHADOW, AB]))
def test_whatever_is_seen_of_a_trial(looks: list[Look], strategy: Strategy) -> None:
    """It has its share while it runs; all of the traffic by hand only; none once it harms or is over."""
    rollout, time = at(strategy, Phase.LOADING), 1_000.0
    for passed, assessment, is_ready, command, tripped, found in looks:
        time += passed
        before = rollout
        rollout = advance(
            before,
            Seen(
                now=time,
                assessment=assessment,
                is_ready=is_ready,
                command=command,
                tripped=tripped,
                found=found,
            ),
        )
        share = weight(rollout, time)
        assert rollout.step == 0
        assert rollout.phase is not Phase.BAKING
        if before.is_over:
            assert rollout is before
        elif rollout.phase is Phase.SUCCEEDED:
            assert (command, share) == (Command.PROMOTE, BUCKETS)
        elif rollout.phase is Phase.STEPPING:
            assert share == strategy.steps[0].weight
        else:
            assert share == 0
        if tripped or command is Command.ABORT:
            assert before.is_over or rollout.phase is Phase.ABORTED


@pytest.mark.parametrize(
    ("name", "steps", "metric", "strategy"),
    [
        ("canary", (), "", canary()),
        ("canary", ("1% for 1m", "100%"), "", canary(("1% for 1m", "100%"))),
        ("blue-green", (), "", blue_green()),
        ("now", (), "", now()),
        ("shadow", (), "", shadow()),
        ("shadow", ("20% for 1h",), "", SHADOW),
        ("ab", (), "", ab()),
        ("ab", (), "errors", ab(metric="errors")),
        ("ab", ("50% for 1d",), "score", AB),
    ],
)
def test_strategies_by_name(name: str, steps: tuple[str, ...], metric: Metric, strategy: Strategy) -> None:
    assert make_strategy(name, steps, metric) == strategy
    assert strategy.name == name
    assert strategy.trial == (name if name in ("shadow", "ab") else "")
    assert strategy.judged == (name == "canary")


def test_what_a_trial_is_when_nothing_is_said() -> None:
    assert shadow().steps == (Step(1_000, HOUR),)
    assert ab().steps == (Step(5_000, 7 * DAY),)
    for strategy in (shadow(), ab()):
        assert (strategy.ramp_s, strategy.bake_s, strategy.metric) == (0.0, 0.0, "")


@pytest.mark.parametrize(
    ("name", "steps", "metric", "words", "hint"),
    [
        ("canary", (), "score", "canary compares no metric", "ab"),
        ("shadow", (), "latency", "shadow compares no metric", "ab"),
        ("ab", ("5% for 1h", "50% for 1h"), "", "ab has one step", "10% for 1h"),
        ("shadow", ("5% for 1h", "50% for 1h"), "", "shadow has one step", "10% for 1h"),
        ("shadow", ("some",), "", "'some' is not a step", "5% for 10m"),
        ("ab", ("101% for 1h",), "score", "is not a step", "5% for 10m"),
        ("canary", ("50%",), "", "don't grow", "100%"),
        ("blue-green", ("50%", "100%"), "", "blue-green has no steps", "canary"),
        ("now", ("100%",), "", "now has no steps", "canary"),
        ("yolo", (), "", "there is no strategy 'yolo'", "canary, blue-green, shadow or ab"),
        ("yolo", ("100%",), "", "has no steps", "canary"),
        ("", (), "", "there is no strategy ''", "canary"),
    ],
)
def test_strategies_that_can_not_be(
    name: str, steps: tuple[str, ...], metric: Metric, words: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make_strategy(name, steps, metric)
    assert caught.value.code == "CL-E201"
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("100%", Step(10_000)),
        ("100.00%", Step(10_000)),
        ("0.01%", Step(1)),
        ("12.34 %", Step(1_234)),
        ("33.3% for 1h", Step(3_330, HOUR)),
        ("  5%  for  10m  ", Step(500, 600.0)),
        ("5% for 90s", Step(500, 90.0)),
    ],
)
def test_a_step_as_it_is_written(text: str, step: Step) -> None:
    assert parse_step(text) == step


@pytest.mark.parametrize(
    "text",
    [
        "",
        "%",
        "5",
        "-5%",
        "5%%",
        "100.01%",
        "1e1%",
        "5.123%",
        "٥%",
        "5% for",
        "5%for10m",
        "5% for 10m 1s",
        "5% 10m",
    ],
)
def test_what_is_no_step(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a step") as caught:
        parse_step(text)
    assert (caught.value.code, caught.value.hint) == ("CL-E201", "write 5% for 10m, or 100%")


def test_a_trial_of_nobody_is_no_trial() -> None:
    """It would end with a report that nothing was compared, days later."""
    for make in (shadow, ab):
        with pytest.raises(ConfigError):
            make("0% for 1h")


def test_a_trial_needs_a_time() -> None:
    """Without one it is over at its first look."""
    for make in (shadow, ab):
        with pytest.raises(ConfigError):
            make("20%")
