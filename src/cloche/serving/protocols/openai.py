"""OpenAI's `POST /v1/embeddings`, for models that turn a text into a vector.

Source: OpenAI's API reference, "Create embeddings". `GET /v1/models` is the TF Serving dialect's, whose answer
OpenAI's clients understand as well.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from starlette.routing import Route

from cloche.core.errors import ClocheError, InputError, NotFoundError
from cloche.core.signature import Columns, Signature
from cloche.engine.validate import Flag
from cloche.serving.problems import headers_of, sentence_of, status_of
from cloche.serving.protocols import words
from cloche.serving.protocols.arrays import from_flat
from cloche.serving.protocols.base import Answer, Live, check_media_type, flag_headers
from cloche.serving.protocols.schema import json_responses, problem_responses
from cloche.serving.protocols.wire_types import MOST_ROWS, too_many

INPUT = "text"
OUTPUT = "embedding"
_JSON = (b"content-type", b"application/json")
_Encoding = Literal["float", "base64"]
#: Where msgspec says which member it means.
_MEMBER = re.compile(r"`(?:\$\.)?(\w+)[^`]*`$")


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    input: str | list[str]
    encoding_format: _Encoding = "float"
    dimensions: int | None = None
    user: str | None = None


class OpenAiDialect:
    """An OpenAiDialect speaks texts and vectors: one input `text` of strings, one output `embedding` [-1, k].

    `model` is the deployment's name or the version's reference. Tokens are not counted: `usage` is zero.
    """

    name = "openai"
    roots = ("/v1/embeddings",)

    def __init__(self, live: Live) -> None:
        self._live = live
        self._decode = msgspec.json.Decoder(_Request).decode
        self._encode = msgspec.json.Encoder().encode
        self._text = live.signature.inputs[0]
        width = live.signature.outputs[0].shape[1]
        #: How long a vector is, where the signature knows.
        self._width = width if width >= 0 else None
        self._names = (live.deployment, live.model, live.ref)

    @classmethod
    def fits(cls, signature: Signature) -> bool:
        """One input `text`, strings, and one output `embedding`, a vector of FP32 a row."""
        if len(signature.inputs) != 1 or len(signature.outputs) != 1:
            return False
        (text,), (vector,) = signature.inputs, signature.outputs
        takes = (text.name, text.datatype, len(text.shape)) == (INPUT, "BYTES", 1)
        return takes and (vector.name, vector.datatype, len(vector.shape)) == (OUTPUT, "FP32", 2)

    def paths(self) -> Sequence[str]:
        return ["/v1/embeddings"]

    def routes(self) -> Sequence[Route]:
        return []

    def decode(self, body: bytes, headers: Mapping[bytes, bytes]) -> tuple[Columns, _Encoding]:
        """The texts, and how the vectors go back."""
        check_media_type(headers, (b"application/json",))
        try:
            request = self._decode(body)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            problem = words.unread(body, error)
            member = _MEMBER.search(problem.message)
            problem.where = member[1] if member is not None else None
            if problem.where == "input":
                problem.hint = "a text or a list of texts; tokens are not taken"
            raise problem from None
        if request.model not in self._names:
            raise NotFoundError(
                f"the model {request.model[:60]!r} is not live", code="CL-E305", hint=f"{self._names[0]} is"
            )
        if request.dimensions is not None and request.dimensions != self._width:
            hint = "leave it out" if self._width is None else f"it is {self._width}"
            raise InputError(
                f"`dimensions` is {request.dimensions}", code="CL-E110", where="dimensions", hint=hint
            )
        texts = [request.input] if isinstance(request.input, str) else request.input
        if not texts:
            raise InputError("`input` is empty", code="CL-E102", where="input", hint="send at least one text")
        if len(texts) > MOST_ROWS:
            raise too_many(len(texts), "texts", MOST_ROWS)
        return {self._text.name: from_flat(texts, self._text.numpy_type)}, request.encoding_format

    def encode(self, outputs: Columns, flags: tuple[Flag, ...], wants: _Encoding, prediction_id: str) -> Answer:
        vectors = outputs[OUTPUT]
        shown: list[Any]
        if wants == "base64":
            little = np.ascontiguousarray(vectors, "<f4")
            shown = [base64.b64encode(vector).decode() for vector in little]
        else:
            shown = vectors.tolist()
        body = {
            "object": "list",
            "data": [{"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(shown)],
            "model": self._live.ref,
            "usage": {"prompt_tokens": 0, "total_tokens": 0},
        }
        return Answer(200, [_JSON, *flag_headers(flags)], self._encode(body))

    def problem(self, error: ClocheError, request_id: str) -> Answer:
        status = status_of(error)
        kind = "invalid_request_error" if status < 500 else "server_error"
        if status == 429:
            kind = "rate_limit_error"
        told = {"message": sentence_of(error), "type": kind, "param": error.where, "code": error.code}
        headers = [_JSON, (b"cloche-error", error.code.encode()), *headers_of(error)]
        return Answer(status, headers, self._encode({"error": told}))

    def openapi(self) -> Mapping[str, Any]:
        texts = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        request = {
            "type": "object",
            "properties": {
                "model": {"type": "string", "enum": list(dict.fromkeys(self._names))},
                "input": {"anyOf": [{"type": "string"}, texts]},
                "encoding_format": {"type": "string", "enum": ["float", "base64"]},
                "dimensions": {"enum": [None] if self._width is None else [None, self._width]},
                "user": {"type": ["string", "null"]},
            },
            "required": ["model", "input"],
            "additionalProperties": False,
        }
        example = {"model": self._names[0], "input": [str(self._live.examples[INPUT][0])]}
        error = {
            "type": "object",
            "properties": {"error": {"type": "object", "properties": {"message": {"type": "string"}}}},
            "required": ["error"],
        }
        operation = {
            "operationId": f"embeddings_{self._live.deployment}",
            "summary": "The vectors of texts, as OpenAI's clients ask for them",
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": request, "example": example}},
            },
            "responses": {**json_responses(), **problem_responses({"application/json": {"schema": error}})},
        }
        return {"/v1/embeddings": {"post": operation}}
