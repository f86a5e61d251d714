"""Deployments in the store: which version has traffic, the passages between versions, and what happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from cloche.core.errors import ConflictError, NotFoundError
from cloche.store.audit import audit
from cloche.store.blocked import block_version, check_blocked, unblock, why_blocked
from cloche.store.database import Store
from cloche.store.events import add_event
from cloche.store.machines import Lease, fenced
from cloche.store.tables import aliases, deployments, events, rollouts, state


class DeploymentRow(msgspec.Struct, frozen=True, kw_only=True):
    """A DeploymentRow is which versions of a model answer under a name; times are seconds since 1970, UTC.

    `rollout` is the one under way; its version is `candidate` once it may be loaded, and `weight` its share of the
    traffic in hundredths of a percent. `previous` is kept warm until `warm_until`.
    `asked` is what was named at the start, which meant version `resolved` when it was last looked at. `revision`
    is the store's since which it is so.
    """

    name: str
    model: str
    asked: str
    resolved: int
    stable: int
    previous: int | None = None
    warm_until: float | None = None
    candidate: int | None = None
    weight: int = 0
    rollout: int | None = None
    revision: int = 0


class RolloutRow(msgspec.Struct, frozen=True, kw_only=True):
    """A RolloutRow is one passage from `stable` to `candidate`; `state` and `evidence` are the controller's.

    `command` is what a person (`commander`) wants of it and the controller has not seen yet.
    """

    id: int
    deployment: str
    model: str
    stable: int
    candidate: int
    state: Mapping[str, Any]
    evidence: Mapping[str, Any] | None
    command: str | None
    commander: str | None
    started: float
    ended: float | None


class Deployments:
    """A Deployments is the deployments of a store; each change of who has traffic is one transaction.

    What the controller writes names the rollout that it believes to be under way, and changes nothing where
    another one, or none, is: it returns False then. With a `lease` these refuse who does not lead (CL-E506).
    """

    def __init__(self, store: Store, lease: Lease | None = None) -> None:
        self._store = store
        self._lease = lease

    def list(self) -> tuple[DeploymentRow, ...]:
        with self._store.read() as connection:
            rows = connection.execute(select(deployments).order_by(deployments.c.name))
            return tuple(_deployment(row) for row in rows)

    def get(self, name: str) -> DeploymentRow:
        """NotFoundError CL-E302 where there is none of this name."""
        with self._store.read() as connection:
            return _require(connection, name)

    def start(self, name: str, model: str, asked: str, resolved: int, who: str) -> DeploymentRow:
        """The deployment as it is to be served now.

        The store says which version has traffic, unless what is asked for has changed, or means another version
        than it did, one that was not taken back: then that is stable, and a rollout under way is given up.
        """
        with self._store.change() as connection:
            held = _find(connection, name)
            if held is not None and (held.model, held.asked, held.resolved) == (model, asked, resolved):
                return held
            if held is not None and held.model == model and why_blocked(connection, model, resolved) is not None:
                return held
            fresh = {"model": model, "asked": asked, "resolved": resolved, "stable": resolved, **_ALONE}
            fresh["revision"] = _revision(connection)
            if held is None:
                connection.execute(insert(deployments).values(name=name, **fresh))
            else:
                self._end(connection, held, who, "aborted", f"{asked} is asked for now")
                connection.execute(update(deployments).where(deployments.c.name == name).values(fresh))
            if held is None or held.stable != resolved:
                self._tell(connection, name, None, who, "started", resolved, f"{asked} was asked for")
            self._audit(connection, who, "started", name, model=model, version=resolved, asked=asked)
            return _require(connection, name)

    def ask(self, name: str, asked: str, resolved: int) -> None:
        """Something else, or another version by the same name, is asked for now; who has the traffic stays."""
        with self._store.change() as connection:
            change = {"asked": asked, "resolved": resolved}
            connection.execute(update(deployments).where(deployments.c.name == name).values(change))
            self._audit(connection, self._store.who, "asked for", name, asked=asked, version=resolved)

    def touch(self) -> None:
        """Have every process look again."""
        with self._store.change():
            pass

    def begin(self, name: str, candidate: int, plan: Mapping[str, Any], who: str, why: str) -> int:
        """Begin a rollout and return its number.

        Raises ConflictError CL-E505 while one is under way or where the version is stable already, RefusedError
        CL-E413 where it was rolled back and nobody has cleared it.
        """
        with self._store.change() as connection:
            held = _require(connection, name)
            _check_begin(connection, held, candidate)
            values = {
                "deployment": name,
                "model": held.model,
                "stable": held.stable,
                "candidate": candidate,
                "state": dict(plan),
                "started": self._store.now(),
            }
            made = connection.execute(insert(rollouts).values(values)).inserted_primary_key
            assert made is not None
            number = int(made[0])
            change = {"rollout": number, "revision": _revision(connection)}
            connection.execute(update(deployments).where(deployments.c.name == name).values(change))
            self._tell(connection, name, number, who, "began", candidate, why)
            told = {"model": held.model, "version": candidate, "rollout": number}
            self._audit(connection, who, "deployed", name, **told)
            return number

    def check(self, name: str, candidate: int) -> None:
        """Nothing where a rollout could begin; raises as `begin` else."""
        with self._store.read() as connection:
            _check_begin(connection, _require(connection, name), candidate)

    def follow(self, name: str, resolved: int) -> None:
        """What was asked for means this version now."""
        with fenced(self._store, self._lease, quiet=True) as connection:
            connection.execute(update(deployments).where(deployments.c.name == name).values(resolved=resolved))

    def rollout(self, number: int) -> RolloutRow:
        """NotFoundError CL-E302 where there is none of this number."""
        with self._store.read() as connection:
            row = connection.execute(select(rollouts).where(rollouts.c.id == number)).first()
            if row is None:
                raise NotFoundError(f"there is no rollout {number}", code="CL-E302", hint="cloche history")
            return RolloutRow(**row._mapping)

    def last_rollout(self, name: str) -> RolloutRow | None:
        """The newest rollout of a deployment, over or not."""
        wanted = select(rollouts).where(rollouts.c.deployment == name).order_by(rollouts.c.id.desc()).limit(1)
        with self._store.read() as connection:
            row = connection.execute(wanted).first()
            return None if row is None else RolloutRow(**row._mapping)

    def order(self, name: str, command: str, who: str) -> RolloutRow:
        """Ask the controller for something; ConflictError CL-E505 where nothing is under way."""
        with self._store.change() as connection:
            held = _require(connection, name)
            if held.rollout is None:
                raise ConflictError(
                    f"no rollout of {name} is under way: {held.model}:{held.stable} has all of its traffic",
                    code="CL-E505",
                    hint=f"cloche history {name}",
                )
            ordered = {"command": command, "commander": who}
            connection.execute(update(rollouts).where(rollouts.c.id == held.rollout).values(ordered))
            self._audit(connection, who, "ordered", name, command=command, rollout=held.rollout)
            row = connection.execute(select(rollouts).where(rollouts.c.id == held.rollout)).one()
            return RolloutRow(**row._mapping)

    def keep(self, number: int, plan: Mapping[str, Any], evidence: Mapping[str, Any], seen: str | None) -> None:
        """Write down what is known of a rollout; `seen` is the command that it knows of."""
        known: dict[str, Any] = {"state": dict(plan), "evidence": dict(evidence)}
        with fenced(self._store, self._lease, quiet=True) as connection:
            connection.execute(update(rollouts).where(rollouts.c.id == number).values(known))
            obeyed = (rollouts.c.id == number) & (rollouts.c.command == seen)
            connection.execute(update(rollouts).where(obeyed).values(command=None))

    def shift(self, name: str, number: int, weight: int, who: str, why: str | None = None) -> bool:
        """Give the candidate of a rollout another share of the traffic."""
        with fenced(self._store, self._lease) as connection:
            held = _find(connection, name)
            if held is None or held.rollout != number or held.candidate is None:
                return False
            change: dict[str, Any] = {"weight": weight, "revision": _revision(connection)}
            connection.execute(update(deployments).where(deployments.c.name == name).values(change))
            if why is not None:
                self._tell(connection, name, number, who, "stepped", held.candidate, why)
            return True

    def admit(self, name: str, number: int) -> bool:
        """The candidate may be loaded beside the stable version."""
        with fenced(self._store, self._lease) as connection:
            held = _find(connection, name)
            if held is None or held.rollout != number:
                return False
            change = {"candidate": _goal(connection, number), "weight": 0, "revision": _revision(connection)}
            connection.execute(update(deployments).where(deployments.c.name == name).values(change))
            return True

    def note(self, name: str, number: int, who: str, action: str, version: int, why: str) -> None:
        """Add to the history of a deployment."""
        with fenced(self._store, self._lease, quiet=True) as connection:
            self._tell(connection, name, number, who, action, version, why)

    def promote(self, name: str, number: int, who: str, why: str, *, alias: str | None, warm_s: float) -> bool:
        """Make the candidate stable, and have `alias` name it; the stable one stays warm for so many seconds."""
        now = self._store.now()
        with fenced(self._store, self._lease) as connection:
            held = _find(connection, name)
            if held is None or held.rollout != number or held.candidate is None:
                return False
            self._end(connection, held, who, "promoted", why)
            change = {
                **_ALONE,
                "stable": held.candidate,
                "previous": held.stable,
                "warm_until": now + warm_s,
                "revision": _revision(connection),
            }
            self._point(connection, held, alias, held.candidate, change)
            connection.execute(update(deployments).where(deployments.c.name == name).values(change))
            return True

    def abort(self, name: str, number: int, who: str, why: str, *, block: bool, how: str = "aborted") -> bool:
        """Take the candidate off; with `block` nobody deploys it again until it is cleared. `how` it ended."""
        with fenced(self._store, self._lease) as connection:
            held = _find(connection, name)
            if held is None or held.rollout != number:
                return False
            self._end(connection, held, who, how, why)
            change = {"candidate": None, "weight": 0, "rollout": None, "revision": _revision(connection)}
            connection.execute(update(deployments).where(deployments.c.name == name).values(change))
            if block:
                block_version(connection, self._store.now(), held.model, _goal(connection, number), why)
            return True

    def roll_back(self, name: str, version: int, who: str, why: str, *, alias: str | None) -> DeploymentRow:
        """Give all traffic to an earlier version at once and block the one that had it; ends a rollout too.

        Raises ConflictError CL-E505 where that version has it already.
        """
        with self._store.change() as connection:
            held = _require(connection, name)
            if held.stable == version and held.rollout is None:
                raise ConflictError(
                    f"{held.model}:{version} has all traffic of {name} already", code="CL-E505",
                    hint=f"cloche history {name}",
                )  # fmt: skip
            self._end(connection, held, who, "aborted", why)
            bad = held.stable
            if held.stable == version and held.rollout is not None:
                bad = _goal(connection, held.rollout)
            change = {**_ALONE, "stable": version, "revision": _revision(connection)}
            self._point(connection, held, alias, version, change)
            connection.execute(update(deployments).where(deployments.c.name == name).values(change))
            block_version(connection, self._store.now(), held.model, bad, why)
            if held.stable != version:
                self._tell(connection, name, None, who, "rolled back", version, why)
            told = {"model": held.model, "version": version, "blocked": bad, "why": why}
            self._audit(connection, who, "rolled back", name, **told)
            return _require(connection, name)

    def before(self, row: DeploymentRow) -> int | None:
        """The version that had the traffic before the stable one, by the rollout that ended it."""
        wanted = (
            select(rollouts.c.stable)
            .join(events, events.c.rollout == rollouts.c.id)
            .where(rollouts.c.deployment == row.name, rollouts.c.candidate == row.stable)
            .where(rollouts.c.model == row.model, events.c.action == "promoted")
            .order_by(rollouts.c.id.desc())
            .limit(1)
        )
        with self._store.read() as connection:
            found = connection.execute(wanted).scalar_one_or_none()
            return None if found is None else int(found)

    def unblock(self, model: str, version: int) -> bool:
        """Let a version that was taken back be deployed again; False where it was not blocked."""
        with self._store.change() as connection:
            was = unblock(connection, model, version)
            if was:
                self._audit(connection, self._store.who, "unblocked", f"{model}:{version}")
            return was

    def cool(self, name: str) -> None:
        """The version before the stable one need not be warm any more, if its time is over."""
        with fenced(self._store, self._lease) as connection:
            over = (deployments.c.name == name) & (deployments.c.warm_until <= self._store.now())
            change = {"previous": None, "warm_until": None, "revision": _revision(connection)}
            connection.execute(update(deployments).where(over).values(change))

    def _end(self, connection: Connection, held: DeploymentRow, who: str, how: str, why: str) -> None:
        if held.rollout is None:
            return
        ended = update(rollouts).where(rollouts.c.id == held.rollout).values(ended=self._store.now(), command=None)
        connection.execute(ended)
        self._tell(connection, held.name, held.rollout, who, how, _goal(connection, held.rollout), why)

    def _point(
        self, connection: Connection, held: DeploymentRow, alias: str | None, version: int, change: dict[str, Any]
    ) -> None:
        """Move the alias by which the deployment was asked for, so that it goes on meaning what is served."""
        if alias is None:
            return
        where = (aliases.c.model == held.model) & (aliases.c.alias == alias)
        moved = update(aliases).where(where).values(version=version, moved=self._store.now())
        if connection.execute(moved).rowcount:
            change["resolved"] = version

    def _tell(
        self, connection: Connection, name: str, number: int | None, who: str, action: str, version: int, why: str
    ) -> None:
        add_event(connection, self._store.now(), name, number, who, action, version, why)

    def _audit(self, connection: Connection, who: str, action: str, target: str, **details: Any) -> None:
        audit(connection, self._store.now(), who, action, target, **details)


#: A deployment without a rollout, and without a version that is kept warm.
_ALONE: dict[str, Any] = {"candidate": None, "weight": 0, "rollout": None, "previous": None, "warm_until": None}


def _check_begin(connection: Connection, held: DeploymentRow, candidate: int) -> None:
    if held.rollout is not None:
        raise ConflictError(
            f"{held.name} is on its way to {held.model}:{_goal(connection, held.rollout)}",
            code="CL-E505",
            hint=f"wait for it, or first: cloche abort {held.name}",
        )
    if held.stable == candidate:
        raise ConflictError(
            f"{held.model}:{candidate} has all traffic of {held.name} already",
            code="CL-E505",
            hint=f"cloche status {held.name}",
        )
    check_blocked(connection, held.model, candidate)


def _revision(connection: Connection) -> int:
    return int(connection.execute(select(state.c.revision)).scalar_one())


def _goal(connection: Connection, rollout: int) -> int:
    """The version that a rollout leads to."""
    return int(connection.execute(select(rollouts.c.candidate).where(rollouts.c.id == rollout)).scalar_one())


def _find(connection: Connection, name: str) -> DeploymentRow | None:
    row = connection.execute(select(deployments).where(deployments.c.name == name)).first()
    return None if row is None else _deployment(row)


def _require(connection: Connection, name: str) -> DeploymentRow:
    found = _find(connection, name)
    if found is None:
        known = connection.execute(select(deployments.c.name).order_by(deployments.c.name)).scalars()
        names = ", ".join(known)
        raise NotFoundError(
            f"there is no deployment {name!r}",
            code="CL-E302",
            hint=f"there are: {names}" if names else "serve a model first: cloche up fraud",
        )
    return found


def _deployment(row: Row[Any]) -> DeploymentRow:
    return DeploymentRow(**row._mapping)
