"""A project as it is while a supervisor serves it, without one."""

from __future__ import annotations

import msgspec

from cloche.app.describe import MACHINE_FILE, Machine
from cloche.app.project import Project
from cloche.app.up import runtime_folder
from cloche.control import lock


def hold_as_served(project: Project) -> int:
    """What `cloche up` leaves in the runtime folder; served until the descriptor that comes back is closed."""
    runtime, serve = runtime_folder(project.settings), project.settings.serve
    machine = Machine(
        id=project.machine,
        database=project.settings.database,
        bundles=str(project.bundles.root),
        online=project.settings.online,
        loopback=True,
        workers=serve.workers,
        least_workers=serve.least_workers,
        runtime=str(runtime),
        isolate_above=serve.isolate_above,
    )
    held = lock.hold(runtime)
    (runtime / MACHINE_FILE).write_bytes(msgspec.json.encode(machine))
    return held
