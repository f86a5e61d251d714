"""What a process is told that runs a batch run, and where it runs."""

from __future__ import annotations

import os

import msgspec

from cloche.core.platform import is_alive, process_start
from cloche.settings import Batch


class RunPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A RunPlace is where the bundles of a store lie, and what may be run of them on this machine."""

    machine: str
    bundles: str
    allow_code: bool


def holder_here(machine: str) -> str:
    """This process, as others see who holds a run."""
    pid = os.getpid()
    return f"{machine} process {pid}.{process_start(pid)}"


def is_gone(holder: str, machine: str) -> bool:
    """Whether the holder was a process of this machine that lives no more; its last sign may be young."""
    where, _, process = holder.partition(" process ")
    pid, dot, start = process.partition(".")
    return where == machine and bool(dot) and not is_alive(int(pid), int(start))


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A Task is what `cloche.app.batch_run` is to do: begin the run of a slot, or go on with one."""

    database: str
    place: RunPlace
    batch: Batch
    #: The moment to run for; None where a run is resumed.
    slot: float | None = None
    resume: str | None = None
    colour: bool = False
