"""The controller, wired: `python -m cloche.app.controller FD` is what the supervisor starts.

It hands what the store says to the workers of this machine, takes rollouts from stable to candidate, and says how
many workers there are to be, and which hosts. In threads of their own run beside that: what carries the board's
counts to the statistics, what begins batch runs when they are due, and the admin API where `[serve] admin` says
so.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cloche.app.admin.wire import admin
from cloche.app.describe import Machine, Shelf, alias_of, policy_of, read_machine, strategy_of
from cloche.app.desired import read_desired, stamp, write_desired
from cloche.app.hosts import Hosts
from cloche.app.proof import ProcessProof, ProofTask
from cloche.app.refusals import check_code, check_device, check_memory, check_seats
from cloche.app.scale import Scaler
from cloche.app.schedules import Schedules
from cloche.control.carrier import Carrier
from cloche.control.fleet import Fleet
from cloche.control.rollouts import CLOCHE, Plan, Proof, Rollouts, begin
from cloche.control.watch import Watch
from cloche.core.errors import ClocheError
from cloche.core.machine import free_memory
from cloche.core.member import Member
from cloche.monitoring import log
from cloche.store.database import Store
from cloche.store.deployments import DeploymentRow, Deployments
from cloche.store.machines import LEASE_S, Lease, Machines

#: How often the store is asked whether anything changed; workers look at the file as often again.
POLL_S = 0.1
_log = logging.getLogger("cloche.controller")


class ControllerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A ControllerConfig is what `cloche up` hands to the controller; workers follow the file `desired`.

    `machine` is the file of a Machine, which `cloche apply` replaces.
    """

    machine: str
    desired: str
    #: The settings, where there is an admin API.
    admin: dict[str, Any] | None = None


class _Refused:
    """A proof that failed before it began."""

    def __init__(self, words: str) -> None:
        self._words = words

    def outcome(self) -> str | None:
        return self._words

    def close(self) -> None:
        pass


