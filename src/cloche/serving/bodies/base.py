"""What a body format is: a table in bytes, a file each, found through an entry point; and which one is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from cloche.core.errors import InputError, MissingExtraError
from cloche.core.plugins import plugins
from cloche.core.signature import Columns, Signature, row_numbers
from cloche.serving.protocols.schema import MOST_SHOWN

GROUP = "cloche.bodies"
_JSON = "application/json"


class Body(Protocol):
    """A Body reads rows of one signature from bytes and writes answers to them."""

    name: str
    #: What stands in Content-Type and Accept; the first is how the documentation calls it.
    media_types: tuple[str, ...]

    def __init__(self, signature: Signature) -> None: ...

    def prepare(self) -> None:
        """Load what the format needs; MissingExtraError where that is not installed."""
        ...

    def read(self, body: bytes) -> Columns:
        """The columns, of the signature's types. InputError names row and column."""
        ...

    def write(self, outputs: Columns) -> bytes:
        """A row an answer, in their order; probabilities are a column a class (`probabilities.yes`)."""
        ...

    def example(self, rows: Columns) -> str | None:
        """A body of these input rows as the documentation shows it; None for a binary format."""
        ...


class Table(NamedTuple):
    """A Table is the wish for an answer in a body format, by the media type that was asked for."""

    body: Body
    media_type: str

    def write(self, outputs: Columns) -> tuple[tuple[bytes, bytes], bytes]:
        """The Content-Type and the body of an answer."""
        return (b"content-type", self.media_type.encode()), self.body.write(outputs)


def find_bodies() -> list[type[Body]]:
    """Every body format that is installed, by name."""
    return [point.load() for point in plugins(GROUP).values()]


class Bodies:
    """Bodies are the formats that a dialect takes beside JSON; None stands for JSON in what it gives."""

    def __init__(self, signature: Signature, only: Iterable[str] | None = None) -> None:
        bodies = [body(signature) for body in find_bodies() if only is None or body.name in only]
        self._bodies = tuple(bodies)
        self._by_type = {media_type: body for body in bodies for media_type in body.media_types}
        self._offers = (_JSON, *self._by_type)
        self._shown = ", ".join((_JSON, *(body.media_types[0] for body in bodies)))

    def came(self, content_type: bytes) -> Table | None:
        """The format that a body says it has. Raises InputError CL-E115."""
        text = content_type.decode("latin-1")
        name, _, parameters = text.partition(";")
        charset = _parameter(parameters, "charset")
        media_type = name.strip().lower()
        if media_type == _JSON:
            return None
        body = self._by_type.get(media_type)
        if body is None:
            raise InputError(f"the body came as {text[:80]!r}", code="CL-E115", hint=f"send one of {self._shown}")
        if charset not in (None, "utf-8", "utf8", "us-ascii"):
            raise InputError(f"the body came in {charset[:40]}", code="CL-E115", hint="send UTF-8")
        _prepare(body, media_type, "CL-E115")
        return Table(body, media_type)

    def wanted(self, accept: bytes, came: Table | None) -> Table | None:
        """The format of the answer, as the request came where the caller does not mind.

        Raises InputError CL-E121 where no format that is there is accepted.
        """
        first = came.media_type if came is not None else _JSON
        chosen = choose(accept.decode("latin-1"), (first, *self._offers))
        if chosen is None:
            shown = accept.decode("latin-1")[:80]
            raise InputError(
                f"no answer can be given as {shown!r}", code="CL-E121", hint=f"accept one of {self._shown}"
            )
        if chosen == _JSON:
            return None
        body = self._by_type[chosen]
        _prepare(body, chosen, "CL-E121")
        return Table(body, chosen)

    def content(self, rows: Columns) -> Mapping[str, Any]:
        """The media types of an OpenAPI request body, with an example where the format is text."""
        content: dict[str, Any] = {}
        for body in self._bodies:
            example = body.example(rows) if row_numbers(rows) <= MOST_SHOWN else None
            described: dict[str, Any] = (
                {} if example is None else {"schema": {"type": "string"}, "example": example}
            )
            content[body.media_types[0]] = described
        return content

    def answers(self) -> Mapping[str, Any]:
        """The media types of an OpenAPI answer."""
        return {body.media_types[0]: {} for body in self._bodies}


def _prepare(body: Body, media_type: str, code: str) -> None:
    try:
        body.prepare()
    except MissingExtraError as error:
        raise InputError(
            f"{media_type} is not understood here: {error.message}",
            code=code,
            hint=f"ask whoever runs the server for {error.hint}, or use {_JSON} or text/csv",
        ) from None


def choose(accept: str, offers: Sequence[str]) -> str | None:
    """The offer of the highest quality (RFC 9110, 12.5.1), the first among equals; None where none is accepted."""
    ranges = [_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    best, best_quality = None, 0.0
    for offer in offers:
        kind = offer.partition("/")[0]
        # the range that says most about this offer decides
        fitting = [
            (specificity, quality)
            for name, quality in ranges
            for specificity, one in enumerate(("*/*", f"{kind}/*", offer))
            if name == one
        ]
        quality = max(fitting)[1] if fitting else 0.0
        if quality > best_quality:
            best, best_quality = offer, quality
    return best


def _range(text: str) -> tuple[str, float]:
    name, _, parameters = text.partition(";")
    try:
        quality = float(_parameter(parameters, "q") or 1.0)
    except ValueError:
        quality = 0.0
    return name.strip().lower(), quality if 0.0 <= quality <= 1.0 else 0.0


def _parameter(parameters: str, name: str) -> str | None:
    for part in parameters.split(";"):
        key, _, value = part.partition("=")
        if key.strip().lower() == name:
            return value.strip().strip('"').lower()
    return None
