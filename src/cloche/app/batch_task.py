"""What a process is told that runs a batch run, and where it runs."""

from __future__ import annotations

import msgspec

from cloche.settings import Batch


class Kitchen(msgspec.Struct, frozen=True, kw_only=True):
    """A Kitchen is where the bundles of a store lie, and what may be run of them on this machine."""

    machine: str
    bundles: str
    allow_code: bool


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A Task is what `cloche.app.batch_run` is to do: begin the run of a slot, or go on with one."""

    database: str
    kitchen: Kitchen
    batch: Batch
    #: The moment to run for; None where a run is resumed.
    slot: float | None = None
    resume: str | None = None
    colour: bool = False
