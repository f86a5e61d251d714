"""Tensors of the Open Inference Protocol as protobuf carries them: typed contents or raw bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from cloche.core.errors import ClocheError, InputError
from cloche.core.signature import NUMPY_TYPES, Array, Columns
from cloche.engine.validate import Flag
from cloche.serving.grpc.messages import ModelInferRequest, ModelInferResponse
from cloche.serving.problems import headers_of, sentence_of, status_of
from cloche.serving.protocols import tensors
from cloche.serving.protocols.arrays import from_flat
from cloche.serving.protocols.base import Answer
from cloche.serving.protocols.oip import MOST_TENSORS, OipDialect, Wants

#: Where typed values of a datatype stand; FP16 has no place but the raw one.
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
#: Smaller messages can't hold so many parts that reading them would cost much.
_SMALL = 64 * 1024
#: Name, version, id and parameters beside inputs, raw inputs and outputs.
_MOST_PARTS = 3 * MOST_TENSORS + 64


class GrpcDialect(OipDialect):
    """A GrpcDialect speaks for one version as OipDialect does, in messages: `decode` takes one that is read."""

    name = "grpc"
    roots: Sequence[str] = ()

    def decode(self, body: Any, headers: Mapping[bytes, bytes]) -> tuple[Columns, Wants]:
        inputs, raw = body.inputs, body.raw_input_contents
        if len(inputs) > MOST_TENSORS:
            raise InputError(f"{len(inputs)} inputs", code="CL-E113", hint=f"at most {MOST_TENSORS}")
        if raw and len(raw) != len(inputs):
            raise InputError(
                f"{len(raw)} raw_input_contents for {len(inputs)} inputs",
                code="CL-E112",
                hint="one for each input",
            )
        columns: Columns = {}
        for number, tensor in enumerate(inputs):
            name, datatype = tensor.name, tensor.datatype
            field = self._fields.get(name)
            if field is None:
                raise self._unknown(name, {one.name for one in inputs})
            if name in columns:
                raise tensors.wrong(name, "came twice")
            shape = tuple(tensor.shape)
            if not raw:
                flat = _typed(tensor, shape)
            elif tensor.HasField("contents"):
                raise tensors.wrong(name, "it has `contents` beside raw_input_contents", code="CL-E112")
            else:
                flat = tensors.from_binary(name, datatype, shape, memoryview(raw[number]))
            columns[name] = tensors.to_field(flat, field, datatype, shape)
        wanted = self._wanted([one.name for one in body.outputs])
        return columns, Wants(body.id or None, wanted, frozenset(wanted) if raw else frozenset())

    def encode(self, outputs: Columns, flags: tuple[Flag, ...], wants: Wants, prediction_id: str) -> Answer:
        """Raw where the request was raw, and where an output has no typed form."""
        message = ModelInferResponse(
            model_name=self._live.deployment,
            model_version=str(self._live.version),
            id=wants.id if wants.id is not None else prediction_id,
        )
        fields = [self._outputs[name] for name in wants.outputs]
        raw = bool(wants.binary) or any(field.datatype not in _CONTENTS for field in fields)
        for field in fields:
            array = outputs[field.name]
            tensor = message.outputs.add(name=field.name, datatype=field.datatype, shape=array.shape)
            if raw:
                message.raw_output_contents.append(tensors.to_binary(array, field.datatype))
            else:
                getattr(tensor.contents, _CONTENTS[field.datatype]).extend(_plain(array, field.datatype))
        if flags:
            message.parameters["flags"].string_param = msgspec.json.encode(flags).decode()
        return Answer(200, [], message.SerializeToString())

    def problem(self, error: ClocheError, request_id: str) -> Answer:
        headers = [(b"cloche-error", error.code.encode()), *headers_of(error)]
        return Answer(status_of(error), headers, sentence_of(error).encode())


def read(kind: Any, body: bytes) -> Any:
    """The message in a body. InputError CL-E101 for what is none, CL-E113 for one of very many parts."""
    try:
        if kind is ModelInferRequest and len(body) > _SMALL:
            _check_parts(body)
        return kind.FromString(body)
    except (DecodeError, IndexError, ValueError):
        raise InputError(
            "the message can't be read",
            code="CL-E101",
            where="request message",
            hint="send the protocol's own, as in KServe's grpc_predict_v2.proto",
        ) from None


def _check_parts(body: bytes) -> None:
    """A part of two bytes becomes an object of a hundred: that there are few is seen before any is made."""
    for count, _ in enumerate(_parts(body), 1):
        if count > _MOST_PARTS:
            raise InputError(f"over {_MOST_PARTS} parts in a message", code="CL-E113", hint="send fewer tensors")


def _parts(body: bytes) -> Iterator[int]:
    """The numbers of a message's own fields; IndexError or ValueError where it is none."""
    at, end = 0, len(body)
    while at < end:
        tag, at = _varint(body, at)
        kind = tag & 7
        if kind == 2:
            length, at = _varint(body, at)
            at += length
        elif kind == 0:
            _, at = _varint(body, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("a group, which proto3 has not")
        yield tag >> 3


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than ten bytes")


def _typed(tensor: Any, shape: Sequence[int]) -> Array:
    """A flat array of a tensor's typed contents, which came as the protocol has them for its datatype."""
    name, datatype = tensor.name, tensor.datatype
    count = tensors.check_shape(name, datatype, shape)
    place = _CONTENTS.get(datatype)
    if place is None:
        raise tensors.wrong(name, f"{datatype} has no typed contents", "raw_input_contents")
    filled = [field.name for field, _ in tensor.contents.ListFields()]
    if filled not in ([place], []):
        raise tensors.wrong(name, f"{datatype} came as {', '.join(filled)}", place)
    values: Any = getattr(tensor.contents, place)
    if len(values) != count:
        raise tensors.wrong(name, f"{len(values)} values for shape {list(shape)}", f"{count} values", "CL-E112")
    try:
        if datatype == "BYTES":
            values = [one.decode() for one in values]
        return from_flat(values, NUMPY_TYPES[datatype])
    except UnicodeDecodeError:
        raise tensors.wrong(name, "a string is not UTF-8", code="CL-E105") from None
    except (OverflowError, ValueError, TypeError):
        raise tensors.wrong(name, f"a value does not fit {datatype}", code="CL-E105") from None


def _plain(array: Array, datatype: str) -> list[Any]:
    values: list[Any] = array.ravel().tolist()
    return [str(one).encode() for one in values] if datatype == "BYTES" else values
