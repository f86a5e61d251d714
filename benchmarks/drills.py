"""Drills of changes under load: real processes on loopback, callers who go on asking, and what they got.

    python benchmarks/drills.py              # everything, a quarter of an hour; prints the table
    python benchmarks/drills.py --quick      # a tenth of it
    python benchmarks/drills.py --only harm

Times are seen by the callers: from the moment of the command, or of the first bad answer, to the last answer.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.journeys.releases import Callers, Said, release, release_class  # noqa: E402
from tests.journeys.serving import Serving, until, up  # noqa: E402

from cloche.app.deploy import deploy, roll_back  # noqa: E402
from cloche.app.project import Project, open_project  # noqa: E402
from cloche.store.deployments import Deployments  # noqa: E402

CONFIG = """
[serve]
workers = 2
allow_code = true
[online.toy]
model = "toy@champion"
rollout = { ramp = "10s", bake = "1s", sticky = "x-user-id" }
[online.jump]
model = "toy:1"
rollout = { ramp = "0s", bake = "1s" }
[online.task]
model = "task@champion"
objectives = { p99 = "50ms" }
rollout = { ramp = "10s", bake = "1s" }
"""
#: Rows of the table.
Row = tuple[str, str]


class Drill:
    """A Drill is a project that is served, and what is done to it."""

    def __init__(self, project: Project, serving: Serving, scale: float) -> None:
        self.project = project
        self.serving = serving
        self.scale = scale
        self.deployments = Deployments(project.store)

    def send(self, reference: str, **options: str) -> int:
        return deploy(self.project, reference, **{"deployment": "toy", **options}).rollout

    def ended(self, rollout: int, seconds: float = 120.0) -> str:
        """How a rollout ended, once it has."""
        until(lambda: self.deployments.rollout(rollout).ended, "its end", seconds)
        return str(self.deployments.rollout(rollout).state["phase"])

    def stable(self, name: str = "toy") -> int:
        return self.deployments.get(name).stable


def updates(drill: Drill) -> list[Row]:
    """Rolling updates, each to another version, and rollbacks, each at once."""
    count = max(5, int(100 * drill.scale))
    rows = []
    with Callers(drill.serving.url, rate=200, threads=6, fresh=True) as callers:
        wrong = 0
        took = []
        for number in range(count):
            before, goal = drill.stable(), 2 if drill.stable() == 1 else 1
            began = time.monotonic()
            assert drill.ended(drill.send(f"toy:{goal}", strategy="now")) == "succeeded"
            took.append(time.monotonic() - began)
            time.sleep(0.3)
            flipped = time.monotonic()
            until(lambda at=flipped, goal=goal: set(callers.models(at)) == {f"toy:{goal}"}, "the flip")
            meant = {f"toy:{before}", f"toy:{goal}"}
            wrong += sum(one.status == 200 and one.model not in meant for one in callers.said)
            if number == 0:
                callers.said.clear()
        rows.append((f"{count} rolling updates at 200 req/s: failed of", _failed(callers)))
        rows.append(("… answers by a version that was not meant to serve", str(wrong)))
        rows.append(
            ("… seconds each, first load in a process of its own included", f"{statistics.median(took):.1f}")
        )
    flips = []
    with Callers(drill.serving.url, rate=200, threads=6, fresh=True) as callers:
        for _ in range(count):
            bad = drill.stable()
            target = 2 if bad == 1 else 1
            began = time.monotonic()
            roll_back(drill.project, "toy", target, "a drill")
            until(lambda at=began, target=target: f"toy:{target}" in callers.models(at), "the flip", 20)
            time.sleep(0.4)
            last = max(
                (one.at for one in callers.said if one.at > began and one.model == f"toy:{bad}"), default=began
            )
            flips.append(last - began)
            drill.deployments.unblock("toy", bad)
            until(lambda: drill.deployments.get("toy").rollout is None, "quiet")
        rows.append((f"{count} rollbacks at 200 req/s: failed of", _failed(callers)))
    shown = f"{1000 * statistics.median(flips):.0f}, {1000 * max(flips):.0f} ms"
    rows.append(("… decision to the last answer of the other version: median, most", shown))
    return rows


def split(drill: Drill) -> list[Row]:
    """The share that a candidate gets, and who flips."""
    wanted = int(100_000 * drill.scale)
    goal = 2 if drill.stable() == 1 else 1
    rollout = drill.send(f"toy:{goal}", steps="5% for 1h, 100%")
    until(lambda: drill.deployments.get("toy").weight == 500, "the step", 30)
    time.sleep(0.5)
    with Callers(drill.serving.url, rate=2000, threads=8) as callers:
        until(lambda: len(callers.said) >= wanted, "the answers", 600)
    arm: dict[str, str] = {}
    flipped = 0
    for one in callers.said:
        flipped += arm.setdefault(one.caller, one.model) != one.model
    users = sum(model == f"toy:{goal}" for model in arm.values()) / len(arm)
    drill.deployments.order("toy", "abort", "drill")
    drill.ended(rollout)
    # by the hash of the request itself, without a key
    return [
        (f"of {len(arm):,} users at 5 %: those of the candidate", f"{users:.2%}"),
        (f"users who saw both versions in {len(callers.said):,} answers", str(flipped)),
    ]


def harm(drill: Drill) -> list[Row]:
    """Bad versions: what callers get until the traffic is back."""
    rows = []
    kinds: list[tuple[str, Callable[[float], int]]] = [
        ("fails always", lambda n: release(drill.serving.folder, "fails", n, share=1.0)),
        ("fails 20 %", lambda n: release(drill.serving.folder, "fails", n, share=0.2)),
        ("answers NaN always", lambda n: release(drill.serving.folder, "nan", n, share=1.0)),
    ]
    if drill.scale >= 1:
        kinds.append(("fails 2 %", lambda n: release(drill.serving.folder, "fails", n, share=0.02)))
    repeats = max(1, int(3 * drill.scale))
    factor = 10.0
    for name, make in kinds:
        for steps, where, deployment in _PLACES:
            found = []
            for _ in range(repeats):
                factor += 1
                found.append(_one_harm(drill, deployment, make(factor), steps, 2))
            rows.append((f"{name}, {where}: bad answers, seconds", _medians(found)))
    for kind, seconds in (("good", 0.08), ("dies", 0.01), ("blocks", 0.01)):
        factor += 1
        made = release_class(drill.serving.folder, kind, factor, seconds=seconds)
        name = "3 times slower than allowed" if kind == "good" else f"Python code that {kind}"
        found = [_one_harm(drill, "task", made, "5%, 50%, 100%", 0)]
        rows.append((f"{name}, first step 5 %: bad answers, seconds", _medians(found)))
    return rows


#: The steps, what they are called, and the deployment: "jump" has no ramp.
_PLACES = (
    ("5%, 50%, 100%", "from the first step on, 5 %", "toy"),
    ("50%, 100%", "at 50 % at once", "jump"),
    ("100%", "with all of the traffic at once, before it is promoted", "jump"),
)


def _one_harm(drill: Drill, name: str, version: int, steps: str, numbers: int) -> tuple[int, float]:
    """Bad answers, and seconds from the first of them to the last, until it was taken back."""
    with Callers(drill.serving.url, rate=100, threads=6, name=name, numbers=numbers) as callers:
        time.sleep(0.5)
        model = "toy" if name == "jump" else name
        rollout = drill.send(f"{model}:{version}", steps=steps, deployment=name)
        assert drill.ended(rollout, 300) == "aborted"
        time.sleep(2.5)
    bad = [one for one in callers.said if _is_bad(one, name)]
    return len(bad), bad[-1].at - bad[0].at + bad[0].seconds if bad else 0.0


def _is_bad(one: Said, name: str) -> bool:
    return one.status != 200 or (name == "task" and one.seconds > 0.06)


def _medians(found: list[tuple[int, float]]) -> str:
    bad, seconds = zip(*found, strict=True)
    return f"{statistics.median(bad):g}, {statistics.median(seconds):.1f}"


def _failed(callers: Callers) -> str:
    for one in callers.failed()[:3]:
        print(f"    failed: {one}", file=sys.stderr)
    return f"{len(callers.failed())} of {len(callers.said):,}"


DRILLS = {"updates": updates, "split": split, "harm": harm}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=sorted(DRILLS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drills-") as place:
        folder = Path(place)
        (folder / "cloche.toml").write_text(CONFIG)
        release(folder, "good", 2.0)
        release(folder, "good", 3.0)
        release_class(folder, "good", 2.0, seconds=0.01)
        with up(folder) as serving, open_project(folder) as project:
            drill = Drill(project, serving, 0.1 if options.quick else 1.0)
            for name, run in DRILLS.items():
                if options.only in (None, name):
                    for what, figure in run(drill):
                        print(f"| {what} | {figure} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
