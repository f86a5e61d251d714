"""The plan of a rollout: how much traffic the candidate gets, step by step, and how long it stays there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from cloche.core.errors import ConfigError
from cloche.core.routing import BUCKETS
from cloche.core.units import parse_duration, shown

_STEP = re.compile(r"\s*([0-9]{1,3}(?:\.[0-9]{1,2})?)\s*%(?:\s+for\s+(\S+))?\s*", re.ASCII)
_MOST_STEPS = 20
Metric = Literal["", "errors", "latency", "score"]


class Step(msgspec.Struct, frozen=True):
    """A Step is a weight, in hundredths of a percent, and for how many seconds it is held at least."""

    weight: int
    hold_s: float = 0.0


class Strategy(msgspec.Struct, frozen=True, kw_only=True):
    """A Strategy is a list of steps; unless it is a trial it ends with all of the traffic.

    A trial ("shadow": the candidate answers copies that nobody waits for; "ab": it answers its share, and metrics
    are compared) has one step, at whose end the stable version has all of the traffic and a report is there.

    With `judged` a step is left only when the analysis says that the candidate is no worse. Weights grow over
    `ramp_s` seconds, the first from half a percent. After the last step the candidate is watched for `bake_s`
    seconds before it is promoted.
    """

    name: str
    steps: tuple[Step, ...]
    judged: bool = True
    ramp_s: float = 10.0
    bake_s: float = 60.0
    trial: Literal["", "shadow", "ab"] = ""
    #: An A/B trial ends as soon as this metric clearly differs; "" at its end.
    metric: Metric = ""


def canary(steps: Sequence[str] = ("5% for 10m", "50% for 10m", "100%")) -> Strategy:
    """Some first, then more, then all. Raises ConfigError for steps that don't grow to 100%."""
    return Strategy(name="canary", steps=parse_steps(steps))


def blue_green() -> Strategy:
    """All at once, when the candidate is warm in every worker; the guard watches it from then on."""
    return Strategy(name="blue-green", steps=(Step(BUCKETS),), judged=False, ramp_s=0.0)


def now() -> Strategy:
    """All at once, and promoted at once."""
    return Strategy(name="now", steps=(Step(BUCKETS),), judged=False, ramp_s=0.0, bake_s=0.0)


def make_strategy(name: str, steps: Sequence[str] = (), metric: Metric = "") -> Strategy:
    """The strategy of this name; ConfigError CL-E201 for steps, or a metric, that it does not have."""
    if metric and name != "ab":
        raise ConfigError(f"{name} compares no metric", code="CL-E201", hint="leave it out, or use ab")
    if name == "canary":
        return canary(steps) if steps else canary()
    if name in ("shadow", "ab"):
        if len(steps) > 1:
            raise ConfigError(f"{name} has one step", code="CL-E201", hint="write one, such as 10% for 1h")
        if name == "shadow":
            return shadow(*steps)
        return ab(steps[0], metric) if steps else ab(metric=metric)
    if steps:
        raise ConfigError(f"{name} has no steps", code="CL-E201", hint="leave the steps out, or use canary")
    if name not in ("blue-green", "now"):
        raise ConfigError(
            f"there is no strategy {name!r}", code="CL-E201", hint="canary, blue-green, shadow or ab"
        )
    return blue_green() if name == "blue-green" else now()


def shadow(step: str = "10% for 1h") -> Strategy:
    """A share of the requests, for a while, is answered by the candidate as well, for nobody."""
    return Strategy(
        name="shadow", steps=(_trial_step(step),), judged=False, ramp_s=0.0, bake_s=0.0, trial="shadow"
    )


def ab(step: str = "50% for 7d", metric: Metric = "") -> Strategy:
    """The candidate answers a share of the callers for a while; what they get is compared."""
    return Strategy(
        name="ab", steps=(_trial_step(step),), judged=False, ramp_s=0.0, bake_s=0.0, trial="ab", metric=metric
    )


def parse_steps(texts: Sequence[str]) -> tuple[Step, ...]:
    """The steps of `["5% for 10m", "100%"]`; ConfigError CL-E201 where they can't be."""
    if not 0 < len(texts) <= _MOST_STEPS:
        raise ConfigError(
            f"{len(texts)} steps", code="CL-E201", hint=f"write 1 to {_MOST_STEPS}, such as 5% for 10m"
        )
    steps = tuple(parse_step(text) for text in texts)
    weights = [step.weight for step in steps]
    if sorted(set(weights)) != weights or weights[0] == 0 or weights[-1] != BUCKETS:
        said = ", ".join(texts)
        raise ConfigError(
            f"the steps {shown(said)} don't grow from more than nothing to 100%",
            code="CL-E201",
            hint='write steps = ["5% for 10m", "50% for 10m", "100%"]',
        )
    return steps


def _trial_step(text: str) -> Step:
    step = parse_step(text)
    if step.weight == 0 or step.hold_s == 0:
        raise ConfigError(f"{shown(text)} is no trial", code="CL-E201", hint="write 10% for 1h")
    return step


def parse_step(text: str) -> Step:
    """`5% for 10m`, or `100%`; ConfigError CL-E201 otherwise."""
    match = _STEP.fullmatch(text)
    if match is None or float(match[1]) > 100:
        raise ConfigError(f"{shown(text)} is not a step", code="CL-E201", hint="write 5% for 10m, or 100%")
    return Step(round(float(match[1]) * BUCKETS / 100), parse_duration(match[2]) if match[2] else 0.0)
