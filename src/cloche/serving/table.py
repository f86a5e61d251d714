"""Every path of a worker: which deployment answers there, in which dialect, and whose guard stands before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cloche.core.errors import NotFoundError
from cloche.serving.guard import Guard
from cloche.serving.mirror import Mirror
from cloche.serving.predictions import Predictions
from cloche.serving.protocols.base import Dialect
from cloche.serving.split import Arm, Split


class Way(NamedTuple):
    """A Way is where the rows at one path go: in a rollout, where stable's do, and the fork to the candidate."""

    predictions: Predictions
    dialect: Dialect
    arm: Arm | None = None
    fork: Fork | None = None


class Fork(NamedTuple):
    """A Fork is a path that stable and candidate share."""

    split: Split | Mirror
    #: Where those go that it takes: to the candidate, or to stable with a copy for the candidate.
    taken: Way

    def choose(self, stable: Way, headers: Mapping[bytes, bytes], query: bytes = b"") -> Way:
        """Where a request with these headers and this query goes. One that names a version is in no arm."""
        if query:
            for way in (stable, self.taken):
                if query == b"version=" + way.predictions.deployment.version:
                    return way._replace(arm=None)
        return self.taken if self.split.takes(headers) else stable


class Served(NamedTuple):
    """A Served is the versions of one deployment in a worker; `others` answer only where they are named."""

    stable: Predictions
    others: tuple[Predictions, ...] = ()
    candidate: Predictions | None = None
    split: Split | Mirror | None = None

    @property
    def versions(self) -> tuple[Predictions, ...]:
        return (self.stable, *((self.candidate,) if self.candidate is not None else ()), *self.others)


class Table:
    """A Table is the deployments of a worker by the paths that are theirs, at least one.

    A path without a deployment's name in it (`/invocations`) leads somewhere only where one deployment alone
    answers it.
    """

    def __init__(self, served: Sequence[Served]) -> None:
        #: The stable version of each deployment.
        self.predictions = tuple(one.stable for one in served)
        #: All of their versions.
        self.everyone = tuple(each for one in served for each in one.versions)
        #: By the path of a POST of rows.
        self.ways: dict[bytes, Way] = {}
        self._contested: dict[bytes, list[str]] = {}
        claims: dict[bytes, list[Way]] = {}
        owners: dict[bytes, set[Guard]] = {}
        for one in served:
            for path, way in _ways(one).items():
                claims.setdefault(path, []).append(way)
        for each in self.everyone:
            for dialect in each.dialects:
                for name in [*dialect.paths(), *(route.path for route in dialect.routes())]:
                    owners.setdefault(name.encode(), set()).add(each.guard)
        for path, ways in claims.items():
            if len(ways) == 1:
                self.ways[path] = ways[0]
            else:
                self._contested[path] = sorted(way.predictions.deployment.live.deployment for way in ways)
        self._guards = {path: guards.pop() for path, guards in owners.items() if len(guards) == 1}
        self._strictest = max((one.guard for one in self.predictions), key=lambda guard: guard.keys_required)

    def speaker(self, path: bytes) -> Dialect | None:
        """The dialect in which an error at a path is told, whether or not there is anything at it."""
        way = self.ways.get(path)
        if way is not None:
            return way.dialect
        for one in self.predictions:
            for dialect in one.dialects:
                for root in dialect.roots:
                    if path == root.encode() or path.startswith(root.encode() + b"/"):
                        return dialect
        return None

    def guard(self, path: bytes) -> Guard:
        """Who stands before a path that takes no rows: its deployment's guard, else the strictest."""
        return self._guards.get(path, self._strictest)

    def is_contested(self, path: str) -> bool:
        return path.encode() in self._contested

    def check_claims(self, path: bytes) -> None:
        """Raises NotFoundError CL-E305 for a path that several deployments could answer."""
        names = self._contested.get(path)
        if names is not None:
            raise NotFoundError(
                f"{len(names)} deployments could answer at {path.decode('latin-1')}: {', '.join(names)}",
                code="CL-E305",
                hint=f"name one: POST /predict/{names[0]}",
            )


def _ways(served: Served) -> dict[bytes, Way]:
    """Where each path of a deployment leads: to the stable version, else to the one that has it for itself."""
    ways: dict[bytes, Way] = {}
    for version in served.versions:
        for dialect in version.dialects:
            for name in dialect.paths():
                ways.setdefault(name.encode(), Way(version, dialect))
    if served.candidate is not None and served.split is not None:
        split = served.split
        for dialect in served.candidate.dialects:
            for path in (path.encode() for path in dialect.paths()):
                way = ways[path]
                if way.predictions is not served.stable:
                    continue
                if isinstance(split, Mirror):
                    ways[path] = way._replace(fork=Fork(split, way._replace(arm=split)))
                else:
                    fork = Fork(split, Way(served.candidate, dialect, split.candidate))
                    ways[path] = way._replace(arm=split.stable, fork=fork)
    return ways
