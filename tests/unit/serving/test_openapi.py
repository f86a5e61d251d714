"""The OpenAPI document: well formed, complete, and true to what the door does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from cloche.core.signature import Field, Signature
from cloche.serving.openapi import openapi_document
from cloche.serving.protocols.schema import as_json, example_row, input_schema, output_schema

Run = Callable[[Any], None]
MakeDoor = Callable[..., Any]
METHODS = {"get", "post"}


@pytest.fixture
def document(make_door: MakeDoor, run: Run) -> Any:
    made: list[Any] = []

    async def scenario() -> None:
        door = make_door()
        made.append(json.loads((await door.call("GET", "/openapi.json")).body))
        assert made[0] == json.loads(json.dumps(openapi_document(door.app.table)))

    run(scenario())
    return made[0]


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def everything(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from everything(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from everything(inner)


def test_it_is_an_openapi_3_1_document(document: Any) -> None:
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= set(document["info"])
    ids = []
    for path, method, operation in operations(document):
        assert path.startswith("/")
        assert method in METHODS
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", operation["operationId"])
        ids.append(operation["operationId"])
        assert operation["responses"]
        for status, answer in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d", status)
            assert answer["description"]
    assert len(ids) == len(set(ids))


def test_every_reference_leads_somewhere(document: Any) -> None:
    found = 0
    for part in everything(document):
        if "$ref" in part:
            target = document
            for step in part["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            found += 1
    assert found > 3


def test_every_path_that_is_served_is_described(document: Any, make_door: MakeDoor, run: Run) -> None:
    async def scenario() -> None:
        door = make_door()
        served = {path for dialect in door.dialects for path in dialect.paths()}
        served |= {route.path for route in door.pages.routes}
        # the page itself, its files, the document, and the same again by version
        pages = ("/docs", "/openapi", "/playground")
        rest = {path for path in served - set(document["paths"]) if not path.startswith(pages)}
        assert all("/versions/3" in path for path in rest)
        assert set(document["paths"]) <= served

    run(scenario())


def test_every_path_answers_as_it_says(document: Any, make_door: MakeDoor, run: Run) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            for path, method, operation in operations(document):
                if method == "get":
                    answer = await door.ask(path)
                    assert answer.status == 200
                    described = operation["responses"]["200"].get("content", {})
                    came = answer.headers.get("content-type", "").partition(";")[0]
                    assert not described or came in described
                else:
                    answer = await door.ask(path, b"{")
                    described = operation["responses"][str(answer.status)]["content"]
                    assert answer.headers["content-type"] in described

    run(scenario())


def test_every_example_is_answered(document: Any, make_door: MakeDoor, run: Run) -> None:
    async def scenario() -> None:
        async with make_door(on_invalid="reject").open() as door:
            asked = 0
            for path, method, operation in operations(document):
                if method != "post":
                    continue
                content = operation["requestBody"]["content"]["application/json"]
                examples = [one["value"] for one in content.get("examples", {}).values()]
                for example in [*examples, *([content["example"]] if "example" in content else [])]:
                    answer = await door.ask(path, example)
                    assert answer.status == 200, (path, example, answer.body)
                    asked += 1
            assert asked >= 3

    run(scenario())


def test_predictions_name_every_way_they_can_end(document: Any) -> None:
    responses = document["paths"]["/predict/fraud"]["post"]["responses"]
    assert {"200", "400", "401", "403", "404", "413", "415", "422", "429", "500", "503", "504"} <= set(responses)
    problem = responses["422"]["content"]["application/problem+json"]["schema"]["$ref"]
    assert problem == "#/components/schemas/Problem"


def test_a_row_is_described_by_the_signature(document: Any) -> None:
    row = document["components"]["schemas"]["Row"]
    assert row["required"] == ["age", "pay", "job", "point"]
    assert row["additionalProperties"] is False
    assert row["properties"]["pay"]["type"] == ["number", "null"]
    assert row["properties"]["age"]["type"] == "integer"
    assert "seen from 0 to 120" in row["properties"]["age"]["description"]
    assert "cook, nurse" in row["properties"]["job"]["description"]
    point = row["properties"]["point"]
    assert (point["type"], point["minItems"], point["maxItems"]) == ("array", 2, 2)
    prediction = document["components"]["schemas"]["Answer"]["properties"]["prediction"]
    assert prediction["properties"]["probabilities"]["required"] == ["no", "yes"]


@pytest.mark.parametrize(
    ("datatype", "kind"),
    [("BOOL", "boolean"), ("UINT8", "integer"), ("INT64", "integer"), ("FP16", "number"), ("BYTES", "string")],
)
def test_datatypes_are_json_types(datatype: str, kind: str) -> None:
    field = Field(name="x", datatype=datatype, shape=(-1,))
    assert input_schema(field)["type"] == output_schema(field)["type"] == kind
    nested = input_schema(Field(name="x", datatype=datatype, shape=(-1, -1, 3)))
    assert (nested["type"], nested["items"]["type"], nested["items"]["items"]["type"]) == ("array", "array", kind)
    assert "minItems" not in nested
    assert nested["items"]["maxItems"] == 3


def test_numpys_values_are_plain_json() -> None:
    assert as_json(np.float32(0.5)) == 0.5
    assert as_json(np.float64("nan")) is None
    assert as_json(np.array([[1, 2]])) == [[1, 2]]
    assert as_json(np.bool_(True)) is True
    assert as_json("x") == "x"


def test_an_image_stands_in_the_document_in_words() -> None:
    signature = Signature(
        inputs=(Field(name="pixels", datatype="FP32", shape=(-1, 3, 64, 64)),),
        outputs=(Field(name="output", datatype="FP32", shape=(-1, 10)),),
    )
    row = example_row({"pixels": np.zeros((1, 3, 64, 64), np.float32)}, signature)
    assert row == {"pixels": "3 × 64 × 64 values"}
