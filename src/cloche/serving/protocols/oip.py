"""The Open Inference Protocol v2 over REST, with the binary tensor extension.

Sources: KServe's required_api.md (v2) and Triton's extension_binary_data.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloche.core.errors import ClocheError, InputError
from cloche.core.signature import NUMPY_TYPES, Columns, Field, Signature
from cloche.core.words import listed
from cloche.engine.validate import Flag
from cloche.serving.problems import headers_of, sentence_of, status_of
from cloche.serving.protocols import tensors, words
from cloche.serving.protocols.base import Answer, Live, check_media_type
from cloche.serving.protocols.schema import example_value, json_responses, problem_responses

_JSON = (b"content-type", b"application/json")
_HEADER_LENGTH = b"inference-header-content-length"
MOST_TENSORS = 1024


class _Parameters(msgspec.Struct, omit_defaults=True):
    binary_data_size: int | None = None
    binary_data: bool = False
    binary_data_output: bool = False


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: _Parameters | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Output(msgspec.Struct):
    name: str
    parameters: _Parameters | None = None


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str | None = None
    parameters: _Parameters | None = None
    outputs: list[_Output] | None = None


class Wants(msgspec.Struct, frozen=True):
    """Wants is what the request asked of the answer: its id, the outputs, which of them in binary."""

    id: str | None
    outputs: tuple[str, ...]
    binary: frozenset[str]


class OipDialect:
    """An OipDialect speaks tensors; the model of its paths is the deployment's name."""

    name = "oip"
    roots: Sequence[str] = ("/v2",)

    def __init__(self, live: Live) -> None:
        self._live = live
        self._fields = {field.name: field for field in live.signature.inputs}
        self._outputs = {field.name: field for field in live.signature.outputs}
        self._decode = msgspec.json.Decoder(_Request).decode
        self._encode = msgspec.json.Encoder().encode

    @classmethod
    def fits(cls, signature: Signature) -> bool:
        return True

    def _bases(self) -> tuple[str, str]:
        base = f"/v2/models/{self._live.deployment}"
        return base, f"{base}/versions/{self._live.version}"

    def paths(self) -> Sequence[str]:
        return [f"{base}/infer" for base in self._bases()]

    def routes(self) -> Sequence[Route]:
        base, versioned = self._bases()
        return [
            Route("/v2", self._server, methods=["GET"]),
            Route("/v2/models", self._list, methods=["GET"]),
            *(Route(path, self._metadata, methods=["GET"]) for path in (base, versioned)),
            *(Route(f"{path}/ready", self._ready, methods=["GET"]) for path in (base, versioned)),
        ]

    def decode(self, body: bytes, headers: Mapping[bytes, bytes]) -> tuple[Columns, Wants]:
        check_media_type(headers, (b"application/json", b"application/octet-stream"))
        length = headers.get(_HEADER_LENGTH)
        if length is None:
            return self._read(self._request(body), memoryview(b""))
        if not length.isdigit() or len(length) > 12 or int(length) > len(body):
            raise InputError(
                f"Inference-Header-Content-Length is {length.decode('latin-1')[:40]!r}",
                code="CL-E112",
                hint=f"a number of bytes from 0 to the body's {len(body)}",
            )
        if int(length) == 0:
            return self._read_raw(memoryview(body))
        return self._read(self._request(body[: int(length)]), memoryview(body)[int(length) :])

    def _request(self, body: bytes) -> _Request:
        try:
            return self._decode(body)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise words.unread(body, error) from None

    def _read(self, request: _Request, binary: memoryview) -> tuple[Columns, Wants]:
        if len(request.inputs) > MOST_TENSORS:
            raise InputError(f"{len(request.inputs)} inputs", code="CL-E113", hint=f"at most {MOST_TENSORS}")
        columns: Columns = {}
        at = 0
        for tensor in request.inputs:
            field = self._fields.get(tensor.name)
            if field is None:
                raise self._unknown(tensor.name, {one.name for one in request.inputs})
            if tensor.name in columns:
                raise tensors.wrong(tensor.name, "came twice")
            size = tensor.parameters.binary_data_size if tensor.parameters else None
            if size is not None:
                if size < 0 or at + size > len(binary) or tensor.data is not msgspec.UNSET:
                    raise tensors.wrong(tensor.name, f"binary_data_size {size} does not fit", code="CL-E112")
                flat = tensors.from_binary(tensor.name, tensor.datatype, tensor.shape, binary[at : at + size])
                at += size
            elif tensor.data is not msgspec.UNSET:
                flat = tensors.from_json(
                    tensor.name, tensor.datatype, tensor.shape, tensor.data, nulls=field.missing
                )
            else:
                raise tensors.wrong(tensor.name, "it has neither `data` nor binary data")
            columns[tensor.name] = tensors.to_field(flat, field, tensor.datatype, tensor.shape)
        if at != len(binary):
            raise InputError(f"{len(binary) - at} bytes of the body belong to no input", code="CL-E112")
        return columns, self._wants(request)

    def _unknown(self, name: str, came: set[str]) -> InputError:
        said = "this input is not known"
        near = words.meant(name, [one for one in self._fields if one not in came])
        if near is not None:
            said += f"; did you mean `{near}` for `{name}`?"
        return tensors.wrong(name[:60], said, f"one of the inputs: {listed(list(self._fields))}", "CL-E103")

    def _read_raw(self, body: memoryview) -> tuple[Columns, Wants]:
        """The raw form: the body is the one input's bytes, one row."""
        if len(self._fields) != 1:
            raise InputError(
                f"the raw form needs a model of one input, this one has {len(self._fields)}", code="CL-E112"
            )
        (field,) = self._fields.values()
        tail = field.shape[1:]
        if tail.count(-1) > 1 or (field.datatype == "BYTES" and tail):
            raise InputError("the shape can't be deduced from raw bytes", code="CL-E112")
        if -1 in tail:
            known = max(1, math.prod(size for size in tail if size >= 0))
            tail = tuple(len(body) // (field.numpy_type.itemsize * known) if size == -1 else size for size in tail)
        if field.datatype == "BYTES":
            body = memoryview(len(body).to_bytes(4, "little") + bytes(body))
        flat = tensors.from_binary(field.name, field.datatype, (1, *tail), body)
        wants = Wants(None, tuple(self._outputs), frozenset(self._outputs))
        return {field.name: tensors.to_field(flat, field, field.datatype, (1, *tail))}, wants

    def _wants(self, request: _Request) -> Wants:
        everything = bool(request.parameters and request.parameters.binary_data_output)
        if not request.outputs:
            names = tuple(self._outputs)
            return Wants(request.id, names, frozenset(names) if everything else frozenset())
        names = self._wanted([output.name for output in request.outputs])
        binary = {
            output.name
            for output in request.outputs
            if (everything if output.parameters is None else output.parameters.binary_data)
        }
        return Wants(request.id, names, frozenset(binary))

    def _wanted(self, asked: Sequence[str]) -> tuple[str, ...]:
        """The outputs to answer with: those that were asked for, else all."""
        for name in asked:
            if name not in self._outputs:
                raise InputError(
                    f"output `{name[:60]}` is not known",
                    code="CL-E111",
                    where="request body, outputs",
                    hint=f"one of {', '.join(self._outputs)}",
                )
        return tuple(dict.fromkeys(asked)) or tuple(self._outputs)

    def encode(self, outputs: Columns, flags: tuple[Flag, ...], wants: Wants, prediction_id: str) -> Answer:
        described: list[dict[str, Any]] = []
        parts: list[bytes] = []
        for name in wants.outputs:
            array, field = outputs[name], self._outputs[name]
            tensor: dict[str, Any] = {"name": name, "shape": array.shape, "datatype": field.datatype}
            if name in wants.binary:
                part = tensors.to_binary(array, field.datatype)
                tensor["parameters"] = {"binary_data_size": len(part)}
                parts.append(part)
            else:
                tensor["data"] = array.ravel().tolist()
            described.append(tensor)
        body: dict[str, Any] = {
            "model_name": self._live.deployment,
            "model_version": str(self._live.version),
            "id": wants.id if wants.id is not None else prediction_id,
            "outputs": described,
        }
        if flags:
            body["parameters"] = {"flags": self._encode(flags).decode()}
        header = self._encode(body)
        if not parts:
            return Answer(200, [_JSON], header)
        headers = [
            (b"content-type", b"application/octet-stream"),
            (_HEADER_LENGTH, str(len(header)).encode()),
        ]
        return Answer(200, headers, b"".join([header, *parts]))

    def problem(self, error: ClocheError, request_id: str) -> Answer:
        headers = [_JSON, (b"cloche-error", error.code.encode()), *headers_of(error)]
        return Answer(status_of(error), headers, self._encode({"error": sentence_of(error)}))

    async def _server(self, request: Request) -> Response:
        body = {"name": "cloche", "version": "2", "extensions": ["binary_tensor_data"]}
        return Response(self._encode(body), media_type="application/json")

    async def _list(self, request: Request) -> Response:
        return Response(self._encode({"models": self._live.listed}), media_type="application/json")

    async def _metadata(self, request: Request) -> Response:
        live = self._live
        body = {
            "name": live.deployment,
            "versions": [str(live.version)],
            "platform": live.platform,
            "inputs": [_described(field) for field in live.signature.inputs],
            "outputs": [_described(field) for field in live.signature.outputs],
        }
        return Response(self._encode(body), media_type="application/json")

    async def _ready(self, request: Request) -> Response:
        ready = self._live.is_ready()
        body = self._encode({"name": self._live.deployment, "ready": ready})
        return Response(body, status_code=200 if ready else 503, media_type="application/json")

    def openapi(self) -> Mapping[str, Any]:
        base, version = self._bases()
        also = f"The same below `{version}`."
        ok = json_responses()
        model = {
            "operationId": f"oip_model_{self._live.deployment}",
            "summary": "The model's metadata",
            "description": also,
            "responses": ok,
        }
        return {
            "/v2": {"get": {"operationId": "oip_server", "summary": "The server's metadata", "responses": ok}},
            "/v2/models": {"get": {"operationId": "oip_models", "summary": "What is live", "responses": ok}},
            base: {"get": model},
            f"{base}/ready": {
                "get": {
                    "operationId": f"oip_model_ready_{self._live.deployment}",
                    "summary": "Whether the model answers",
                    "description": also,
                    "responses": {"200": {"description": "Ready."}, "503": {"description": "Not ready."}},
                }
            },
            f"{base}/infer": {"post": self._operation(also)},
        }

    def _operation(self, also: str) -> dict[str, Any]:
        error = {
            "type": "object",
            "properties": {"error": {"type": "string"}},
            "required": ["error"],
        }
        content = {"application/json": {"schema": error}}
        tensor = {
            "type": "object",
            "properties": {
                "name": {"type": "string", "enum": list(self._fields)},
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                "datatype": {"type": "string", "enum": list(NUMPY_TYPES)},
                "data": {"type": "array"},
            },
            "required": ["name", "shape", "datatype", "data"],
        }
        inputs = {"type": "array", "items": tensor, "minItems": len(self._fields)}
        return {
            "operationId": f"oip_infer_{self._live.deployment}",
            "summary": f"Ask {self._live.deployment} by the Open Inference Protocol v2",
            "description": also,
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "properties": {"id": {"type": ["string", "null"]}, "inputs": inputs},
                            "required": ["inputs"],
                        },
                        "example": {"inputs": [_example(f, self._live.examples) for f in self._fields.values()]},
                    }
                },
            },
            "responses": {
                "200": {
                    "description": "The outputs.",
                    "content": {"application/json": {"schema": {"type": "object"}}},
                },
                **problem_responses(content),
            },
        }


def _described(field: Field) -> dict[str, Any]:
    return {"name": field.name, "datatype": field.datatype, "shape": list(field.shape)}


def _example(field: Field, examples: Columns) -> dict[str, Any]:
    array = examples[field.name][:1]
    return {**_described(field), "shape": list(array.shape), "data": example_value(array.ravel())}
