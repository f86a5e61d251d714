"""TF Serving's REST API, which is KServe's v1 protocol: `:predict` by rows or columns, status, metadata.

Source: tensorflow/serving, api_rest.md.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloche.core.errors import ClocheError, InputError
from cloche.core.signature import Array, Columns, Field, Signature
from cloche.engine.validate import Flag
from cloche.serving.problems import headers_of, sentence_of, status_of
from cloche.serving.protocols import words
from cloche.serving.protocols.base import Answer, Live, check_media_type, flag_headers
from cloche.serving.protocols.forms import Form, Forms
from cloche.serving.protocols.schema import (
    example_row,
    example_value,
    input_schema,
    json_responses,
    problem_responses,
    schema_ref,
)

_JSON = (b"content-type", b"application/json")
#: curl says the second where it is told nothing, as TF Serving's own examples do.
_TAKEN = (b"application/json", b"application/x-www-form-urlencoded", b"text/plain")
_SIGNATURE = "serving_default"
_DTYPES = {
    "BOOL": "DT_BOOL", "UINT8": "DT_UINT8", "UINT16": "DT_UINT16", "UINT32": "DT_UINT32", "UINT64": "DT_UINT64",
    "INT8": "DT_INT8", "INT16": "DT_INT16", "INT32": "DT_INT32", "INT64": "DT_INT64", "FP16": "DT_HALF",
    "FP32": "DT_FLOAT", "FP64": "DT_DOUBLE", "BYTES": "DT_STRING",
}  # fmt: skip


class TfServingDialect:
    """A TfServingDialect speaks rows (`instances`) and columns (`inputs`); an only output goes unnamed.

    A label is an alias that pointed at the version when the server started.
    """

    name = "tfserving"
    roots = ("/v1/models",)

    def __init__(self, live: Live) -> None:
        self._live = live
        self._forms = Forms(live.signature)
        self._fast = [(_decoder(form), form) for form in self._forms.fast]
        self._anything = msgspec.json.Decoder(dict[str, Any]).decode
        self._encode = msgspec.json.Encoder().encode

    @classmethod
    def fits(cls, signature: Signature) -> bool:
        return True

    def _bases(self) -> tuple[str, ...]:
        base = f"/v1/models/{self._live.deployment}"
        labels = [f"{base}/labels/{alias}" for alias in self._live.aliases]
        return (base, f"{base}/versions/{self._live.version}", *labels)

    def paths(self) -> Sequence[str]:
        return [f"{base}:predict" for base in self._bases()]

    def routes(self) -> Sequence[Route]:
        return [
            Route("/v1/models", self._list, methods=["GET"]),
            *(Route(base, self._status, methods=["GET"]) for base in self._bases()),
            *(Route(f"{base}/metadata", self._metadata, methods=["GET"]) for base in self._bases()),
        ]

    def decode(self, body: bytes, headers: Mapping[bytes, bytes]) -> tuple[Columns, bool]:
        """The columns, and whether they came in columns (and go back so)."""
        check_media_type(headers, _TAKEN)
        for decode, form in self._fast:
            try:
                request = decode(body)
                if request.signature_name not in (None, "", _SIGNATURE):
                    break
                if request.inputs is msgspec.UNSET and request.instances is not msgspec.UNSET:
                    return form.from_instances(request.instances), False
                if request.instances is msgspec.UNSET and request.inputs is not msgspec.UNSET:
                    return form.from_inputs(request.inputs), True
                break
            except (msgspec.DecodeError, ValueError, OverflowError, RecursionError):
                continue
        return self._read_slowly(body)

    def _read_slowly(self, body: bytes) -> tuple[Columns, bool]:
        """Find out what is wrong; or, with an unusual but good body, read it all the same."""
        try:
            request = self._anything(body)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise words.unread(body, error) from None
        unknown = set(request) - {"signature_name", "instances", "inputs"}
        if unknown:
            raise _wrong(f"`{min(unknown)[:60]}` is not known", "instances or inputs, and signature_name")
        name = request.get("signature_name")
        if name not in (None, "", _SIGNATURE):
            raise _wrong(f"there is no signature {str(name)[:60]!r}", _SIGNATURE)
        if ("instances" in request) == ("inputs" in request):
            raise _wrong(f"`instances` and `inputs` {'both' if 'inputs' in request else 'neither'} came", "one")
        if "inputs" in request:
            return self._forms.columns(request["inputs"]), True
        return self._forms.rows(request["instances"]), False

    def encode(self, outputs: Columns, flags: tuple[Flag, ...], wants: bool, prediction_id: str) -> Answer:
        fields = self._live.signature.outputs
        columns = {field.name: _values(field, outputs[field.name]) for field in fields}
        result: Any
        if len(fields) == 1:
            result = columns[fields[0].name]
        elif wants:
            result = columns
        else:
            result = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        body = self._encode({"outputs" if wants else "predictions": result})
        return Answer(200, [_JSON, *flag_headers(flags)], body)

    def problem(self, error: ClocheError, request_id: str) -> Answer:
        headers = [_JSON, (b"cloche-error", error.code.encode()), *headers_of(error)]
        return Answer(status_of(error), headers, self._encode({"error": sentence_of(error)}))

    async def _list(self, request: Request) -> Response:
        # KServe's clients read `models`, OpenAI's read `data`: one answer that both understand
        names = self._live.listed
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "cloche"} for name in names]
        body = {"models": names, "object": "list", "data": listed}
        return Response(self._encode(body), media_type="application/json")

    async def _status(self, request: Request) -> Response:
        ready = self._live.is_ready()
        status = {
            "version": str(self._live.version),
            "state": "AVAILABLE" if ready else "UNLOADING",
            "status": {"error_code": "OK", "error_message": ""},
        }
        # `name` and `ready` are KServe's
        body = {"model_version_status": [status], "name": self._live.deployment, "ready": ready}
        return Response(self._encode(body), status_code=200 if ready else 503, media_type="application/json")

    async def _metadata(self, request: Request) -> Response:
        live = self._live
        signature = {
            "inputs": {field.name: _described(field) for field in live.signature.inputs},
            "outputs": {field.name: _described(field) for field in live.signature.outputs},
            "method_name": "tensorflow/serving/predict",
            "defaults": {},
        }
        body = {
            "model_spec": {"name": live.deployment, "signature_name": "", "version": str(live.version)},
            "metadata": {"signature_def": {"signature_def": {_SIGNATURE: signature}}},
        }
        return Response(self._encode(body), media_type="application/json")

    def openapi(self) -> Mapping[str, Any]:
        base, *others = self._bases()
        also = f"The same below {' and '.join(f'`{one}`' for one in others)}."
        ok = json_responses()
        status = {**ok, "503": {**ok["200"], "description": "Not ready, or not any more."}}
        state = {
            "operationId": f"tf_status_{self._live.deployment}",
            "summary": "The state of the version",
            "description": also,
            "responses": status,
        }
        return {
            "/v1/models": {"get": {"operationId": "tf_models", "summary": "What is live", "responses": ok}},
            base: {"get": state},
            f"{base}/metadata": {
                "get": {
                    "operationId": f"tf_metadata_{self._live.deployment}",
                    "summary": "Inputs and outputs as TensorFlow has them",
                    "description": also,
                    "responses": ok,
                }
            },
            f"{base}:predict": {"post": self._operation(also)},
        }  # fmt: skip

    def _operation(self, also: str) -> dict[str, Any]:
        inputs = self._live.signature.inputs
        row: dict[str, Any] = schema_ref(self._live, "Row")
        columns: dict[str, Any] = {
            "type": "object",
            "properties": {field.name: {"type": "array", "items": input_schema(field)} for field in inputs},
            "required": [field.name for field in inputs],
            "additionalProperties": False,
        }
        if len(inputs) == 1:  # goes unnamed as well
            value = input_schema(inputs[0])
            row = {"anyOf": [row, value]}
            columns = {"anyOf": [columns, {"type": "array", "items": value}]}
        rows = {"type": "object", "properties": {"instances": {"type": "array", "items": row, "minItems": 1}},
                "required": ["instances"], "additionalProperties": False}  # fmt: skip
        by_column = {"type": "object", "properties": {"inputs": columns}, "required": ["inputs"],
                     "additionalProperties": False}  # fmt: skip
        examples = self._live.examples
        error = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
        return {
            "operationId": f"tf_predict_{self._live.deployment}",
            "summary": f"Ask {self._live.deployment} as TF Serving and KServe v1 are asked",
            "description": also,
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"oneOf": [rows, by_column]},
                        "examples": {
                            "rows": {"value": {"instances": [example_row(examples, self._live.signature)]}},
                            "columns": {
                                "value": {"inputs": {f.name: example_value(examples[f.name]) for f in inputs}}
                            },
                        },
                    }
                },
            },
            "responses": {**json_responses(), **problem_responses({"application/json": {"schema": error}})},
        }


def _decoder(form: Form) -> Any:
    members = [
        ("signature_name", str | None, None),
        ("instances", form.instances | msgspec.UnsetType, msgspec.UNSET),
        ("inputs", form.inputs | msgspec.UnsetType, msgspec.UNSET),
    ]
    return msgspec.json.Decoder(msgspec.defstruct("Request", members, forbid_unknown_fields=True)).decode


def _values(field: Field, array: Array) -> list[Any]:
    values: list[Any] = array.tolist()
    if field.datatype == "BYTES" and field.name.endswith("_bytes"):
        return [_as_b64(value) for value in values]
    return values


def _as_b64(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_b64(item) for item in value]
    return {"b64": base64.b64encode(value.encode()).decode()}


def _described(field: Field) -> dict[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in field.shape]
    shape = {"dim": dims, "unknown_rank": False}
    return {"dtype": _DTYPES[field.datatype], "tensor_shape": shape, "name": field.name}


def _wrong(message: str, expected: str) -> InputError:
    return InputError(message, code="CL-E102", where="request body", hint=f"expected {expected}")
