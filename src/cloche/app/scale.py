"""How many workers there are: as cloche.toml says, the load wants or a person does; the supervisor is told."""

from __future__ import annotations

import logging
import time

import msgspec

from cloche.app.describe import Machine
from cloche.control.meter import Meter
from cloche.core.board import Head
from cloche.core.machine import usable_cores
from cloche.core.member import Member
from cloche.scaling import Decision, History, Policy, desired_workers
from cloche.store.database import Store
from cloche.store.scale import Scale

#: How often the load is measured.
TICK_S = 1.0
_log = logging.getLogger("cloche.controller")


class Scaler:
    """A Scaler is what the controller of a machine knows of its load, and has the supervisor do about it."""

    def __init__(self, machine: Machine, store: Store, member: Member) -> None:
        self._machine = machine
        self._member = member
        self._wish = Scale(store, machine.id)
        self._meter = Meter(member.board)
        self._policy = Policy(least=machine.least_workers, most=machine.workers, cores=usable_cores())
        self._history = History()
        self._looked = float("-inf")
        self._seen: int | None = None
        self._wanted: int | None = None
        is_fixed = machine.least_workers == machine.workers
        self._said = machine.workers if is_fixed else 0

    def turn(self, revision: int, hosted: frozenset[str]) -> None:
        """Look at the load once a second, and at what a person wants when the store has changed.

        Deployments that are `hosted` keep no worker busy while their model works.
        """
        now = time.monotonic()
        if hosted != self._meter.hosted:
            self._meter.hosted = hosted
            is_inside = len(hosted) < len(self._machine.online)
            self._policy = msgspec.structs.replace(self._policy, cores=usable_cores() if is_inside else None)
        changed = revision != self._seen
        if changed:
            self._wanted, self._seen = self._wish.get(), revision
        if not changed and now - self._looked < TICK_S:
            return
        if now - self._looked >= TICK_S:
            self._looked = now
            if self._policy.least < self._policy.most:
                load = self._meter.read(now)
                self._history = self._history if load is None else self._history.then(load, self._policy)
        self._act(self._decide())

    def _decide(self) -> Decision:
        if self._wanted is not None:
            return Decision(self._wanted, "by hand")
        if self._policy.least == self._policy.most:
            return Decision(self._policy.most, "as cloche.toml says")
        if not self._history.loads:  # who begins to look takes nothing away
            ready, starting = self._meter.counts()
            return Decision(max(self._policy.least, ready + starting), "nothing was measured yet")
        return desired_workers(self._history, self._policy)

    def _act(self, decision: Decision) -> None:
        self._member.slot.set(Head.DESIRED, decision.workers)
        held = sum(self._meter.counts())
        if decision.workers == held:
            self._said = held
            return
        if decision.workers != self._said:
            words = f"{decision.workers} workers, there are {held}: {decision.why}"
            _log.info("%s", words, extra={"action": "scaled", "workers": decision.workers})
            self._said = decision.workers
        self._member.ask_for("worker", decision.workers)  # again and again: it changes nothing where it is so
