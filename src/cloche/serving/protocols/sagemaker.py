"""What SageMaker asks of a container, with MLflow's bodies: `/invocations`, `/ping`, `/health`, `/version`.

Sources: MLflow's pyfunc scoring server, and SageMaker's "Use Your Own Inference Code".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloche.core.errors import ClocheError, InputError
from cloche.core.signature import Columns, Signature
from cloche.engine.validate import MOST_PROBLEMS, Flag, Problem, refuse
from cloche.serving.bodies.base import Bodies, Table
from cloche.serving.bodies.layout import Layout, matrix_of
from cloche.serving.problems import headers_of, sentence_of, status_of
from cloche.serving.protocols import words
from cloche.serving.protocols.base import Answer, Live, flag_headers
from cloche.serving.protocols.forms import Forms
from cloche.serving.protocols.rows import RowReader
from cloche.serving.protocols.schema import example_row, json_responses, predictions, problem_responses
from cloche.serving.protocols.values import read_values
from cloche.serving.protocols.wire_types import kind_of

_JSON = (b"content-type", b"application/json")
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
#: MLflow's names of errors, by status.
_ERRORS = {
    401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "RESOURCE_DOES_NOT_EXIST",
    422: "INVALID_PARAMETER_VALUE", 429: "REQUEST_LIMIT_EXCEEDED", 500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE", 504: "TEMPORARILY_UNAVAILABLE",
}  # fmt: skip
#: A string, which may say anything, or what MLflow's own client writes for a missing number.
_NAN = re.compile(rb'"(?:[^"\\]|\\.)*"|NaN', re.DOTALL)


class _Split(msgspec.Struct):
    columns: list[str | int]
    data: list[list[Any]]
    index: msgspec.Raw = msgspec.Raw(b"null")


class SageMakerDialect:
    """A SageMakerDialect answers as `mlflow models serve` does: the labels of a classifier, the values of a
    regressor, the only output of another model, or an object a row where there are several.

    A table is taken as well (CSV, Arrow, …), and given where Accept asks for one.
    """

    name = "sagemaker"
    roots = ("/invocations",)

    def __init__(self, live: Live) -> None:
        self._live = live
        self._bodies = Bodies(live.signature)
        self._forms = Forms(live.signature)
        self._reader = RowReader(live.signature)
        self._members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
        self._split = msgspec.json.Decoder(_Split).decode
        rows = [(msgspec.json.Decoder(fast.instances).decode, fast.from_instances) for fast in self._forms.fast]
        columns = [(msgspec.json.Decoder(fast.inputs).decode, fast.from_inputs) for fast in self._forms.fast]
        self._fast = {"instances": rows, "inputs": columns, "dataframe_records": rows[-1:]}
        self._encode = msgspec.json.Encoder().encode
        names = [field.name for field in live.signature.outputs]
        self._answers = next((n for n in ("label", "value") if n in names), names[0] if len(names) == 1 else None)

    @classmethod
    def fits(cls, signature: Signature) -> bool:
        return True

    def paths(self) -> Sequence[str]:
        return ["/invocations"]

    def routes(self) -> Sequence[Route]:
        return [
            Route("/ping", self._ping, methods=["GET"]),
            Route("/health", self._ping, methods=["GET"]),
            Route("/version", self._version, methods=["GET"]),
        ]

    def decode(self, body: bytes, headers: Mapping[bytes, bytes]) -> tuple[Columns, Table | None]:
        """The columns, and the table that goes back where one was asked for."""
        came = self._bodies.came(headers.get(b"content-type", b"application/json"))
        accept = headers.get(b"accept", b"*/*")
        wanted = None if accept in (b"*/*", b"application/json") else self._bodies.wanted(accept, None)
        if came is not None:
            return came.body.read(body), wanted
        try:
            return self._read(body), wanted
        except InputError as error:
            if error.code != "CL-E101" or b"NaN" not in body:
                raise
        return self._read(_NAN.sub(_without_nan, body)), wanted

    def _read(self, body: bytes) -> Columns:
        try:
            members = self._members(body)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise words.unread(body, error) from None
        params = members.pop("params", None)
        if params is not None and bytes(params).strip() not in (b"null", b"{}"):
            raise _wrong("this model takes no `params`", "a body without them")
        unknown = set(members) - set(_FORMS)
        if unknown or len(members) != 1:
            came = ", ".join(f"`{name[:40]}`" for name in list(members)[:4]) or "nothing"
            raise _wrong(f"{came} came", f"exactly one of {', '.join(_FORMS)}")
        ((form, raw),) = members.items()
        return self._columns(form, raw)

    def _columns(self, form: str, raw: msgspec.Raw) -> Columns:
        if form == "dataframe_split":
            return self._from_split(raw)
        for decode, read in self._fast[form]:
            try:
                return read(decode(raw))
            except (msgspec.DecodeError, ValueError, OverflowError, RecursionError):
                continue
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise words.unread(bytes(raw), error) from None
        if form == "inputs":
            return self._forms.columns(value)
        if form == "instances":
            return self._forms.rows(value)
        if not isinstance(value, list):
            raise _wrong(f"`{form}` is {kind_of(value)}", "a list of objects")
        return self._from_records(value)

    def _from_records(self, rows: list[Any]) -> Columns:
        names = list(rows[0]) if rows and isinstance(rows[0], dict) else []
        if matrix_of(self._live.signature, names) is None:
            return self._reader.from_values(rows)
        # a frame of a model that was trained on an array: its columns are the array's
        odd = [
            Problem("CL-E102", f"row {number} has other columns", None, number, "those of row 0")
            for number, row in enumerate(rows)
            if not isinstance(row, dict) or row.keys() != rows[0].keys()
        ]
        if odd:
            raise refuse(odd[:MOST_PROBLEMS], where=f"request body, row {odd[0].row}")
        return self._from_table(names, [[row[name] for name in names] for row in rows])

    def _from_split(self, raw: msgspec.Raw) -> Columns:
        try:
            split = self._split(raw)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise words.unread(bytes(raw), error) from None
        return self._from_table([str(name) for name in split.columns], split.data)

    def _from_table(self, names: list[str], rows: list[list[Any]]) -> Columns:
        layout = Layout(self._live.signature, names)
        width = len(layout.fields)
        uneven = [
            Problem("CL-E102", f"row {number} has {len(row)} values", None, number, f"{width}, as `columns`")
            for number, row in enumerate(rows)
            if len(row) != width
        ]
        if uneven:
            raise refuse(uneven[:MOST_PROBLEMS], where=f"request body, row {uneven[0].row}")
        columns = zip(*rows, strict=True) if rows else ((),) * width
        named = zip(layout.fields, columns, strict=True)
        return layout.join(read_values(layout.fields, {field.name: list(column) for field, column in named}))

    def encode(self, outputs: Columns, flags: tuple[Flag, ...], wants: Table | None, prediction_id: str) -> Answer:
        if wants is not None:
            media_type, table = wants.write(outputs)
            return Answer(200, [media_type, *flag_headers(flags)], table)
        name = self._answers
        values = predictions(outputs, self._live.signature) if name is None else outputs[name].tolist()
        return Answer(200, [_JSON, *flag_headers(flags)], self._encode({"predictions": values}))

    def problem(self, error: ClocheError, request_id: str) -> Answer:
        status = status_of(error)
        body = {"error_code": _ERRORS.get(status, "BAD_REQUEST"), "message": sentence_of(error)}
        headers = [_JSON, (b"cloche-error", error.code.encode()), *headers_of(error)]
        return Answer(status, headers, self._encode(body))

    async def _ping(self, request: Request) -> Response:
        return Response(b"\n", status_code=200 if self._live.is_ready() else 503, media_type="application/json")

    async def _version(self, request: Request) -> Response:
        return Response(version("cloche"), media_type="text/plain")

    def openapi(self) -> Mapping[str, Any]:
        health = {"200": {"description": "Yes."}, "503": {"description": "Not yet, or not any more."}}
        text = {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}}
        ask: Any = {"summary": "The version of Cloche", "operationId": "version", "responses": text}
        return {
            "/invocations": {"post": self._operation()},
            **{
                path: {"get": {"operationId": path[1:], "summary": "The process answers predictions",
                               "security": [], "responses": health}}
                for path in ("/ping", "/health")
            },
            "/version": {"get": ask},
        }  # fmt: skip

    def _operation(self) -> dict[str, Any]:
        live = self._live
        row = example_row(live.examples, live.signature)
        split = {"columns": list(row), "data": [list(row.values())]}
        error = {
            "type": "object",
            "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
            "required": ["error_code", "message"],
        }
        body = {
            "type": "object",
            "properties": {form: {} for form in _FORMS},
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": False,
        }
        ok = json_responses()
        ok["200"]["content"] |= self._bodies.answers()
        return {
            "operationId": f"invocations_{live.deployment}",
            "summary": f"Ask {live.deployment} as SageMaker and MLflow ask",
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": body,
                        "examples": {
                            "split": {"value": {"dataframe_split": split}},
                            "records": {"value": {"dataframe_records": [row]}},
                            "instances": {"value": {"instances": [row]}},
                        },
                    },
                    **self._bodies.content(live.examples),
                },
            },
            "responses": {**ok, **problem_responses({"application/json": {"schema": error}})},
        }


def _without_nan(found: re.Match[bytes]) -> bytes:
    return b"null" if found[0] == b"NaN" else found[0]


def _wrong(message: str, expected: str) -> InputError:
    return InputError(message, code="CL-E102", where="request body", hint=f"expected {expected}")
