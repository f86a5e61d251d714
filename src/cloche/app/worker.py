"""A serving worker, wired: `python -m cloche.app.worker FD` is what the supervisor starts."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from functools import partial
from pathlib import Path

import msgspec
import uvloop

from cloche.app.desired import DeploymentConfig, Desired, read_desired
from cloche.app.follow import Follower
from cloche.app.versions import Loaded, Versions, await_host, load
from cloche.core.aside import giving_way
from cloche.core.errors import ClocheError
from cloche.core.extras import load_extra
from cloche.core.keys import KeyRecord
from cloche.core.member import Member
from cloche.monitoring import log
from cloche.serving.http import App
from cloche.serving.keyring import FollowedKeys
from cloche.serving.pages import Pages
from cloche.serving.server import Server
from cloche.serving.state import WorkerState
from cloche.serving.tls import Certificates
from cloche.serving.worker import Door, serve


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A WorkerConfig is what `cloche up` hands to each of its workers; what they serve stands in `desired`."""

    loopback: bool
    #: What is spoken on each of the sockets that it inherits, in their order.
    doors: tuple[str, ...] = ("http",)
    max_body: int
    database: str
    #: The file of a Desired.
    desired: str = ""
    #: For calls that no caller waits for: golden examples and warm-up.
    load_timeout_s: float = 300.0
    keys: tuple[KeyRecord, ...] = ()
    #: For an app that follows no desired file, which has its own.
    trusted: tuple[str, ...] = ()
    #: The files of the certificate and its key, where TLS is spoken.
    tls: tuple[str, str] | None = None


async def _run(config: WorkerConfig, desired: Desired, member: Member) -> None:
    state = WorkerState()
    slot = member.slot

    def refused(code: str) -> None:
        slot.cells[slot.series(name="cloche_refused_total", reason=code)] += 1

    state.refused = refused
    keys = FollowedKeys(config.keys, config.database)
    loop = asyncio.get_running_loop()
    versions = Versions(
        partial(_load, config, state), member, state, keys, loop,
        loopback=config.loopback,
    )  # fmt: skip
    # a candidate that ends its process must not keep it from serving: it comes when the rest is there
    table = versions.table(desired.proven())
    app = App(table, Pages(table, member.board, state), state, max_body=config.max_body)
    follower = Follower(Path(config.desired), app, versions, (member.board, slot), state, loop)
    # what was made so far stays for good: the collector need not look at it again and again
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    follower.start(desired.proven())
    await serve(member, _doors(config, member, app, state), state, deadline_s=desired.deadline_s)
    follower.stop()
    versions.close()


def _load(config: WorkerConfig, state: WorkerState, one: DeploymentConfig) -> Loaded:
    path = Path(config.desired)

    def is_wanted() -> bool:
        held = read_desired(path).deployments
        return any(version.digest == one.digest for each in held for version in each.versions)

    await_host(one, config.load_timeout_s, is_wanted)
    make = partial(load, one, read_desired(path).trusted, config.load_timeout_s)
    return giving_way(make) if state.is_ready else make()


def _doors(config: WorkerConfig, member: Member, app: App, state: WorkerState) -> list[Door]:
    """A server for each of the sockets, by what is spoken there."""
    doors: list[Door] = []
    for name, listening in zip(config.doors, member.sockets, strict=True):
        certificates = None
        if config.tls is not None:
            cert, key = config.tls
            certificates = Certificates(Path(cert), Path(key), "http/1.1" if name == "http" else "h2")
        if name == "http":
            doors.append(Server(app, state, [listening], certificates))
        else:
            grpc = load_extra("cloche.serving.grpc.server", "gRPC", "grpc")
            doors.append(grpc.GrpcServer(app, state, [listening], certificates))
    return doors


def main() -> None:
    member = Member.from_fd(int(sys.argv[1]))
    logs = log.start(sys.stderr, colour=member.colour)
    try:
        config = msgspec.convert(member.config, WorkerConfig)
        desired = read_desired(Path(config.desired))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(config, desired, member))
    except ClocheError as error:
        sys.exit(member.fail(error))
    logs.stop()
    sys.stderr.flush()
    os._exit(0)  # a call into a model that never returns must not hold up the exit


if __name__ == "__main__":
    main()
