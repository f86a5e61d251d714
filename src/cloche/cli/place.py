"""Where a command acts: in this project, or through the admin API of another host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Parameter

from cloche.app.acts import Acts
from cloche.cli.here import open_here
from cloche.cli.terminal import Terminal
from cloche.core.errors import ConfigError

if TYPE_CHECKING:
    from cloche.client.admin import Admin

Place: TypeAlias = "Acts | Admin"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """An Elsewhere is another host, where one is named."""

    host: Annotated[str | None, Parameter(help="Act on that host: the address of its admin API.")] = None
    key: Annotated[str | None, Parameter(help="The API key for it; CLOCHE_KEY when not given.")] = None
    cafile: Annotated[
        Path | None, Parameter(help="Trust the certificates in this file (PEM), not the system's.")
    ] = None


@contextmanager
def place(terminal: Terminal, elsewhere: Elsewhere | None, *, create: bool = True) -> Iterator[Place]:
    """Here or there; without `create` nothing is written here."""
    where = elsewhere or Elsewhere()
    if where.host is not None:
        with connect(terminal, where.host, where) as there:
            yield there
        return
    if where.key is not None or where.cafile is not None:
        raise ConfigError("--key and --cafile are for another host", hint="add --host URL, or leave them out")
    with open_here(terminal, create=create) as project:
        yield Acts(project)


def connect(terminal: Terminal, host: str, where: Elsewhere) -> Admin:
    """The admin API of a host, with the key of the flag, else of the environment."""
    # an HTTP client takes a while, and is needed only here
    admin: type[Admin] = import_module("cloche.client.admin").Admin
    return admin(host, key=where.key or terminal.environ.get("CLOCHE_KEY"), cafile=where.cafile)
