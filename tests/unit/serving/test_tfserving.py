"""TF Serving's REST API as its documentation has it: forms, names, b64, status, metadata, labels."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from cloche.core.signature import Columns, Field, Signature
from cloche.serving.protocols.tfserving import TfServingDialect

Run = Callable[[Any], None]
MakeDoor = Callable[..., Any]
PREDICT = "/v1/models/fraud:predict"
HALF_PLUS_TWO = Signature(
    inputs=(Field(name="x", datatype="FP32", shape=(-1,)),),
    outputs=(Field(name="y", datatype="FP32", shape=(-1,)),),
)
CAPTION = Signature(
    inputs=(Field(name="image_bytes", datatype="BYTES", shape=(-1,)),),
    outputs=(
        Field(name="text_bytes", datatype="BYTES", shape=(-1,)),
        Field(name="score", datatype="FP32", shape=(-1, 2)),
    ),
)


class Halves:
    """A Halves is TF Serving's own example, half plus two."""

    in_process = True

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        return {"y": columns["x"] / np.float32(2) + np.float32(2)}

    def close(self) -> None: ...


class Captions:
    """A Captions says back what it was shown."""

    in_process = True

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        texts = columns["image_bytes"]
        return {"text_bytes": texts, "score": np.full((len(texts), 2), 0.5, np.float32)}

    def close(self) -> None: ...


def halves(make_door: MakeDoor, **options: Any) -> Any:
    examples = {"x": np.array([1.0], np.float32)}
    return make_door(signature=HALF_PLUS_TWO, examples=examples, runtime=Halves(), **options)


def test_the_documented_requests_have_the_documented_answers(make_door: MakeDoor, run: Run) -> None:
    async def scenario() -> None:
        async with halves(make_door).open() as door, door.connect() as client:
            as_curl = {"content-type": "application/x-www-form-urlencoded"}
            cases: list[tuple[Any, Any]] = [
                ({"instances": [1.0, 2.0, 5.0]}, {"predictions": [2.5, 3.0, 4.5]}),
                ({"instances": [{"x": 1.0}, {"x": 2}]}, {"predictions": [2.5, 3.0]}),
                ({"instances": [{"x": 1.0}, 2.0]}, {"predictions": [2.5, 3.0]}),
                ({"inputs": [1.0, 2.0]}, {"outputs": [2.5, 3.0]}),
                ({"inputs": {"x": [1.0, 2.0]}}, {"outputs": [2.5, 3.0]}),
                ({"signature_name": "serving_default", "instances": [1.0]}, {"predictions": [2.5]}),
            ]
            for body, wanted in cases:
                answer = await client.ask(PREDICT, json.dumps(body).encode(), headers=as_curl)
                assert (answer.status, answer.json()) == (200, wanted), body

    run(scenario())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"instances": [1.0], "inputs": [1.0]}, "both"),
        ({}, "neither"),
        ({"signature_name": "serving_default"}, "neither"),
        ({"signature_name": "other", "instances": [1.0]}, "no signature 'other'"),
        ({"signature_name": 3, "instances": [1.0]}, "no signature"),
        ({"instances": [1.0], "what": 1}, "`what` is not known"),
        ({"instances": 1.0}, "`instances` is a number"),
        ({"instances": []}, "no rows"),
        ({"instances": [[1.0]]}, "`x` of row 0"),
        ({"instances": [1.0, "2"]}, "`x` of row 1 is a string"),
        ({"instances": [1.0, 1e39]}, "`x` of row 1"),
        ({"inputs": 1.0}, "`x` is a number"),
        ({"inputs": []}, "no rows"),
        ({"inputs": {"y": [1.0]}}, "`y` is not known"),
        ({"inputs": {}}, "`x` is missing"),
        ({"inputs": {"x": [1.0, None]}}, "`x` of row 1 is null"),
    ],
)
def test_what_is_wrong_is_said_as_its_errors_are(body: Any, words: str, make_door: MakeDoor, run: Run) -> None:
    async def scenario() -> None:
        answer = await halves(make_door).call("POST", PREDICT, json.dumps(body).encode())
        assert 400 <= answer.status < 500
        assert words in answer.json()["error"]

    run(scenario())


