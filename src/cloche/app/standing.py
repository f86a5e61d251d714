"""How deployments stand now: versions, shares, what callers got, and how far a rollout is."""

from __future__ import annotations

import msgspec

from cloche.app.deploy import online_of
from cloche.app.describe import policy_of
from cloche.app.project import Project
from cloche.app.up import runtime_folder
from cloche.control.rollouts import Known, describe_trial, judge
from cloche.control.watch import Watch
from cloche.core.board import Board
from cloche.monitoring.latency import durations, milliseconds, quantile
from cloche.rollout.machine import HELD, Phase, Rollout
from cloche.store.deployments import DeploymentRow, Deployments, RolloutRow


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    """A VersionView is one version of a deployment; times are milliseconds, over all that it answered here.

    `requests` and `bad` are those of the rollout, by this machine's workers.
    """

    version: str
    role: str
    share: float
    requests: int | None = None
    bad: int | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None


class RolloutView(msgspec.Struct, frozen=True, kw_only=True):
    """A RolloutView is how far a rollout is; `progress` is the share of the evidence to go on, `eta_s` seconds."""

    id: int
    strategy: str
    phase: str
    step: int
    steps: tuple[float, ...]
    paused: bool
    #: It waits for somebody to look, who is asked to (a `page` in the history).
    held: bool = False
    why: str
    verdict: str
    evidence: str
    progress: float
    eta_s: float | None


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """A DeploymentView is one deployment; `ready` of `workers` processes serve what is desired."""

    deployment: str
    versions: tuple[VersionView, ...]
    rollout: RolloutView | None
    workers: int
    ready: int
    warm_s: float | None = None


def look(project: Project, name: str | None = None) -> list[DeploymentView]:
    """Every deployment, or the one of this name (NotFoundError)."""
    deployments = Deployments(project.store)
    rows = deployments.list() if name is None else (deployments.get(name),)
    board_path = runtime_folder(project.settings) / "board"
    board = Board(board_path) if board_path.exists() else None
    return [_view(project, row, board) for row in rows]


def _view(project: Project, row: DeploymentRow, board: Board | None) -> DeploymentView:
    stored = None if row.rollout is None else Deployments(project.store).rollout(row.rollout)
    known = Known() if stored is None or stored.evidence is None else msgspec.convert(stored.evidence, Known)
    evidence = known.evidence
    share = row.weight / 100
    versions = [_version(board, row, row.stable, "stable", 100 - share)]
    if stored is not None:
        versions[0] = msgspec.structs.replace(versions[0], requests=evidence.stable, bad=evidence.stable_bad)
        candidate = _version(board, row, stored.candidate, "candidate", share)
        seen = {"requests": evidence.candidate, "bad": evidence.candidate_bad}
        versions.append(msgspec.structs.replace(candidate, **seen))
    if row.previous is not None:
        versions.append(_version(board, row, row.previous, "previous", 0.0))
    watch = None if board is None else Watch(board, runtime_folder(project.settings))
    workers = [] if watch is None else watch.workers()
    return DeploymentView(
        deployment=row.name,
        versions=tuple(versions),
        rollout=None if stored is None else _rollout(project, row, stored, known),
        workers=len(workers),
        ready=0 if watch is None else watch.how_many_at(row.revision),
        warm_s=None if row.warm_until is None else max(0.0, row.warm_until - project.store.now()),
    )


def _rollout(project: Project, row: DeploymentRow, stored: RolloutRow, known: Known) -> RolloutView:
    rollout = msgspec.convert(stored.state, Rollout)
    policy = policy_of(online_of(project, row), shares=project.settings.serve.workers + 1)
    said = judge(known, policy)
    trial = rollout.strategy.trial
    judged = rollout.strategy.judged and rollout.phase is Phase.STEPPING
    return RolloutView(
        id=stored.id,
        strategy=rollout.strategy.name,
        phase=rollout.phase.value,
        step=rollout.step + 1,
        steps=tuple(step.weight / 100 for step in rollout.strategy.steps),
        paused=rollout.paused,
        held=rollout.why.startswith(HELD),
        why=rollout.why,
        verdict=trial or said.verdict.value,
        evidence=describe_trial(rollout.strategy, known) if trial else said.why,
        progress=said.progress,
        eta_s=said.eta_s if judged else None,
    )


def _version(board: Board | None, row: DeploymentRow, number: int, role: str, share: float) -> VersionView:
    view = VersionView(version=f"{row.model}:{number}", role=role, share=share)
    if board is None:
        return view
    buckets = durations(board, row.name, number)
    p50, p99 = (quantile(buckets, share) for share in (0.5, 0.99))
    return msgspec.structs.replace(view, p50_ms=milliseconds(p50), p99_ms=milliseconds(p99))
