"""SageMaker's container API with MLflow's bodies: health, what comes back, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest

from cloche.core.signature import Columns, Field, Signature

Run = Callable[[Any], None]
MakeDoor = Callable[..., Any]
MATRIX = Signature(
    inputs=(Field(name="x", datatype="FP64", shape=(-1, 2)),),
    outputs=(
        Field(name="low", datatype="FP64", shape=(-1,)),
        Field(name="high", datatype="FP64", shape=(-1,)),
    ),
)


class Bounds:
    """A Bounds gives the lesser and the greater of two numbers."""

    in_process = True

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        return {"low": columns["x"].min(axis=1), "high": columns["x"].max(axis=1)}

    def close(self) -> None: ...


def test_health_is_open_to_all_and_follows_readiness(make_door: MakeDoor, run: Run) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            for path in ("/ping", "/health"):
                assert (await client.ask(path)).status == 200
            answer = await client.ask("/version")
            assert (answer.status, answer.body.decode()) == (200, version("cloche"))
            door.state.is_draining = True
            assert [(await door.ask(path)).status for path in ("/ping", "/health")] == [503, 503]

    run(scenario())


def test_a_model_of_several_outputs_answers_records(make_door: MakeDoor, run: Run) -> None:
    wanted = {"predictions": [{"low": 1.0, "high": 2.0}, {"low": 3.0, "high": 4.0}]}
    bodies = [
        {"instances": [[2, 1], [3.0, 4.0]]},
        {"inputs": [[2, 1], [3.0, 4.0]]},
        {"inputs": {"x": [[2, 1], [3.0, 4.0]]}},
        {"instances": [{"x": [2, 1]}, {"x": [3, 4]}]},
        {"dataframe_split": {"columns": ["x"], "data": [[[2, 1]], [[3, 4]]]}},
        # a frame of a model that was trained on an array: its columns are the array's
        {"dataframe_split": {"columns": ["left", "right"], "index": [0, 1], "data": [[2, 1], [3, 4]]}},
        {"dataframe_split": {"columns": [0, 1], "data": [[2, 1], [3, 4]]}, "params": {}},
        {"dataframe_records": [{"x": [2, 1]}, {"x": [3, 4]}], "params": None},
        {"dataframe_records": [{"left": 2, "right": 1}, {"right": 4, "left": 3}]},
    ]

    async def scenario() -> None:
        door = make_door(signature=MATRIX, examples={"x": np.ones((1, 2))}, runtime=Bounds())
        for body in bodies:
            answer = await door.call("POST", "/invocations", json.dumps(body).encode())
            assert answer.json() == wanted, body
        table = await door.call("POST", "/invocations", b"left,right\n2,1\n3,4\n", {"content-type": "text/csv"})
        assert table.json() == wanted

    run(scenario())


def test_the_nan_of_mlflows_client_is_a_missing_number(make_door: MakeDoor, run: Run, row: Any) -> None:
    async def scenario() -> None:
        door = make_door()
        split = {"columns": list(row), "data": [[41, float("nan"), "cook", [0.5, 1.5]]]}
        answer = await door.call("POST", "/invocations", json.dumps({"dataframe_split": split}).encode())
        assert answer.json() == {"predictions": ["no"]}
        split["data"] = [[41, 1.0, 'NaN"\\', [0.5, float("nan")]]]
        answer = await door.call("POST", "/invocations", json.dumps({"dataframe_split": split}).encode())
        assert answer.status == 422
        assert "`point` of row 0" in answer.json()["message"]
        answer = await door.call("POST", "/invocations", b'{"instances": NaN')
        assert answer.status == 400

    run(scenario())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, "exactly one of"),
        ({}, "nothing came"),
        ({"rows": [[1, 2]]}, "`rows` came"),
        ({"instances": [[1, 2]], "params": {"t": 1}}, "takes no `params`"),
        ({"dataframe_split": {"data": [[1, 2]]}}, "columns"),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [1]]}}, "row 1 has 1 values"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": []}}, "came twice"),
        ({"dataframe_split": {"columns": ["a", "b"], "data": []}}, "no rows"),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, "2"]]}}, "`b` of row 0 is a string"),
        ({"dataframe_records": {"x": [1, 2]}}, "`dataframe_records` is an object"),
        ({"dataframe_records": [[1, 2]]}, "row 0 is a list"),
        ({"dataframe_records": [{"a": 1, "b": 2}, {"a": 1}, 3]}, "row 1 has other columns (and 1 more)"),
        ({"dataframe_records": [{"a": 1, "b": "2"}]}, "`b` of row 0 is a string"),
        ({"dataframe_records": [{"a": 1, "b": 2, "c": 3}]}, "`x` is missing from row 0"),
        ({"dataframe_records": []}, "no rows"),
        ({"instances": [[1, 2, 3]]}, "wrong shape"),
        ([[1, 2]], "can't be read"),
    ],
)
def test_what_is_wrong_is_said_as_mlflow_says_it(body: Any, words: str, make_door: MakeDoor, run: Run) -> None:
    async def scenario() -> None:
        door = make_door(signature=MATRIX, examples={"x": np.ones((1, 2))}, runtime=Bounds())
        answer = await door.call("POST", "/invocations", json.dumps(body).encode())
        assert 400 <= answer.status < 500, answer.body
        said = answer.json()
        assert said["error_code"] == ("BAD_REQUEST" if answer.status == 400 else "INVALID_PARAMETER_VALUE")
        assert words in said["message"]

    run(scenario())
