"""Our own dialect: `POST /predict/{deployment}` with one object, a list of objects or {"rows": [...]}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.routing import Route

from cloche.core.errors import ClocheError
from cloche.core.signature import Columns
from cloche.engine.validate import Flag
from cloche.serving.problems import headers_of, problem_body, status_of
from cloche.serving.protocols.base import Answer, Live, check_media_type
from cloche.serving.protocols.rows import RowReader
from cloche.serving.protocols.schema import example_row, problem_responses

_JSON = (b"content-type", b"application/json")
_PROBLEM = (b"content-type", b"application/problem+json")


class ClocheDialect:
    """A ClocheDialect speaks rows: members of an object are inputs, members of a prediction are outputs."""

    name = "cloche"

    def __init__(self, live: Live) -> None:
        self._live = live
        self._reader = RowReader(live.signature)
        self._encode = msgspec.json.Encoder().encode
        #: (output, the names of its columns where it holds a number a class)
        self._outputs = [
            (field.name, field.classes if len(field.shape) == 2 else None) for field in live.signature.outputs
        ]

    def paths(self) -> Sequence[str]:
        return [f"/predict/{self._live.deployment}"]

    def routes(self) -> Sequence[Route]:
        return []

    def decode(self, body: bytes, headers: Mapping[bytes, bytes]) -> tuple[Columns, bool]:
        """The columns, and whether one object came (and one prediction goes back)."""
        check_media_type(headers, (b"application/json",))
        return self._reader.read(body)

    def encode(self, outputs: Columns, flags: tuple[Flag, ...], wants: bool, prediction_id: str) -> Answer:
        body: dict[str, Any] = {"model": self._live.ref, "prediction_id": prediction_id}
        if wants:
            body["prediction"] = {
                name: _named(outputs[name].tolist()[0], classes) for name, classes in self._outputs
            }
        else:
            body["predictions"] = self._predictions(outputs)
        if flags:
            body["flags"] = flags
        return Answer(200, [_JSON], self._encode(body))

    def _predictions(self, outputs: Columns) -> list[dict[str, Any]]:
        columns = [[_named(value, classes) for value in outputs[name].tolist()] for name, classes in self._outputs]
        names = [name for name, _ in self._outputs]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def problem(self, error: ClocheError, request_id: str) -> Answer:
        return Answer(status_of(error), [_PROBLEM, *headers_of(error)], problem_body(error, request_id))

    def openapi(self) -> Mapping[str, Any]:
        return {self.paths()[0]: {"post": _operation(self._live)}}


def _named(value: Any, classes: tuple[str, ...] | None) -> Any:
    """A row of probabilities by the names of their classes; any other value as it is."""
    return value if classes is None else dict(zip(classes, value, strict=True))


def _operation(live: Live) -> dict[str, Any]:
    row = {"$ref": "#/components/schemas/Row"}
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
                }
            },
        },
        "responses": {
            "200": {
                "description": "One prediction for one object, else as many as rows, in their order.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}},
            },
            **problem_responses(),
        },
    }
