"""Which runtime hosts there are: those of what is desired, and of what was, until nobody asks them any more."""

from __future__ import annotations

import time

import msgspec

from cloche.app.desired import Desired
from cloche.app.placement import HostConfig
from cloche.control.watch import Watch
from cloche.core.member import Member
from cloche.serving.worker import GRACE_S

#: How often the supervisor is told: it may be another by now, or had no seat free.
TELL_S = 1.0


class Hosts:
    """A Hosts is what the controller of a machine has its supervisor run besides workers."""

    def __init__(self, member: Member, watch: Watch, desired: Desired) -> None:
        self._member = member
        self._watch = watch
        self._desired = desired
        self._held = _by_socket(desired)
        self._wait_s = 0.0
        #: When those go that are not desired any more; None until every worker knows.
        self._leaving: dict[str, float | None] = {}
        self._told: list[HostConfig] = []
        self._tell_at = float("-inf")

    def turn(self, desired: Desired) -> None:
        """Have the supervisor start what is desired, and end what was once its last request is answered."""
        now = time.monotonic()
        if desired is not self._desired:
            # what was asked under the old deadlines may be under way for so long
            self._take(desired, max(desired.deadline_s, self._desired.deadline_s))
        if None in self._leaving.values() and self._watch.are_at(desired.revision):
            ends = now + self._wait_s
            self._leaving = {one: ends if at is None else at for one, at in self._leaving.items()}
        for socket in [one for one, at in self._leaving.items() if at is not None and at <= now]:
            del self._leaving[socket], self._held[socket]
        held = list(self._held.values())
        if held != self._told or now >= self._tell_at:
            self._member.ask_for_hosts([msgspec.to_builtins(one) for one in held])
            self._told, self._tell_at = held, now + TELL_S

    def _take(self, desired: Desired, deadline_s: float) -> None:
        wanted = _by_socket(desired)
        self._held |= wanted
        self._leaving = {one: self._leaving.get(one) for one in self._held if one not in wanted}
        self._wait_s = deadline_s + GRACE_S + 1.0
        self._desired = desired


def _by_socket(desired: Desired) -> dict[str, HostConfig]:
    return {one.socket: one for one in desired.hosts()}
