"""A rollout as one page of HTML, without scripts: what was found out, what callers got, what happened."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import msgspec
from jinja2 import Environment, StrictUndefined

from cloche.control.rollouts import Known, describe_trial, differences, doubt
from cloche.core.errors import NotFoundError
from cloche.core.units import format_duration
from cloche.rollout.abtest import Difference
from cloche.rollout.machine import Rollout
from cloche.rollout.shadow import Tally
from cloche.store.database import Store
from cloche.store.deployments import Deployments, RolloutRow
from cloche.store.events import list_events

_MOST_WORDS = 400
_SCALES = {"errors": (100.0, " pp"), "latency": (1000.0, " ms"), "score": (1.0, "")}


def rollout_page(store: Store, deployment: str) -> str:
    """The page of a deployment's newest rollout. Raises NotFoundError CL-E302 where there was none."""
    Deployments(store).get(deployment)
    row = Deployments(store).last_rollout(deployment)
    if row is None:
        raise NotFoundError(
            f"{deployment} has had no rollout", code="CL-E302", hint=f"begin one: cloche deploy {deployment}:2"
        )
    known = Known() if row.evidence is None else msgspec.convert(row.evidence, Known)
    strategy = msgspec.convert(row.state, Rollout).strategy
    is_said = strategy.trial == "ab" and doubt(strategy, known) is None
    events = [one for one in list_events(store, deployment, most=1_000) if one.rollout == row.id]
    evidence = known.evidence
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("cloche.app").joinpath("static", "rollout.html").read_text())
    return template.render(
        row=row,
        strategy=strategy,
        outcome="under way" if row.ended is None else events[-1].action,
        began=_moment(row.started),
        ended=None if row.ended is None else _moment(row.ended),
        headline=_headline(row, events[-1].action),
        why=describe_trial(strategy, known) if strategy.trial else events[-1].why,
        arms=[
            (f"{row.model}:{row.stable}, stable", evidence.stable, evidence.stable_bad),
            (f"{row.model}:{row.candidate}, candidate", evidence.candidate, evidence.candidate_bad),
        ],
        events=[
            {"when": _moment(one.time), "action": one.action, "who": one.who, "why": one.why} for one in events
        ],
        intervals=_intervals(differences(known)) if is_said else [],
        shown=_shown,
        **_alike(known.tally),
    )


def _headline(row: RolloutRow, action: str) -> str:
    if row.ended is None:
        return "It is under way"
    said = {"promoted": "The candidate was promoted", "aborted": "The candidate was taken back"}
    return said.get(action, "What was found out")


def _alike(tally: Tally) -> dict[str, Any]:
    return {
        "tally": tally,
        "share": 100 * tally.agree / tally.rows if tally.rows else 0.0,
        "mean": tally.difference_sum / tally.rows if tally.rows else 0.0,
        "stable_ms": format_duration(tally.stable_s / tally.requests) if tally.requests else "–",
        "candidate_ms": format_duration(tally.candidate_s / tally.requests) if tally.requests else "–",
    }


def _intervals(found: Mapping[str, Difference]) -> list[dict[str, Any]]:
    """Each with its place on a line of 600, no difference in the middle."""
    told = []
    for metric, one in found.items():
        scale, unit = _SCALES[metric]
        reach = max(abs(one.low), abs(one.high), 1e-12)
        left, middle, right = (round(300 + 260 * value / reach, 1) for value in (one.low, one.effect, one.high))
        effect, low, high = (f"{scale * value:+.3g}{unit}" for value in (one.effect, one.low, one.high))
        told.append({"name": metric, "is_clear": one.is_clear, "left": left, "middle": middle, "right": right,
                     "effect": effect, "low": low, "high": high})  # fmt: skip
    return told


def _shown(values: Mapping[str, Any]) -> str:
    text = msgspec.json.encode(_rounded(values)).decode()
    return text if len(text) <= _MOST_WORDS else f"{text[:_MOST_WORDS]}…"


def _rounded(value: Any) -> Any:
    """With no more digits than one can compare by eye."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, (list, tuple)) else value


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
