"""What each part of the request path costs: the same worker with its parts switched on one by one.

The bare path reads a body, decodes it into typed rows, runs them with those of the same turn, encodes and sends,
without validation, guard, metrics and ids. Each further line adds one of them; the last is the worker as it is
served, on loopback.

    python benchmarks/request_path.py        # prints the table
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import load as generator
import msgspec
import uvloop
from field import PEERS

from cloche.app.desired import DeploymentConfig, Desired, Wished
from cloche.app.project import open_project
from cloche.app.versions import Versions, load
from cloche.core.board import Board, Role
from cloche.core.keys import EVERY_OTHER, KeyRecord, mint_key
from cloche.core.signature import count_rows
from cloche.core.units import Rate
from cloche.engine.engine import Prepared
from cloche.serving.http import App
from cloche.serving.keyring import FollowedKeys
from cloche.serving.pages import Pages
from cloche.serving.server import Server
from cloche.serving.state import WorkerState

PATH = "/predict/cancer"
CONNECTIONS = 16
WINDOW_S = 0.5
#: Each line adds one part to the line before.
PARTS = {
    "bare": "bare: read, decode, run, encode, send",
    "validation": "+ validation",
    "guard": "+ guard",
    "metrics": "+ metrics",
    "ids": "+ ids: all of Cloche's request path",
}
#: Beyond loopback a key is asked for; it stands below the line that the target is measured at.
WITH_KEY = "and with a key and its rate limit"


class _NoGuard:
    def admit_prediction(self, headers: Any) -> None:
        return None


class _NoCounters:
    def __getattr__(self, name: str) -> Any:
        return lambda *values: None


class _NoIds:
    def next(self) -> str:
        return "0" * 24


def measure(*, seconds: float, rounds: int, server_core: int = 0, client_core: int = 1) -> list[dict[str, Any]]:
    """The throughput with each part, `[{"part", "name", "rps", "cpu_us"}]`: medians of interleaved windows."""
    os.sched_setaffinity(0, {client_core})
    with tempfile.TemporaryDirectory(prefix="path-") as folder, contextlib.ExitStack() as stack:
        environ = os.environ | {"CLOCHE_DATA": f"{folder}/data"}
        prepare = [sys.executable, str(PEERS / "cloche" / "prepare.py"), folder]
        subprocess.run(prepare, env=environ, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        key = mint_key("bench", created=time.time())
        (Path(folder) / "key.json").write_bytes(msgspec.json.encode(key.record))
        variants = [*PARTS, "key"]
        running = {name: stack.enter_context(_started(name, folder, environ, server_core)) for name in variants}
        headers = {"Authorization": f"Bearer {key.text}"}
        body = _row()
        targets = {
            name: generator.target(f"http://127.0.0.1:{port}{PATH}", body, headers if name == "key" else {})
            for name, (port, _) in running.items()
        }
        windows = max(3, round(seconds * rounds / WINDOW_S))
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
        for number, name in itertools.product(range(-1, windows), variants):
            before = _cpu_s(running[name][1])
            result = generator.run(targets[name], connections=CONNECTIONS, duration_s=WINDOW_S)
            if result.errors or not result.requests:
                raise RuntimeError(f"errors under load with {name}: {result}")
            if number >= 0:  # the first window warms up
                cpu_us = (_cpu_s(running[name][1]) - before) / result.requests * 1e6
                seen[name].append((result.requests_per_second, cpu_us))
    return [
        {
            "part": name,
            "name": PARTS.get(name, WITH_KEY),
            "rps": statistics.median(rps for rps, _ in samples),
            "cpu_us": statistics.median(cpu for _, cpu in samples),
        }
        for name, samples in seen.items()
    ]


def _row() -> bytes:
    sys.path.insert(0, str(PEERS))
    from train import train

    return json.dumps({"x": train()[1][0].tolist()}).encode()


@contextlib.contextmanager
def _started(variant: str, folder: str, environ: dict[str, str], core: int) -> Iterator[tuple[int, int]]:
    """A worker with the parts up to `variant` on `core`: its port and its pid."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.listen(1024)
        command = ["taskset", "--cpu-list", str(core), sys.executable, __file__, "--serve", variant]
        command += ["--descriptor", str(listening.fileno()), "--folder", folder]
        process = subprocess.Popen(command, env=environ, pass_fds=[listening.fileno()], cwd=folder)
        port = listening.getsockname()[1]
    try:
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(10)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# the worker's side


async def _serve(variant: str, folder: Path, listening: socket.socket) -> None:
    deployed, trusted, records = _deployed(folder, with_key=variant == "key")
    with tempfile.TemporaryDirectory(prefix="board-") as place:
        board = Board(Path(place) / "board")
        member: Any = SimpleNamespace(board=board, slot=board.claim(0, Role.WORKER, os.getpid(), 1))
        state = WorkerState()
        loop = asyncio.get_running_loop()
        keys = FollowedKeys(records)
        versions = Versions(lambda one: load(one, trusted, 60.0), member, state, keys, loop, loopback=True)
        table = versions.table(Desired(revision=0, deployments=(Wished(stable=deployed),)))
        app = App(table, Pages(table, member.board, state), state, max_body=16_000_000)
        _switch_off(app, variant)
        server = Server(app, state, [listening])
        await server.start()
        state.is_ready = True
        while True:
            server.tick()
            await asyncio.sleep(1)


def _deployed(folder: Path, *, with_key: bool) -> tuple[DeploymentConfig, tuple[str, ...], tuple[KeyRecord, ...]]:
    """The deployment, who is believed to have signed it, and the keys that may ask."""
    with open_project(folder) as project:
        bundle = project.open("cancer@champion")
        trusted = tuple(project.trusted())
    record = msgspec.json.decode((folder / "key.json").read_bytes(), type=KeyRecord)
    one = DeploymentConfig(
        deployment="cancer",
        model="cancer",
        version=1,
        digest=bundle.digest,
        bundle=str(bundle.path),
        deadline_s=1.0,
        on_invalid="flag",
        keys_required=with_key,
        limits={EVERY_OTHER: Rate(1_000_000, 1)} if with_key else {},
    )
    return one, trusted, (record,) if with_key else ()


def _switch_off(app: App, variant: str) -> None:
    """Take every part out of the app that comes after `variant`."""
    order = list(PARTS)
    missing = order[order.index(variant) + 1 :] if variant in PARTS else []
    predictions: Any = app.table.predictions[0]
    deployment = predictions.deployment
    if "validation" in missing:
        deployment.engine.prepare = lambda columns: Prepared(columns, count_rows(columns), ())
    if "guard" in missing:
        predictions.guard = _NoGuard()
    if "metrics" in missing:
        deployment.counters = deployment.batcher._recorder = _NoCounters()
    if "ids" in missing:
        predictions.ids = _NoIds()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of load on each line, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--descriptor", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(options.serve, options.folder, socket.socket(fileno=options.descriptor)))
    for line in measure(seconds=options.seconds, rounds=options.rounds):
        print(f"{line['name']:50} {line['rps']:8,.0f} req/s {line['cpu_us']:6.1f} µs of CPU a request")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
