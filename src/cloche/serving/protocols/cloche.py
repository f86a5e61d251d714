"""Our own dialect: `POST /predict/{deployment}` with one object, a list of objects or {"rows": [...]}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.routing import Route

from cloche.core.errors import ClocheError
from cloche.core.signature import Columns, Signature
from cloche.engine.validate import Flag
from cloche.serving.bodies.base import Bodies, Table
from cloche.serving.problems import headers_of, problem_body, status_of
from cloche.serving.protocols.base import Answer, Live, flag_headers
from cloche.serving.protocols.rows import RowReader
from cloche.serving.protocols.schema import (
    classes_of,
    example_row,
    named,
    predictions,
    problem_responses,
    schema_ref,
)

_JSON = (b"content-type", b"application/json")
_PROBLEM = (b"content-type", b"application/problem+json")


class ClocheDialect:
    """A ClocheDialect speaks rows: members of an object are inputs, members of a prediction are outputs.

    Tables of rows, in any body format that is installed, are taken and given as well.
    """

    name = "cloche"
    roots = ("/predict",)

    def __init__(self, live: Live) -> None:
        self._live = live
        self._reader = RowReader(live.signature)
        self._bodies = Bodies(live.signature)
        self._encode = msgspec.json.Encoder().encode
        #: (output, the names of its columns where it holds a number a class)
        self._outputs = [(field.name, classes_of(field)) for field in live.signature.outputs]

    @classmethod
    def fits(cls, signature: Signature) -> bool:
        return True

    def paths(self) -> Sequence[str]:
        return [f"/predict/{self._live.deployment}"]

    def routes(self) -> Sequence[Route]:
        return []

    def decode(self, body: bytes, headers: Mapping[bytes, bytes]) -> tuple[Columns, bool | Table]:
        """The columns, and what goes back: one prediction to one object (True), many (False), or a table."""
        given = headers.get(b"content-type")
        came = None if given is None or given == b"application/json" else self._bodies.came(given)
        accept = headers.get(b"accept")
        wanted = came
        if accept is not None and accept != b"*/*" and (came or accept != b"application/json"):
            wanted = self._bodies.wanted(accept, came)
        if came is None:
            columns, is_one = self._reader.read(body)
            return columns, wanted or is_one
        return came.body.read(body), wanted or False

    def encode(self, outputs: Columns, flags: tuple[Flag, ...], wants: bool | Table, prediction_id: str) -> Answer:
        if isinstance(wants, Table):
            media_type, table = wants.write(outputs)
            return Answer(200, [media_type, *flag_headers(flags)], table)
        body: dict[str, Any] = {"model": self._live.ref, "prediction_id": prediction_id}
        if wants:
            body["prediction"] = {
                name: named(outputs[name].tolist()[0], classes) for name, classes in self._outputs
            }
        else:
            body["predictions"] = predictions(outputs, self._live.signature)
        if flags:
            body["flags"] = flags
        return Answer(200, [_JSON], self._encode(body))

    def problem(self, error: ClocheError, request_id: str) -> Answer:
        return Answer(status_of(error), [_PROBLEM, *headers_of(error)], problem_body(error, request_id))

    def openapi(self) -> Mapping[str, Any]:
        return {self.paths()[0]: {"post": _operation(self._live, self._bodies)}}


def _operation(live: Live, bodies: Bodies) -> dict[str, Any]:
    row = schema_ref(live, "Row")
    many = {"type": "array", "items": row, "minItems": 1}
    wrapped = {
        "type": "object",
        "properties": {"rows": many},
        "required": ["rows"],
        "additionalProperties": False,
    }
    one = example_row(live.examples, live.signature)
    return {
        "operationId": f"predict_{live.deployment}",
        "summary": f"Ask {live.deployment}",
        "description": live.description,
        "parameters": [
            {
                "name": "version",
                "in": "query",
                "required": False,
                "schema": {"type": "string", "enum": [str(live.version)]},
                "description": "A version that must be the one that answers; 404 otherwise.",
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"anyOf": [row, wrapped, many]},
                    "examples": {"one": {"value": one}, "many": {"value": {"rows": [one, one]}}},
                },
                **bodies.content(live.examples),
            },
        },
        "responses": {
            "200": {
                "description": (
                    "One prediction for one object, else as many as rows, in their order; in the form that"
                    " Accept asks for, else in the form that the rows came in."
                ),
                "content": {
                    "application/json": {"schema": schema_ref(live, "Answer")},
                    **bodies.answers(),
                },
            },
            **problem_responses(),
        },
    }
