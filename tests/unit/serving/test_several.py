"""Several deployments behind one door: each answers for itself, and what they share tells of all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cloche.core.board import Board
from cloche.core.keys import KeyRing, mint_key
from cloche.core.signature import Field, Signature
from cloche.core.units import Rate
from cloche.serving.guard import Policy
from cloche.serving.http import App
from cloche.serving.pages import Pages
from cloche.serving.table import Served, Table

Run = Callable[[Any], None]
NAMES = ("churn", "fraud")
OTHER = Signature(
    inputs=(Field(name="x", datatype="FP64", shape=(-1, 2)),),
    outputs=(Field(name="value", datatype="FP64", shape=(-1,)),),
)


class Sum:
    """Adds up."""

    in_process = True

    def run(self, columns: Any, timeout_s: float | None = None) -> Any:
        return {"value": columns["x"].sum(axis=1)}

    def close(self) -> None: ...


@pytest.fixture
def several(make_door: Callable[..., Any], board: Board) -> Callable[[], Any]:
    """A door to `fraud`, open to anybody, and to `churn`, which needs a key and lets it through three times."""

    def make() -> Any:
        made = mint_key("phone", created=0.0)
        fraud = make_door(neighbours=NAMES)
        churn = make_door(
            deployment="churn",
            neighbours=NAMES,
            signature=OTHER,
            examples={"x": np.array([[1.0, 2.0]])},
            runtime=Sum(),
            policy=Policy(keys_required=True, loopback=True, limits={"default": Rate(3, 60)}),
            keys=KeyRing([made.record]),
        )
        table = Table([Served(each) for door in (fraud, churn) for each in door.app.table.predictions])
        fraud.app = App(table, Pages(table, board, fraud.state), fraud.state, max_body=1_000_000)
        fraud.bearer = {"authorization": f"Bearer {made.text}"}
        return fraud

    return make


def test_each_answers_in_its_own_name(several: Callable[[], Any], run: Run, row: Any) -> None:
    async def scenario() -> None:
        door = several()
        fraud = await door.call("POST", "/predict/fraud", json.dumps(row).encode())
        assert "probabilities" in fraud.json()["prediction"]
        churn = await door.call("POST", "/predict/churn", b'{"x": [1, 2]}', door.bearer)
        assert churn.json()["prediction"] == {"value": 3.0}
        body = b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [3, 4]}]}'
        oip = await door.call("POST", "/v2/models/churn/infer", body, door.bearer)
        assert oip.json()["outputs"][0]["data"] == [7.0]
        nobody = await door.call("POST", "/predict/sales", b"{}", door.bearer)
        assert nobody.json()["code"] == "CL-E305"
        assert "churn is live" in nobody.json()["hint"]

    run(scenario())


def test_a_path_that_names_none_leads_nowhere_and_says_where_to_go(several: Callable[[], Any], run: Run) -> None:
    async def scenario() -> None:
        door = several()
        for method in ("POST", "GET"):
            answer = await door.call(method, "/invocations", b"{}" if method == "POST" else b"", door.bearer)
            assert answer.status == 404
            assert b"2 deployments could answer at /invocations: churn, fraud" in answer.body
        assert (await door.call("GET", "/ping")).status == 200

    run(scenario())


def test_each_has_a_guard_of_its_own(several: Callable[[], Any], run: Run, row: Any) -> None:
    async def scenario() -> None:
        door = several()
        asked = json.dumps(row).encode()
        assert (await door.call("POST", "/predict/fraud", asked)).status == 200
        assert (await door.call("POST", "/predict/churn", b'{"x": [1, 2]}')).status == 401
        statuses = [
            (await door.call("POST", "/predict/churn", b'{"x": [1, 2]}', door.bearer)).status for _ in range(4)
        ]
        assert statuses == [200, 200, 200, 429]
        assert (await door.call("POST", "/predict/fraud", asked, door.bearer)).status == 200

    run(scenario())


def test_what_belongs_to_nobody_alone_is_guarded_as_the_strictest(several: Callable[[], Any], run: Run) -> None:
    async def scenario() -> None:
        door = several()
        expected = {
            "/v2/models/fraud": 200, "/v2/models/churn": 401, "/v1/models/churn": 401,
            "/v2/models": 401, "/v1/models": 401, "/invocations": 401, "/v2/models/sales": 401, "/nothing": 401,
            "/docs": 200, "/docs/churn": 200, "/playground/churn": 200, "/readyz": 200, "/openapi.json": 200,
        }  # fmt: skip
        for path, status in expected.items():
            assert (await door.call("GET", path)).status == status, path

    run(scenario())


def test_lists_name_them_all(several: Callable[[], Any], run: Run) -> None:
    async def scenario() -> None:
        door = several()
        assert (await door.call("GET", "/v2/models", headers=door.bearer)).json() == {"models": ["churn", "fraud"]}
        assert (await door.call("GET", "/v1/models", headers=door.bearer)).json()["models"] == ["churn", "fraud"]
        page = (await door.call("GET", "/docs")).body.decode()
        assert 'href="docs/churn"' in page
        assert 'href="docs/fraud"' in page
        assert (await door.call("GET", "/playground")).headers["location"] == "docs"
        below = (await door.call("GET", "/docs/churn")).body.decode()
        assert 'data-root="../"' in below
        assert 'href="../docs/docs.css"' in below

    run(scenario())


def test_one_document_describes_them_all(several: Callable[[], Any], run: Run) -> None:
    async def scenario() -> None:
        door = several()
        document = (await door.call("GET", "/openapi.json")).json()
        assert {"/predict/churn", "/predict/fraud"} < set(document["paths"])
        assert "/invocations" not in document["paths"]
        assert {"churn.Row", "fraud.Row", "churn.Answer", "fraud.Answer"} < set(document["components"]["schemas"])
        ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
        assert len(ids) == len(set(ids))
        text = json.dumps(document)
        for name in document["components"]["schemas"]:
            assert f"#/components/schemas/{name}" in text
        assert '#/components/schemas/Row"' not in text

    run(scenario())