def test_bytes_go_as_base64_by_the_documented_names(make_door: MakeDoor, run: Run) -> None:
    def b64(text: str) -> dict[str, str]:
        return {"b64": base64.b64encode(text.encode()).decode()}

    async def scenario() -> None:
        examples = {"image_bytes": np.array(["x"], object)}
        door = make_door(signature=CAPTION, examples=examples, runtime=Captions())
        wanted = [{"text_bytes": b64("ä"), "score": [0.5, 0.5]}]
        for instance in (b64("ä"), {"image_bytes": b64("ä")}, "ä"):
            answer = await door.call("POST", PREDICT, json.dumps({"instances": [instance]}).encode())
            assert answer.json() == {"predictions": wanted}, instance
        body = json.dumps({"inputs": {"image_bytes": [b64("ä"), "b"]}}).encode()
        columns = (await door.call("POST", PREDICT, body)).json()["outputs"]
        assert columns == {"text_bytes": [b64("ä"), b64("b")], "score": [[0.5, 0.5]] * 2}
        for bad in ({"b64": "?"}, {"b64": 1}, {"b64": "/w=="}):
            answer = await door.call("POST", PREDICT, json.dumps({"instances": [bad]}).encode())
            assert answer.status == 422
            assert "b64" in answer.json()["error"]

    run(scenario())


def test_status_and_metadata_are_tensorflows(make_door: MakeDoor, run: Run) -> None:
    async def scenario() -> None:
        async with halves(make_door).open() as door, door.connect() as client:
            status = (await client.ask("/v1/models/fraud")).json()
            assert status["model_version_status"] == [
                {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            ]
            assert (status["name"], status["ready"]) == ("fraud", True)
            assert (await client.ask("/v1/models/fraud/versions/3")).json() == status
            metadata = (await client.ask("/v1/models/fraud/metadata")).json()
            assert metadata["model_spec"] == {"name": "fraud", "signature_name": "", "version": "3"}
            described = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
            assert described["inputs"]["x"] == {
                "dtype": "DT_FLOAT",
                "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
                "name": "x",
            }
            assert described["method_name"] == "tensorflow/serving/predict"
            models = (await client.ask("/v1/models")).json()
            assert models["models"] == ["fraud"]  # as KServe's clients read it
            assert [one["id"] for one in models["data"]] == ["fraud"]  # as OpenAI's do
            door.state.is_draining = True
            answer = await client.ask("/v1/models/fraud")
            assert (answer.status, answer.json()["ready"]) == (503, False)
            assert answer.json()["model_version_status"][0]["state"] == "UNLOADING"

    run(scenario())


def test_a_version_or_label_that_is_not_live_is_not_found(make_door: MakeDoor, run: Run) -> None:
    async def scenario() -> None:
        door = halves(make_door)
        body = b'{"instances": [1.0]}'
        for path in ("/v1/models/fraud/versions/2", "/v1/models/fraud/labels/stable", "/v1/models/other"):
            for method, way in (("POST", f"{path}:predict"), ("GET", path), ("GET", f"{path}/metadata")):
                answer = await door.call(method, way, body)
                assert answer.status == 404
                assert "nothing live answers" in answer.json()["error"]
        for verb in ("classify", "regress", "explain"):
            assert (await door.call("POST", f"/v1/models/fraud:{verb}", body)).status == 404

    run(scenario())


def test_an_alias_is_a_label(make_door: MakeDoor, run: Run) -> None:
    async def scenario() -> None:
        door = halves(make_door)
        live = msgspec.structs.replace(door.live, aliases=("champion", "stable"))
        paths = TfServingDialect(live).paths()
        assert paths == [
            "/v1/models/fraud:predict",
            "/v1/models/fraud/versions/3:predict",
            "/v1/models/fraud/labels/champion:predict",
            "/v1/models/fraud/labels/stable:predict",
        ]

    run(scenario())


def test_the_forms_that_the_documents_show_are_described(make_door: MakeDoor, run: Run) -> None:
    async def scenario() -> None:
        live = msgspec.structs.replace(halves(make_door).live, aliases=("champion",))
        paths = TfServingDialect(live).openapi()
        content = paths["/v1/models/fraud:predict"]["post"]["requestBody"]["content"]
        by_row, by_column = content["application/json"]["schema"]["oneOf"]
        assert [kind["type"] for kind in by_row["properties"]["instances"]["items"]["anyOf"][1:]] == ["number"]
        assert [kind["type"] for kind in by_column["properties"]["inputs"]["anyOf"]] == ["object", "array"]

    run(scenario())
