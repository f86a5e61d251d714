"""JSON schemas and examples of rows, made from a signature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cloche.core.signature import FLOATS, INTEGERS, Columns, Field, Signature
from cloche.serving.protocols.base import Live

#: An example of more values is told in words.
MOST_SHOWN = 1_000


def input_schema(field: Field) -> dict[str, Any]:
    """The schema of one value of an input; what the data showed stands in the description, it is no bound."""
    scalar: dict[str, Any]
    if field.datatype in FLOATS:
        scalar = {"type": "number"}
        if field.datatype != "FP64":
            limit = float(np.finfo(field.numpy_type).max)
            scalar |= {"minimum": -limit, "maximum": limit}
    elif field.datatype in INTEGERS:
        limits = np.iinfo(field.numpy_type)
        scalar = {"type": "integer", "minimum": int(limits.min), "maximum": min(int(limits.max), 2**63 - 1)}
    else:
        scalar = {"type": "boolean" if field.datatype == "BOOL" else "string"}
    if field.takes_null:
        scalar["type"] = [scalar["type"], "null"]
    schema = _nested(scalar, field.shape[1:])
    notes = []
    if field.minimum is not None and field.maximum is not None:
        notes.append(f"seen from {field.minimum:g} to {field.maximum:g}")
    if field.categories is not None:
        shown = ", ".join(field.categories[:20])
        notes.append(f"seen: {shown}" + (", …" if len(field.categories) > 20 else ""))
    if notes:
        schema["description"] = "; ".join(notes)
    return schema


def output_schema(field: Field) -> dict[str, Any]:
    """The schema of one row of an output in our own dialect."""
    kind = "number" if field.datatype in FLOATS else "integer" if field.datatype in INTEGERS else "string"
    scalar: dict[str, Any] = {"type": "boolean" if field.datatype == "BOOL" else kind}
    if field.classes is not None and len(field.shape) == 2:
        properties = {name: dict(scalar) for name in field.classes}
        return {"type": "object", "properties": properties, "required": list(field.classes)}
    return _nested(scalar, field.shape[1:])


def _nested(scalar: dict[str, Any], tail: tuple[int, ...]) -> dict[str, Any]:
    schema = scalar
    for size in reversed(tail):
        schema = {"type": "array", "items": schema}
        if size >= 0:
            schema |= {"minItems": size, "maxItems": size}
    return schema


def schema_ref(live: Live, name: str) -> dict[str, str]:
    """Where the document has the schema of a deployment's Row or Answer."""
    return {"$ref": f"#/components/schemas/{_schema_name(live, name)}"}


def _schema_name(live: Live, name: str) -> str:
    return f"{live.deployment}.{name}" if live.neighbours else name


def signature_schemas(live: Live) -> dict[str, Any]:
    """The JSON schemas of a row and of an answer, by what `schema_ref` calls them."""
    signature = live.signature
    prediction = {
        "type": "object",
        "properties": {field.name: output_schema(field) for field in signature.outputs},
        "required": [field.name for field in signature.outputs],
    }
    flag = {
        "type": "object",
        "properties": {
            "row": {"type": "integer"},
            "field": {"type": "string"},
            "code": {"type": "string"},
        },
    }
    return {
        _schema_name(live, "Row"): {
            "type": "object",
            "properties": {field.name: input_schema(field) for field in signature.inputs},
            "required": [field.name for field in signature.inputs],
            "additionalProperties": False,
        },
        _schema_name(live, "Answer"): {
            "type": "object",
            "properties": {
                "model": {"type": "string"},
                "prediction_id": {"type": "string", "pattern": "^[0-9a-f]{24}$"},
                "prediction": prediction,
                "predictions": {"type": "array", "items": prediction},
                "flags": {"type": "array", "items": flag},
            },
            "required": ["model", "prediction_id"],
        },
    }


def predictions(outputs: Columns, signature: Signature) -> list[dict[str, Any]]:
    """A row of outputs an object: output name -> value, probabilities by the names of their classes."""
    names = [field.name for field in signature.outputs]
    columns = [
        [named(value, classes_of(field)) for value in outputs[field.name].tolist()] for field in signature.outputs
    ]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def classes_of(field: Field) -> tuple[str, ...] | None:
    """The names of an output's columns, where it holds a number a class."""
    return field.classes if len(field.shape) == 2 else None


def named(value: Any, classes: tuple[str, ...] | None) -> Any:
    """A row of probabilities by the names of their classes; any other value as it is."""
    return value if classes is None else dict(zip(classes, value, strict=True))


def json_responses() -> dict[str, Any]:
    """An answer in JSON whose form is a foreign protocol's."""
    return {"200": {"description": "OK", "content": {"application/json": {"schema": {"type": "object"}}}}}


def problem_responses(content: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The answers that are not 200, which every operation shares; `content` is a foreign protocol's way."""
    content = content or {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    words = {
        "400": "The body is malformed.",
        "401": "A key is needed, or the one that came is not good.",
        "403": "The key lacks the scope.",
        "404": "No such deployment or version is live.",
        "408": "The request came too slowly.",
        "406": "No form of answer that is accepted can be given.",
        "413": "Too large.",
        "415": "The media type is not understood.",
        "422": "A value is wrong; `errors` names row and field.",
        "429": "The key's rate limit is reached.",
        "500": "The model failed.",
        "503": "Overloaded or not ready; come back after Retry-After.",
        "504": "The deadline passed.",
    }
    return {code: {"description": text, "content": content} for code, text in words.items()}


PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "pattern": "^CL-E[0-9]{3}$"},
        "where": {"type": "string"},
        "hint": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
        "request_id": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail", "code", "request_id"],
}


def example_row(examples: Columns, signature: Signature, row: int = 0) -> dict[str, Any]:
    """A real row as our own dialect takes it; words stand for an array that is too large to be read."""
    return {field.name: example_value(examples[field.name][row]) for field in signature.inputs}


def example_value(value: Any) -> Any:
    """A numpy scalar or array as plain JSON values, or words where a page would hold an image's numbers."""
    if isinstance(value, np.ndarray) and value.size > MOST_SHOWN:
        return f"{' × '.join(map(str, value.shape))} values"
    return as_json(value)


def as_json(value: Any) -> Any:
    """A numpy scalar or array as plain JSON values; NaN as null."""
    if isinstance(value, np.ndarray):
        return [as_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and value != value else value
