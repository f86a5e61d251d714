"""What people do with what is served, with the answers that `--json` shows and the admin API gives."""

from __future__ import annotations

from typing import Any

import msgspec

from cloche.app.audit import list_audit, verify_audit
from cloche.app.deploy import deploy, order, roll_back
from cloche.app.models import move_alias, version_body
from cloche.app.project import Project
from cloche.app.standing import look
from cloche.app.stats import stats
from cloche.core.errors import ConfigError
from cloche.core.reference import parse_reference
from cloche.core.shape import body, bounded, moment
from cloche.rollout.machine import Command
from cloche.rollout.strategy import Metric
from cloche.store.deployments import Deployments
from cloche.store.events import list_events

Answer = dict[str, Any]


class Acts:
    """An Acts is done in one project; `client.admin.Admin` has another host do the same."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._deployments = Deployments(project.store)

    def status(self, name: str | None = None) -> Answer:
        """How every deployment stands, or the one of this name."""
        return body("DeploymentList", items=[msgspec.to_builtins(view) for view in look(self.project, name)])

    def history(self, name: str | None = None, limit: int = 50) -> Answer:
        """What happened to deployments, the newest last."""
        if name is not None:
            self._deployments.get(name)
        events = list_events(self.project.store, name, most=bounded(limit))
        return body("EventList", items=[{**msgspec.to_builtins(one), "time": moment(one.time)} for one in events])

    def stats(self, name: str | None = None, last: str = "1h") -> Answer:
        """What was answered in the last hours or days, by time."""
        return stats(self.project, name, last)

    def deploy(
        self,
        reference: str,
        *,
        deployment: str | None = None,
        strategy: str | None = None,
        steps: str | None = None,
        metric: Metric = "",
        breaking: bool = False,
    ) -> Answer:
        """Begin a rollout. Raises as `app.deploy.deploy`."""
        begun = deploy(
            self.project,
            reference,
            deployment=deployment,
            strategy=strategy,
            steps=steps,
            metric=metric,
            breaking=breaking,
        )
        return body(
            "Rollout",
            deployment=begun.deployment,
            rollout=begun.rollout,
            stable=begun.stable,
            candidate=begun.candidate,
            strategy=begun.strategy.name,
            breaks=list(begun.breaks),
        )

    def rollout(self, number: int) -> Answer:
        """A rollout by its number, over or not."""
        row = self._deployments.rollout(number)
        return body(
            "Rollout",
            deployment=row.deployment,
            rollout=row.id,
            stable=f"{row.model}:{row.stable}",
            candidate=f"{row.model}:{row.candidate}",
            started=moment(row.started),
            ended=moment(row.ended),
        )

    def order(self, name: str | None, command: str) -> Answer:
        """Promote, abort, pause or resume the rollout of a deployment."""
        row = order(self.project, name, Command(command))
        return body("Order", deployment=row.name, rollout=row.rollout, command=command)

    def rollback(self, name: str | None, version: int | None = None, why: str = "by hand") -> Answer:
        """Back to the version before, or to this one, at once."""
        row = roll_back(self.project, name, version, why)
        return body("Rollback", deployment=row.name, stable=f"{row.model}:{row.stable}", revision=row.revision)

    def unblock(self, reference: str) -> Answer:
        """Let a version that was taken back be deployed again."""
        wanted = parse_reference(reference)
        if wanted.version is None:
            raise ConfigError(f"{reference} may become another version", code="CL-E203", hint=f"{wanted.model}:4")
        self.project.registry.resolve(wanted)
        was = self._deployments.unblock(wanted.model, wanted.version)
        return body("Unblock", reference=str(wanted), was_blocked=was)

    def models(self, model: str | None = None) -> Answer:
        """Every version, or those of one model."""
        versions = self.project.registry.list(model)
        return body("ModelVersionList", items=[version_body(version) for version in versions])

    def model(self, reference: str) -> Answer:
        """One version with its manifest."""
        version = self.project.registry.resolve(reference)
        return body("ModelVersion", **version_body(version, self.project.open_version(version)))

    def alias(self, reference: str, name: str) -> Answer:
        """Point an alias at a version."""
        return move_alias(self.project, reference, name)

    def audit(self, limit: int = 50) -> Answer:
        """Who changed what, the newest last."""
        return list_audit(self.project, limit)

    def verify_audit(self) -> Answer:
        """Whether the audit log holds."""
        return verify_audit(self.project)
