"""Every path of a worker: which deployment answers there, in which dialect, and whose guard stands before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cloche.core.errors import NotFoundError
from cloche.serving.guard import Guard
from cloche.serving.predictions import Predictions
from cloche.serving.protocols.base import Dialect


class Way(NamedTuple):
    """A Way is where the rows at one path go."""

    predictions: Predictions
    dialect: Dialect


class Table:
    """A Table is the deployments of a worker by the paths that are theirs, at least one.

    A path without a deployment's name in it (`/invocations`) leads somewhere only where one deployment alone
    answers it.
    """

    def __init__(self, predictions: Sequence[Predictions]) -> None:
        self.predictions = tuple(predictions)
        #: By the path of a POST of rows.
        self.ways: dict[bytes, Way] = {}
        self._contested: dict[bytes, list[str]] = {}
        claims: dict[bytes, list[Way]] = {}
        owners: dict[bytes, set[Guard]] = {}
        for one in self.predictions:
            for dialect in one.dialects:
                rows = [path.encode() for path in dialect.paths()]
                for path in rows:
                    claims.setdefault(path, []).append(Way(one, dialect))
                for path in [*rows, *(route.path.encode() for route in dialect.routes())]:
                    owners.setdefault(path, set()).add(one.guard)
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