class Controller:
    """A Controller makes what is served match what the store says; `turn` is one look."""

    def __init__(
        self,
        config: ControllerConfig,
        machine: Machine,
        store: Store,
        member: Member,
        lease: Lease | None,
        beside: Sequence[Carrier | Schedules],
    ) -> None:
        self._store = store
        self._machine_file = Path(config.machine)
        self._file = Path(config.desired)
        self._read = stamp(self._machine_file)
        self._take(machine)
        self._lease = lease
        self._beside = beside
        watch = Watch(member.board, self._file.parent)
        machines = Machines(store, machine.id) if store.is_shared else None
        self._fleet = Fleet(watch, machine.id, machines)
        self._scaler = Scaler(machine, store, member)
        # what a controller before this one had handed out: its hosts may have callers still
        self._desired = read_desired(self._file)
        self._hosts = Hosts(member, watch, self._desired)
        self._deployments = Deployments(store, self._lease)
        self._rollouts = Rollouts(store, self._fleet, lease=self._lease, plan=self._plan, prove=self._prove)
        self._leads = self._lease is None
        self._asked = float("-inf")
        self._seen: int | None = None
        self._followed: int | None = None
        self._rows: dict[str, DeploymentRow] = {}

    def turn(self) -> None:
        """Take over what changed, and, as the leader, go on with what is under way. Raises ClocheError."""
        fresh = stamp(self._machine_file)
        if fresh != self._read:
            self._take(read_machine(self._machine_file))
            self._read, self._seen = fresh, None
        revision = self._store.revision()
        if revision != self._seen:
            rows = self._shelf.deployments.list()
            self._rows = {row.name: row for row in rows if row.name in self._online}
            self._desired = self._shelf.desired()
            write_desired(self._desired, self._file)
            self._seen = self._desired.revision
        self._hosts.turn(self._desired)
        self._scaler.turn(revision, self._desired.hosted())
        going = [row for row in self._rows.values() if row.rollout is not None]
        self._fleet.exchange(
            ((row, self._deployments.rollout(row.rollout)) for row in going if row.rollout is not None), revision
        )
        if not self._is_leader():
            self._rollouts.close()
            return
        if revision != self._followed:
            self._follow_aliases()
            self._followed = revision
        self._cool()
        self._rollouts.turn(self._rows)

    def _take(self, machine: Machine) -> None:
        self._machine = machine
        self._shelf = Shelf(machine, self._store)
        self._online = {one.name: one for one in machine.online}

    def close(self) -> None:
        self._rollouts.close()
        if self._lease is not None:
            self._lease.give_up()

    def _is_leader(self) -> bool:
        if self._lease is not None and time.monotonic() - self._asked > LEASE_S / 4:
            leads = self._lease.take()
            if leads and not self._leads:
                _log.info("this machine's controller leads", extra={"action": "leads"})
            self._leads, self._asked = leads, time.monotonic()
            for one in self._beside:
                one.leads = leads
        return self._leads

    def _follow_aliases(self) -> None:
        """An alias that was moved by hand, and by which a deployment was asked for, begins a rollout."""
        for row in self._rows.values():
            alias = alias_of(row.asked)
            if alias is None or row.rollout is not None:
                continue
            version = self._shelf.registry.aliases(row.model).get(alias, row.resolved)
            if version == row.resolved:
                continue
            self._deployments.follow(row.name, version)
            if version == row.stable:
                continue
            why = f"{row.model}@{alias} was moved to version {version}"
            strategy = strategy_of(self._online[row.name])
            try:
                begin(self._deployments, row.name, version, strategy, self._store.now(), CLOCHE, why)
            except ClocheError as error:
                _log.warning("%s, but: %s", why, error.message, extra={"action": "alias_not_followed"})

    def _cool(self) -> None:
        now = self._store.now()
        for row in self._rows.values():
            if row.warm_until is not None and row.warm_until <= now:
                self._deployments.cool(row.name)

    def _plan(self, row: DeploymentRow) -> Plan:
        online = self._online[row.name]
        return Plan(
            policy=policy_of(online, shares=self._machine.workers + 1),
            warm_s=online.rollout.keep_previous_warm_s,
            alias=alias_of(row.asked),
        )

    def _prove(self, row: DeploymentRow, number: int) -> Proof:
        online, machine = self._online[row.name], self._machine
        try:
            version = self._shelf.described(online, row.model, number)
            bundle = self._shelf.bundle(self._shelf.version(row.model, number))
            check_code(bundle, allowed=machine.allow_code)
            check_device(bundle, online.device)
            hosts = {one.socket for one in self._desired.hosts()} | {*version.hosts}
            check_seats(len(hosts), machine.host_seats)
            check_memory([bundle], machine.workers, free_memory(), machine.isolate_above)
        except ClocheError as error:
            return _Refused(error.message)
        trusted = tuple(sorted(self._shelf.trusted()))
        # by itself, whoever is to run it: its hosts come once it has loaded
        alone = msgspec.structs.replace(version, hosts=())
        task = ProofTask(version=alone, trusted=trusted, timeout_s=machine.load_timeout_s)
        return ProcessProof(task, self._file.parent)


def main() -> None:
    member = Member.from_fd(int(sys.argv[1]))
    logs = log.start(sys.stderr, colour=member.colour)
    stop = threading.Event()
    member.on_drain(stop.set)
    try:
        config = msgspec.convert(member.config, ControllerConfig)
        machine = read_machine(Path(config.machine))
        with Store(machine.database) as store:
            # who shares a database may not be alone
            lease = Lease(store, machine.id) if store.is_shared else None
            with (
                Carrier(member.board.path, machine.database, machine.id, lease) as carrier,
                Schedules(Path(config.machine), store, lease, colour=member.colour) as schedules,
            ):
                with admin(config.admin, member.sockets, member.drain):
                    controller = Controller(config, machine, store, member, lease, (carrier, schedules))
                    member.ready()
                    _run(controller, stop)
                    controller.close()
                carrier.outlast(member.board)
    except ClocheError as error:
        sys.exit(member.fail(error))
    logs.stop()


def _run(controller: Controller, stop: threading.Event) -> None:
    """One look after the other until told to stop; what can't be done is said once, and tried again."""
    said = ""
    while not stop.wait(POLL_S):
        try:
            controller.turn()
        except ClocheError as error:
            if error.message != said:
                _log.error("%s", error.message, extra={"action": "controller_waits", "code": error.code})
            said = error.message
            stop.wait(1.0)
        else:
            said = ""


if __name__ == "__main__":
    main()
