"""The life of a serving worker once its model is loaded: accept, report, drain in two phases."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from cloche.core.board import Head
from cloche.core.member import Member
from cloche.serving.state import WorkerState, others_serve

TICK_S = 1.0
#: What is in flight when the lame-duck window ends has so long beyond its deadline.
GRACE_S = 5.0
_log = logging.getLogger("cloche.worker")


class Door(Protocol):
    """A Door is a server of one protocol, on sockets of the worker's."""

    @property
    def connections(self) -> int: ...
    async def start(self) -> None: ...
    def tick(self) -> None:
        """Once a second."""
        ...

    def drain(self) -> None:
        """Send callers elsewhere; who comes all the same is answered."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Accept no more, let what is in flight finish (at most `grace_s`), close."""
        ...


async def serve(member: Member, doors: Sequence[Door], state: WorkerState, *, deadline_s: float) -> None:
    """Answer until the supervisor asks for a drain, then leave nothing unanswered.

    Phase one: not ready, callers are sent elsewhere, new connections are still taken for the lame-duck window.
    Phase two: no more are accepted, what is in flight is finished.
    """
    loop = asyncio.get_running_loop()
    draining = asyncio.Event()
    for door in doors:
        await door.start()
    state.is_ready = True
    member.ready()

    def drain() -> None:
        loop.call_soon_threadsafe(draining.set)

    member.on_drain(drain)
    while not draining.is_set():
        # HTTP's: gRPC's connections are long, and are moved by their age
        state.share(member.board, member.slot, doors[0].connections)
        member.slot.set(Head.LOOP_NS, time.thread_time_ns())
        _tick(doors)
        await _until(draining, TICK_S)
    state.others_serve = lambda: others_serve(member.board)
    state.is_draining = True
    connections = sum(door.connections for door in doors)
    _log.info("draining", extra={"action": "draining", "connections": connections})
    for door in doors:
        door.drain()
    ends = loop.time() + member.lame_duck_s
    while loop.time() < ends:
        _tick(doors)
        await asyncio.sleep(min(TICK_S, ends - loop.time()))
    await asyncio.gather(*(door.stop(deadline_s + GRACE_S) for door in doors))
    _log.info("drained", extra={"action": "drained"})


def _tick(doors: Sequence[Door]) -> None:
    for door in doors:
        door.tick()


async def _until(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
