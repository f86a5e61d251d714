"""A run in a process of its own, which can be killed at any moment or at a step of its own to the disk."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from tests.unit.batch.running import plan, predict, read_sink, rows, run, write_source

from cloche.batch.plan import Plan
from cloche.core.signature import Columns

ROOT = Path(__file__).resolve().parents[3]
#: What Python tells of when a file is made, gets its name or goes.
_STEPS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")


def counting(log: Path, slowly: float = 0.0) -> Callable[[Columns], Mapping[str, Any]]:
    """The model, which notes how many rows it was asked for in a file that outlives it."""

    def counted(columns: Columns) -> Mapping[str, Any]:
        with log.open("ab", buffering=0) as file:
            file.write(b"%d\n" % len(columns["x"]))
        time.sleep(slowly)
        return predict(columns)

    return counted


def predicted(log: Path) -> int:
    return sum(map(int, log.read_text().split()))


def kill_at_random(what: bytes, log: Path, *, kills: int, within_s: float, slowly: float = 0.0) -> None:
    """Go on with a run in one process after the other, each killed at a random moment of its own work."""
    wanted = msgspec.json.decode(what, type=Plan)
    moments = random.Random(wanted.sink)
    for killed in itertools.count():
        child = os.fork()
        if child == 0:
            _leave(lambda: run(wanted, counting(log, slowly)))
        if killed < kills:
            time.sleep(moments.uniform(0.02, within_s))
            os.kill(child, signal.SIGKILL)
        status = _status(child)
        if status == 0:
            print(killed)
            return
        assert status == -signal.SIGKILL, status


def in_another_process(call: str, timeout_s: float = 60) -> int:
    """The number that a function of this module prints; it is called in a process that has no threads yet."""
    command = f"from tests.unit.batch.crashing import *; {call}"
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def kill_at_every_step(folder: Path, kind: str) -> None:
    """Kill a run at its first step to the disk, another at its second, and so on; each is resumed to its end.

    It ends with the run that came to its end undisturbed. This process only forks: threads are the others' own.
    """
    table = rows(60)
    table["x"][25] = float("inf")
    source = write_source("jsonl", folder, table)
    for step in itertools.count(1):
        place = folder / str(step)
        place.mkdir()
        sink = f"{place / 'out.parquet'}/" if kind == "folder" else str(place / f"out.{kind}")
        wanted = plan(source, sink, chunk=20, rejects=str(place / "bad.jsonl"), fail_above=0.5)
        ended = _forked(lambda wanted=wanted, step=step: _run_to(wanted, step))
        assert _forked(lambda wanted=wanted: _resume(wanted, table)) == 0, f"killed at step {step}"
        if ended == 0:
            assert step > 15
            print(step)
            return
        assert ended == -signal.SIGKILL


def _run_to(wanted: Plan, step: int) -> None:
    steps = itertools.count(1)

    def hook(event: str, _words: tuple[Any, ...]) -> None:
        if event in _STEPS and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    run(wanted)


def _resume(wanted: Plan, table: dict[str, list[Any]]) -> None:
    done = run(wanted)
    assert (done.end, done.rows, done.rejected) == ("completed with rejects", 60, 1), done
    assert read_sink(wanted.sink)["id"] == [number for number in table["id"] if number != 25]
    assert read_sink(str(wanted.rejects))["row"] == [26]
    if not wanted.sink.endswith("/"):
        left = {path.name for path in Path(wanted.sink).parent.iterdir()}
        name = Path(wanted.sink).name
        assert left == {name, f".{name}.finished", "bad.jsonl", ".bad.jsonl.finished"}, left


def _forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        _leave(work)
    return _status(child)


def _leave(work: Callable[[], object]) -> None:
    """Do the work and end this process."""
    status = 1
    try:
        work()
        status = 0
    except BaseException as error:  # noqa: BLE001 - the parent knows it by the status
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def _status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
