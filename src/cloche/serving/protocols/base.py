"""What a dialect is: one wire protocol for predictions, a file each, found through an entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec
from starlette.routing import Route

from cloche.core.errors import ClocheError, InputError
from cloche.core.plugins import plugins
from cloche.core.signature import Columns, Signature
from cloche.engine.validate import Flag

GROUP = "cloche.dialects"
Headers: TypeAlias = list[tuple[bytes, bytes]]

#: Elements that one request may hold, over all of its tensors.
MOST_ELEMENTS = 16_000_000


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """Live is what a dialect may know of the version that answers: names, signature, an example."""

    deployment: str
    model: str
    version: int
    signature: Signature
    #: `onnx`, `python`: the kind of its runtime.
    platform: str
    description: str
    #: A few real rows that the model was packed with.
    examples: Columns
    #: What the model answered to these rows, where that is known.
    answers: Columns | None = None
    #: The aliases that pointed at it when the server started.
    aliases: tuple[str, ...] = ()
    #: Whether callers need a key.
    keys_required: bool = False
    #: Every deployment that answers in the worker, where it is not the only one.
    neighbours: tuple[str, ...] = ()
    #: Whether the worker answers now.
    is_ready: Callable[[], bool]

    @property
    def ref(self) -> str:
        return f"{self.model}:{self.version}"

    @property
    def listed(self) -> list[str]:
        """What the worker answers for, by name."""
        return sorted(self.neighbours) or [self.deployment]


class Answer(NamedTuple):
    """An Answer is what goes on the wire."""

    status: int
    headers: Headers
    body: bytes


class Dialect(Protocol):
    """A Dialect turns a body into columns and outputs into a body, for one live version."""

    name: str
    #: The paths below which errors are told as this dialect tells them.
    roots: Sequence[str]

    def __init__(self, live: Live) -> None: ...

    @classmethod
    def fits(cls, signature: Signature) -> bool:
        """Whether it can speak for such a model; it is not mounted for others."""
        ...

    def paths(self) -> Sequence[str]:
        """The paths that take a POST of rows."""
        ...

    def routes(self) -> Sequence[Route]:
        """What else the protocol answers (metadata, readiness); the guard stands before these as well."""
        ...

    def decode(self, body: bytes, headers: Mapping[bytes, bytes]) -> tuple[Columns, Any]:
        """The columns of a body, of the signature's types, and what `encode` must know of the request.

        That second thing (one row or many, an id, binary outputs) is the dialect's own. InputError where the
        form or a type is wrong.
        """
        ...

    def encode(self, outputs: Columns, flags: tuple[Flag, ...], wants: Any, prediction_id: str) -> Answer: ...

    def problem(self, error: ClocheError, request_id: str) -> Answer: ...

    def openapi(self) -> Mapping[str, Any]:
        """The OpenAPI path items of `paths` and `routes`."""
        ...


def find_dialects() -> list[type[Dialect]]:
    """Every dialect that is installed, by name."""
    return [point.load() for point in plugins(GROUP).values()]


def dialects_for(live: Live) -> list[Dialect]:
    """Every dialect that is installed and can speak for this version."""
    return [dialect(live) for dialect in find_dialects() if dialect.fits(live.signature)]


def flag_headers(flags: Sequence[Flag]) -> Headers:
    """How many values were marked, for a protocol whose answer has no place for which."""
    return [(b"cloche-flags", str(len(flags)).encode())] if flags else []


def check_media_type(headers: Mapping[bytes, bytes], taken: Sequence[bytes]) -> None:
    """InputError CL-E115 for a body that came as something else; one that does not say is taken."""
    given = headers.get(b"content-type")
    if given is None or given in taken or given.partition(b";")[0].strip().lower() in taken:
        return
    raise InputError(
        f"the body came as {given.decode('latin-1')[:80]!r}",
        code="CL-E115",
        hint=f"send {' or '.join(one.decode() for one in taken)}",
    )
