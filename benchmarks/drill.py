"""What every drill is made of: a project that is served by real processes, and what is done to it."""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.journeys.releases import Callers, release  # noqa: E402
from tests.journeys.serving import Serving, until, up  # noqa: E402

from cloche.app.deploy import deploy  # noqa: E402
from cloche.app.project import Project, open_project  # noqa: E402
from cloche.store.deployments import Deployments  # noqa: E402

#: Rows of the table.
Row = tuple[str, str]


class Drill:
    """A Drill is a project that is served, and what is done to it."""

    def __init__(self, project: Project, serving: Serving, scale: float) -> None:
        self.project = project
        self.serving = serving
        self.folder = serving.folder
        self.scale = scale
        self.deployments = Deployments(project.store)

    def times(self, number: int, least: int = 1) -> int:
        """So many of `number` as this run takes."""
        return max(least, int(number * self.scale))

    def send(self, reference: str, **options: str) -> int:
        return deploy(self.project, reference, **{"deployment": "toy", **options}).rollout

    def is_over(self, rollout: int) -> bool:
        return self.deployments.rollout(rollout).ended is not None

    def ended(self, rollout: int, seconds: float = 120.0) -> str:
        """How a rollout ended, once it has."""
        until(lambda: self.is_over(rollout), "its end", seconds)
        return str(self.deployments.rollout(rollout).state["phase"])

    def stable(self, name: str = "toy") -> int:
        return self.deployments.get(name).stable


@contextlib.contextmanager
def drill(
    config: str, scale: float, *, versions: int = 3, prepare: Callable[[Path], object] | None = None
) -> Iterator[Drill]:
    """A project with this `cloche.toml`, served; version n of its model toy answers n + 1 times the sum of a row.

    `prepare` packs what else there is to be.
    """
    with tempfile.TemporaryDirectory(prefix="drill-") as place:
        folder = Path(place)
        (folder / "cloche.toml").write_text(config)
        for number in range(versions):
            release(folder, "good", number + 2.0)
        if prepare is not None:
            prepare(folder)
        with up(folder) as serving, open_project(folder) as project:
            # workers serve before the controller is there, which takes what is commanded meanwhile a second later
            until(lambda: serving.standing("controller"), "a controller")
            time.sleep(1)
            yield Drill(project, serving, scale)


def failed(callers: Callers) -> str:
    for one in callers.failed()[:3]:
        print(f"    failed: {one}", file=sys.stderr)
    return f"{len(callers.failed())} of {len(callers.said):,}"


def middle_and_most(values: Sequence[float], unit: str = "s") -> str:
    """`0.11, 0.43 s`."""
    return f"{statistics.median(values):.3g}, {max(values):.3g} {unit}"
