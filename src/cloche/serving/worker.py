"""The life of a serving worker once its model is loaded: accept, report, drain in two phases."""

from __future__ import annotations

import asyncio
import logging
import time

from cloche.core.board import Head
from cloche.core.member import Member
from cloche.serving.http import App
from cloche.serving.server import Server
from cloche.serving.state import WorkerState, others_serve
from cloche.serving.tls import Certificates

TICK_S = 1.0
#: What is in flight when the lame-duck window ends has so long beyond its deadline.
GRACE_S = 5.0
_log = logging.getLogger("cloche.worker")


async def serve(
    member: Member,
    app: App,
    state: WorkerState,
    *,
    deadline_s: float,
    certificates: Certificates | None = None,
) -> None:
    """Answer until the supervisor asks for a drain, then leave nothing unanswered.

    Phase one: not ready, answers close their connections, new ones are still taken for the lame-duck window.
    Phase two: no more are accepted, what is in flight is finished.
    """
    loop = asyncio.get_running_loop()
    draining = asyncio.Event()
    server = Server(app, state, member.sockets, certificates)
    await server.start()
    state.is_ready = True
    member.ready()

    def drain() -> None:
        loop.call_soon_threadsafe(draining.set)

    member.on_drain(drain)
    while not draining.is_set():
        state.share(member.board, member.slot, server.connections)
        member.slot.set(Head.LOOP_NS, time.thread_time_ns())
        server.tick()
        await _until(draining, TICK_S)
    state.others_serve = lambda: others_serve(member.board)
    state.is_draining = True
    _log.info("draining", extra={"action": "draining", "connections": server.connections})
    ends = loop.time() + member.lame_duck_s
    while loop.time() < ends:
        server.tick()
        await asyncio.sleep(min(TICK_S, ends - loop.time()))
    await server.stop(deadline_s + GRACE_S)
    _log.info("drained", extra={"action": "drained"})


async def _until(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
