"""What the processes of this machine say of the versions that they serve: the board, read."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path

import msgspec

from cloche.core.board import BLAMED, Board, Head, Role, State, series_hash
from cloche.core.codes import CODES
from cloche.rollout.abtest import Sums
from cloche.rollout.counts import Counts
from cloche.rollout.shadow import Tally
from cloche.serving.metered import METRICS, SCALE, UNITS, sums_labels
from cloche.serving.split import ARMS, arm_series, both_arms


def trouble_path(folder: Path, slot: int) -> Path:
    """Where the worker of a slot says why it can't load what is desired."""
    return folder / f"trouble-{slot}.json"


def tally_path(folder: Path, slot: int) -> Path:
    """Where the worker of a slot says what shadows have found out: {number of the rollout: Tally}."""
    return folder / f"shadow-{slot}.json"


class Watch:
    """A Watch reads the board of a machine; `folder` is where its workers say what they can't load."""

    def __init__(self, board: Board, folder: Path) -> None:
        self._board = board
        self._folder = folder

    def workers(self) -> list[int]:
        """The slots of workers that serve."""
        board = self._board
        return [
            slot
            for slot in board.heads(Role.WORKER)
            if board.head(slot, Head.STATE) == State.READY and board.is_beating(slot)
        ]

    def are_at(self, revision: int) -> bool:
        """Whether every worker that serves has applied this revision, and there is one."""
        workers = self.workers()
        return bool(workers) and all(self._board.head(slot, Head.REVISION) >= revision for slot in workers)

    def applied(self, most: int) -> int:
        """The revision that every worker that serves has applied, `most` where there is none."""
        return min((self._board.head(slot, Head.REVISION) for slot in self.workers()), default=most)

    def how_many_at(self, revision: int) -> int:
        """How many workers that serve have applied this revision."""
        return sum(self._board.head(slot, Head.REVISION) >= revision for slot in self.workers())

    def trouble(self, revision: int) -> str | None:
        """Why a worker can't apply what is desired since this revision, where one can't."""
        for slot in self.workers():
            with contextlib.suppress(OSError, ValueError):
                told = json.loads(trouble_path(self._folder, slot).read_text())
                if told["revision"] >= revision > self._board.head(slot, Head.REVISION):
                    return str(told["words"])
        return None

    def has_tripped(self, rollout: int) -> bool:
        """Whether a worker has taken its requests off the candidate."""
        return any(self._board.head(slot, Head.TRIPPED) == rollout for slot in self.workers())

    def deaths(self, deployment: str, version: int) -> int:
        """How many processes ended while they ran or loaded a version, ever."""
        blamed = series_hash({"deployment": deployment, "version": str(version)})
        return self._board.sums().get(series_hash({"name": BLAMED, "executing": str(blamed)}), 0)

    def counts(self, deployment: str, stable: int, candidate: int) -> Counts:
        """What both arms of a rollout were asked, and what became bad of it, ever."""
        sums = self._board.sums()

        def arm(version: int, name: str) -> list[int]:
            labels = {"deployment": deployment, "version": str(version), "arm": name}
            return [sums.get(series_hash(one), 0) for one in arm_series(labels)]

        return both_arms(arm(candidate, "candidate"), arm(stable, "stable"))

    def uncounted(self, deployment: str, stable: int, candidate: int, revision: int) -> str | None:
        """Why what a worker that is at this revision answers in a rollout isn't counted, where it isn't."""
        arms = ((stable, "stable"), (candidate, "candidate"))
        labels = [{"deployment": deployment, "version": str(version), "arm": arm} for version, arm in arms]
        wanted = {series_hash({**one, "name": ARMS, "outcome": "bad"}) for one in labels}
        for slot in self.workers():
            if self._board.head(slot, Head.REVISION) < revision:
                continue
            if not wanted <= {series for series, _ in self._board.series_from(slot, 0)}:
                return f"worker {slot} has no room left to count in: start cloche up anew, or deploy with --now"
        return None

    def tallies(self, rollout: int) -> dict[str, Tally]:
        """What the workers of this machine have compared in a shadow, by slot; those that ended among them."""
        found = {}
        for path in self._folder.glob("shadow-*.json"):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                told = msgspec.json.decode(path.read_bytes(), type=dict[int, Tally])
                if rollout in told:
                    found[path.stem] = told[rollout]
        return found

    def sums(self, deployment: str, stable: int, candidate: int, trial: int) -> dict[str, tuple[Sums, Sums]]:
        """The metrics of an A/B trial, of stable and of the candidate, and whom each was dealt."""
        counted = self._board.sums()

        def arm(version: int, name: str, metric: str) -> Sums:
            labels = {"deployment": deployment, "version": str(version), "arm": name}
            n, *more = (counted.get(series_hash(one), 0) for one in sums_labels(labels, metric, trial))
            return Sums(n, *(value / SCALE for value in more))

        metrics = (*METRICS, UNITS)
        return {metric: (arm(stable, "stable", metric), arm(candidate, "candidate", metric)) for metric in metrics}

    def usual_error(self, deployment: str, version: int) -> str | None:
        """What a version's requests fail with most often, in words."""
        reasons: Counter[str] = Counter()
        for labels, value in self._board.labelled():
            if (labels.get("name"), labels.get("deployment"), labels.get("version")) == (
                "cloche_errors_total", deployment, str(version),
            ):  # fmt: skip
                reasons[labels["reason"]] += value
        failed = [(reason, count) for reason, count in reasons.most_common() if reason >= "CL-E6"]
        if not failed:
            return None
        code = failed[0][0]
        return f"{CODES[code][0]} ({code})" if code in CODES else code
