"""A deployment as a tree of its versions, for people who look at a terminal."""

from __future__ import annotations

from cloche.app.standing import DeploymentView, RolloutView, VersionView

_BAR = 20
_MARKS = {"stable": "●", "candidate": "◐", "previous": "○"}


def tree(view: DeploymentView) -> list[str]:
    """A line a version, and those of a rollout."""
    rollout = view.rollout
    head = [view.deployment]
    if rollout is not None:
        paused = ", paused" if rollout.paused else ""
        head.append(f"⟳ rollout {rollout.step}/{len(rollout.steps)}  {rollout.strategy}, {rollout.phase}{paused}")
    head.append(f"{view.ready}/{view.workers} workers ready" if view.workers else "not served now")
    told = [_version(one) for one in view.versions]
    if view.warm_s is not None:
        told[-1] += f"   warm for {_time(view.warm_s)}"
    told += [] if rollout is None else _rollout(rollout)
    lines = ["   ".join(head)]
    lines += [f"{'└─' if last else '├─'} {line}" for line, last in zip(told, _last(told), strict=True)]
    return lines


def _last(lines: list[str]) -> list[bool]:
    return [place == len(lines) - 1 for place in range(len(lines))]


def _version(one: VersionView) -> str:
    full = round(one.share / 100 * _BAR)
    bar = "█" * full + "░" * (_BAR - full)
    parts = [f"{_MARKS[one.role]} {one.version:<12} {one.role:<9} {one.share:>5.4g} %  {bar}"]
    if one.p50_ms is not None and one.p99_ms is not None:
        parts.append(f"p50 {one.p50_ms:.3g}  p99 {one.p99_ms:.3g} ms")
    if one.requests:
        parts.append(f"{one.bad or 0:,} of {one.requests:,} wrong")
    return "   ".join(parts)


def _rollout(rollout: RolloutView) -> list[str]:
    told = [f"{rollout.evidence}   ({rollout.verdict})"]
    ends = [f"page: {rollout.why}" if rollout.held else f"came here because: {rollout.why}"]
    if rollout.eta_s is not None:
        ends.append(f"enough evidence in about {_time(rollout.eta_s)} if all stays as it is")
    return [*told, *ends, "promote · abort · pause" if not rollout.paused else "promote · abort · resume"]


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
