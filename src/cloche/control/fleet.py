"""What the machines of a store say of a rollout: this one's board, and the reports of the others."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import msgspec

from cloche.control.watch import Watch
from cloche.rollout.abtest import Sums
from cloche.rollout.counts import Counts
from cloche.rollout.shadow import Tally
from cloche.store.deployments import DeploymentRow, RolloutRow
from cloche.store.machines import MachineReport, Machines

#: How often a machine says how it stands, and reads what the others said.
REPORT_S = 1.0


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """A Sight is what one machine sees of a rollout; deaths are of processes that ran or loaded the candidate."""

    counts: Counts = Counts()
    deaths: int = 0
    tripped: bool = False
    trouble: str | None = None
    usual_error: str | None = None
    #: Why what it answers in the rollout isn't counted, where it isn't.
    uncounted: str | None = None
    #: By worker.
    tallies: Mapping[str, Tally] = {}
    sums: Mapping[str, tuple[Sums, Sums]] = {}


class Fleet:
    """A Fleet is this machine and, where a store is shared, all others that live; `own` is this one's id."""

    def __init__(self, watch: Watch, own: str, machines: Machines | None) -> None:
        self._watch = watch
        self._own = own
        self._machines = machines
        self._others: dict[str, MachineReport] = {}
        self._reported = float("-inf")
        self._said: MachineReport | None = None

    def exchange(self, rows: Iterable[tuple[DeploymentRow, RolloutRow]], revision: int) -> None:
        """Tell the others how this machine stands, and hear of them: once a second, or when it has changed."""
        if self._machines is None:
            return
        seen = {str(row.id): msgspec.to_builtins(self.own_sight(held, row)) for held, row in rows}
        workers = self._watch.workers()
        report = MachineReport(workers=len(workers), revision=self._watch.applied(revision), seen=seen)
        now = time.monotonic()
        urgent = self._said is None or report.revision != self._said.revision
        if urgent or now - self._reported >= REPORT_S:
            self._machines.report(report)
            self._others = self._machines.others()
            self._said, self._reported = report, now

    def are_at(self, revision: int) -> bool:
        """Whether every worker that serves, on whatever machine, has applied this revision."""
        return self._watch.are_at(revision) and all(
            report.revision >= revision for report in self._others.values() if report.workers
        )

    def sights(self, held: DeploymentRow, row: RolloutRow) -> dict[str, Sight]:
        """What each machine that lives sees of a rollout."""
        number = str(row.id)
        seen = {
            name: msgspec.convert(report.seen[number], Sight)
            for name, report in self._others.items()
            if number in report.seen
        }
        return {self._own: self.own_sight(held, row), **seen}

    def has_tripped(self, number: int) -> bool:
        """Whether a worker of this machine has taken its requests off the candidate, or one of another's had."""
        key = str(number)
        others = any(report.seen.get(key, {}).get("tripped") for report in self._others.values())
        return self._watch.has_tripped(number) or others

    def own_sight(self, held: DeploymentRow, row: RolloutRow) -> Sight:
        """What this machine sees of a rollout."""
        watch = self._watch
        uncounted = None
        if held.candidate is not None and row.state["strategy"]["trial"] != "shadow":
            # before it has traffic, who has not followed yet need not have its series
            since = held.revision if held.weight == 0 else 0
            uncounted = watch.uncounted(row.deployment, row.stable, row.candidate, since)
        return Sight(
            counts=watch.counts(row.deployment, row.stable, row.candidate),
            deaths=watch.deaths(row.deployment, row.candidate),
            tripped=watch.has_tripped(row.id),
            trouble=watch.trouble(held.revision),
            usual_error=watch.usual_error(row.deployment, row.candidate),
            uncounted=uncounted,
            tallies=watch.tallies(row.id),
            sums=watch.sums(row.deployment, row.stable, row.candidate, row.id),
        )
