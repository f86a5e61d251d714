"""`cloche up`: settings and a model become one wish, and this process becomes the supervisor that runs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from cloche.app.choose import Chosen, choose, choose_all
from cloche.app.describe import MACHINE_FILE
from cloche.app.desired import FILE, replace, write_desired
from cloche.app.project import Project
from cloche.app.refusals import check_storage
from cloche.app.wish import make_wish, python_command, settle
from cloche.control import lock
from cloche.core.errors import ConfigError
from cloche.core.member import pass_json
from cloche.core.platform import runtime_directory
from cloche.settings import Settings
from cloche.store.keys import Keys
from cloche.store.machines import Machines

if TYPE_CHECKING:
    from cloche.bundle.pack import Progress

#: A unix socket's path has at most 103 bytes on macOS, 107 on Linux; the longest of ours is this much more.
_LONGEST_RUNTIME = 103 - len("/member-63.sock")
#: A machine that said nothing for so long does not count any more as one that shares the database.
_SEEN_S = 60.0


def up(
    project: Project,
    model: str | None = None,
    *,
    tls_elsewhere: bool = False,
    as_json: bool = False,
    colour: bool = False,
    note: Callable[[str], None] | None = None,
    packing: AbstractContextManager[Progress | None] | None = None,
) -> NoReturn:
    """Serve `model`, or all that `cloche.toml` describes; this process becomes the supervisor and does not return.

    `model` is a reference, a bundle's folder or archive, or a model file or class, which is packed first.
    `tls_elsewhere` says that a proxy in front ends TLS, `colour` that stderr takes it.

    Raises ConflictError CL-E501 when it runs already, RefusedError (CL-E405 signer, CL-E406 code, CL-E409
    network, CL-E412 memory), NotFoundError, ConfigError.
    """
    runtime = runtime_folder(project.settings)
    lock.check_free(runtime)
    if project.store.is_shared:
        check_storage(project.settings.storage, [*Machines(project.store, project.machine).others(_SEEN_S)])
    with packing or nullcontext() as progress:
        chosen = choose_all(project, progress) if model is None else [choose(project, model, progress=progress)]
    note_limits(project, chosen, note)
    chosen = settle(project, chosen)
    batch = project.settings.batch if model is None else ()
    wish, desired, machine = make_wish(
        project, chosen, runtime, tls_elsewhere=tls_elsewhere, as_json=as_json, batch=batch
    )
    write_desired(desired, runtime / FILE)
    replace(runtime / MACHINE_FILE, msgspec.json.encode(machine))
    project.close()
    become_supervisor(wish | {"colour": colour}, runtime)


def runtime_folder(settings: Settings) -> Path:
    """The private folder of sockets and board; ConfigError where its path is too long for a socket."""
    folder = runtime_directory(settings.runtime_root, settings.data)
    if len(os.fsencode(folder)) > _LONGEST_RUNTIME:
        raise ConfigError(
            f"{folder} is too long a path for sockets to lie in",
            code="CL-E201",
            hint="set XDG_RUNTIME_DIR or TMPDIR to a folder with a shorter path",
        )
    return folder


def become_supervisor(wish: dict[str, Any], runtime: Path) -> NoReturn:
    """Replace this process's program by the supervisor's and hand it the wish."""
    descriptor = pass_json(wish, runtime)
    os.set_inheritable(descriptor, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, python_command("cloche.control.supervisor", str(descriptor)))


def note_limits(project: Project, chosen: Sequence[Chosen], note: Callable[[str], None] | None) -> None:
    """Say which limits are nobody's: a name that is mistyped would leave its caller with the default."""
    known = sorted({key.name for key in Keys(project.store).load()})
    strange = sorted({name for one in chosen for name in one.online.access.limits} - {*known, "default"})
    if strange and note is not None:
        keys = f"there are: {', '.join(known)}" if known else "there are none yet"
        note(f"warning: no API key has the name of these limits: {', '.join(strange)} ({keys})")
