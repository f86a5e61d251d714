"""The messages of the Open Inference Protocol over gRPC and of gRPC's health service, described in code.

Numbers and names are those of KServe's `grpc_predict_v2.proto` and of gRPC's `health.proto`. No generated file:
what protoc writes is tied to the protobuf that it was made for, and registers its names for the whole process,
where another client of the protocol may have done so.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "bool": _Field.TYPE_BOOL, "int32": _Field.TYPE_INT32, "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32, "uint64": _Field.TYPE_UINT64, "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE, "string": _Field.TYPE_STRING, "bytes": _Field.TYPE_BYTES,
}  # fmt: skip
#: A line a field in the order of their numbers: its type (`*`: repeated, `@`: a map from strings), its name.
_INFERENCE = {
    "Nothing": "",
    "ServerLiveResponse": "bool live",
    "ServerReadyResponse": "bool ready",
    "ModelReadyRequest": "string name, string version",
    "ModelReadyResponse": "bool ready",
    "ServerMetadataResponse": "string name, string version, *string extensions",
    "ModelMetadataRequest": "string name, string version",
    "TensorMetadata": "string name, string datatype, *int64 shape",
    "ModelMetadataResponse": "string name, *string versions, string platform, *TensorMetadata inputs,"
    " *TensorMetadata outputs",
    "InferParameter": "bool bool_param, int64 int64_param, string string_param",
    "InferTensorContents": "*bool bool_contents, *int32 int_contents, *int64 int64_contents,"
    " *uint32 uint_contents, *uint64 uint64_contents, *float fp32_contents, *double fp64_contents,"
    " *bytes bytes_contents",
    "Tensor": "string name, string datatype, *int64 shape, @InferParameter parameters,"
    " InferTensorContents contents",
    "RequestedOutput": "string name, @InferParameter parameters",
    "ModelInferRequest": "string model_name, string model_version, string id, @InferParameter parameters,"
    " *Tensor inputs, *RequestedOutput outputs, *bytes raw_input_contents",
    "ModelInferResponse": "string model_name, string model_version, string id, @InferParameter parameters,"
    " *Tensor outputs, *bytes raw_output_contents",
}
_HEALTH = {"HealthCheckRequest": "string service", "HealthCheckResponse": "int32 status"}
#: Messages whose fields exclude each other.
_CHOICES = {"InferParameter": "parameter_choice"}


def _described(package: str, messages: dict[str, str]) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=f"cloche/{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        if name in _CHOICES:
            message.oneof_decl.add(name=_CHOICES[name])
        for number, line in enumerate(filter(None, fields.split(", ")), 1):
            kind, field_name = line.split()
            is_many = kind[0] in "*@"
            field = message.field.add(
                name=field_name,
                number=number,
                label=_Field.LABEL_REPEATED if is_many else _Field.LABEL_OPTIONAL,
            )
            if name in _CHOICES:
                field.oneof_index = 0
            if kind[0] == "@":
                kind = _add_entry(message, field_name, f".{package}.{kind[1:]}")
            _set_type(field, kind.lstrip("*"), package)
    return file


def _add_entry(message: Any, field_name: str, kind: str) -> str:
    """The type of a map's entries, as protobuf spells maps: a message of its own with a key and a value."""
    name = f"{field_name.capitalize()}Entry"
    entry = message.nested_type.add(name=name)
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
    entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_MESSAGE, type_name=kind)
    return f"{message.name}.{name}"


def _set_type(field: Any, kind: str, package: str) -> None:
    if kind in _TYPES:
        field.type = _TYPES[kind]
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{package}.{kind}"


_pool = descriptor_pool.DescriptorPool()
for _file in (_described("inference", _INFERENCE), _described("grpc.health.v1", _HEALTH)):
    _pool.AddSerializedFile(_file.SerializeToString())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(name))


Nothing = _message("inference.Nothing")
ServerLiveResponse = _message("inference.ServerLiveResponse")
ServerReadyResponse = _message("inference.ServerReadyResponse")
ModelReadyRequest = _message("inference.ModelReadyRequest")
ModelReadyResponse = _message("inference.ModelReadyResponse")
ServerMetadataResponse = _message("inference.ServerMetadataResponse")
ModelMetadataRequest = _message("inference.ModelMetadataRequest")
ModelMetadataResponse = _message("inference.ModelMetadataResponse")
ModelInferRequest = _message("inference.ModelInferRequest")
ModelInferResponse = _message("inference.ModelInferResponse")
HealthCheckRequest = _message("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse = _message("grpc.health.v1.HealthCheckResponse")
