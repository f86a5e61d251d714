"""The playground: a form made from the signature and filled with a real example, to ask the model by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloche.core.errors import InputError
from cloche.core.signature import FLOATS, INTEGERS, Columns, Field
from cloche.engine.engine import Prepared
from cloche.engine.validate import describe, value_problem
from cloche.serving.protocols.base import Dialect, Live
from cloche.serving.protocols.schema import example_row
from cloche.serving.templates import render

#: A model with more inputs gets one box for the whole row.
MOST_CONTROLS = 150
#: Texts that are longer get a box of several lines.
_LONG = 60
_MOST_BODY = 1_000_000


class Playground:
    """A Playground is the page at /playground/<deployment> and what it asks while one types.

    `dialect` is our own; `prepare` is the engine's: `check` says what validation would, and runs no model.
    """

    def __init__(
        self, live: Live, dialect: Dialect, prepare: Callable[[Columns], Prepared], headers: dict[str, str]
    ) -> None:
        self._live = live
        self._dialect = dialect
        self._prepare = prepare
        self._headers = headers
        self._page = functools.cache(lambda: playground_page(live))
        path = f"/playground/{live.deployment}"
        self.routes = [
            Route(path, self._show, methods=["GET"]),
            Route(f"{path}/check", self._check, methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        return Response(self._page(), media_type="text/html", headers=self._headers)

    async def _check(self, request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MOST_BODY:
                return Response(status_code=413)
        return Response(msgspec.json.encode({"problems": self.check(body)}), media_type="application/json")

    def check(self, body: bytes) -> list[dict[str, Any]]:
        """What validation says of a body: problems (refused), and flags as problems with `answered` true."""
        try:
            columns, _ = self._dialect.decode(body, {})
            flags = self._prepare(columns).flags
        except InputError as error:
            whole = {"code": error.code, "message": error.message, "field": None, "expected": error.hint}
            return [{**problem, "answered": False} for problem in error.details or [whole]]
        found = []
        for flag in flags:
            field = self._live.signature.input(flag.field)
            problem = field and value_problem(field, columns[flag.field][flag.row], flag.row)
            if problem:
                found.append({**msgspec.to_builtins(problem), "answered": True})
        return found


def playground_page(live: Live) -> bytes:
    """The whole page."""
    count = len(next(iter(live.examples.values())))
    examples = [example_row(live.examples, live.signature, row) for row in range(count)]
    fields = live.signature.inputs
    is_whole = len(fields) > MOST_CONTROLS
    controls = [] if is_whole else [_control(field, [row[field.name] for row in examples]) for field in fields]
    return render(
        "playground.html",
        live=live,
        controls=controls,
        whole=msgspec.json.format(msgspec.json.encode(examples[0]), indent=2).decode() if is_whole else None,
        examples=examples,
    )


def _control(field: Field, values: Sequence[Any]) -> dict[str, Any]:
    """How an input is shown: `kind` is json, choice, number, text or long."""
    choices: list[str] = list(field.categories or ())
    if len(field.shape) > 1:
        kind = "json"
    elif field.datatype == "BOOL":
        kind, choices = "choice", ["true", "false"]
    elif field.datatype in (*FLOATS, *INTEGERS):
        kind = "number"
    else:
        is_long = any(value is not None and len(value) > _LONG for value in values)
        kind = "long" if is_long and not choices else "text"
    written = [_written(value, kind) for value in values]
    return {
        "name": field.name,
        "kind": kind,
        "choices": choices,
        "missing": field.missing,
        "whole": field.datatype in INTEGERS,
        "takes": describe(field),
        "value": written[0],
        "lines": min(8, 2 + written[0].count("\n") + len(written[0]) // _LONG),
    }


def _written(value: Any, kind: str) -> str:
    if value is None:
        return ""
    return value if kind in ("text", "long") else msgspec.json.encode(value).decode()
