"""A packed model is served, and everyone who asks gets the answers that `cloche.load` gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.journeys.conftest import shop_rows
from tests.journeys.serving import Serving, up
from tests.journeys.serving import cloche as command

import cloche


@pytest.fixture(scope="module")
def serving(shop: Path):
    with up(shop, "churn@champion", "--workers", "2") as serving:
        yield serving


def rows_of(count: int) -> list[dict[str, Any]]:
    frame, _ = shop_rows(count, seed=7)
    return [{k: (None if v is None or v != v else v) for k, v in row.items()} for row in frame.to_dict("records")]


def test_both_dialects_answer_as_load_does(serving: Serving, shop: Path) -> None:
    frame, _ = shop_rows(40, seed=7)
    expected = cloche.load("churn@champion", directory=shop).predict_proba(frame)
    ours = serving.ask("/predict/churn", {"rows": rows_of(40)}).json()
    ours_probabilities = [list(one["probabilities"].values()) for one in ours["predictions"]]
    np.testing.assert_allclose(ours_probabilities, expected, rtol=1e-6)
    columns = {name: [row[name] for row in rows_of(40)] for name in frame}
    types = {"age": "INT64", "income": "FP64", "plan": "BYTES", "mails": "BOOL"}
    tensors = [
        {"name": name, "shape": [40, 1], "datatype": types[name], "data": values}
        for name, values in columns.items()
    ]
    theirs = serving.ask("/v2/models/churn/infer", {"id": "mine", "inputs": tensors}).json()
    outputs = {output["name"]: output for output in theirs["outputs"]}
    assert theirs["id"] == "mine"
    assert outputs["probabilities"]["shape"] == [40, 2]
    assert outputs["probabilities"]["data"] == pytest.approx(expected.ravel().tolist())


def test_an_answer_says_what_gave_it(serving: Serving, customer: dict[str, Any]) -> None:
    answer = serving.ask("/predict/churn", customer, headers={"X-Request-Id": "abc-1"})
    body = answer.json()
    assert answer.status == 200
    assert answer.headers["cloche-model"] == body["model"] == "churn:1"
    assert answer.headers["cloche-prediction-id"] == body["prediction_id"]
    assert answer.headers["x-request-id"] == "abc-1"
    assert "model;dur=" in answer.headers["server-timing"]
    assert set(body["prediction"]) == {"label", "probabilities"}


def test_bad_values_are_named(serving: Serving, customer: dict[str, Any]) -> None:
    answer = serving.ask("/predict/churn", {"rows": [customer, {**customer, "age": "old", "plam": "pro"}]})
    assert answer.status == 422
    problems = {(one["row"], one["field"], one["code"]) for one in answer.json()["errors"]}
    assert problems == {(1, "age", "CL-E105"), (1, "plam", "CL-E103")}


def test_what_is_not_live_is_not_found(serving: Serving, customer: dict[str, Any]) -> None:
    assert serving.ask("/predict/churn?version=1", customer).status == 200
    assert serving.ask("/predict/churn?version=2", customer).status == 404
    assert serving.ask("/predict/chrun", customer).status == 404
    assert serving.ask("/v2/models/churn/versions/2/infer", {"inputs": []}).status == 404


def test_the_pages_are_there(serving: Serving) -> None:
    assert serving.ask("/v2/health/ready").status == serving.ask("/livez").status == 200
    assert serving.ask("/openapi.json").json()["openapi"].startswith("3.1")
    assert b"docs/docs.js" in serving.ask("/docs").body


def test_metrics_count_every_answer_once_over_all_workers(serving: Serving, customer: dict[str, Any]) -> None:
    name = "cloche_requests_total"
    before = serving.metric(name, deployment="churn", dialect="cloche", code="200")
    for _ in range(30):
        assert serving.ask("/predict/churn", customer).status == 200
    assert serving.metric(name, deployment="churn", dialect="cloche", code="200") == before + 30


def test_a_second_up_is_refused_while_one_runs(serving: Serving) -> None:
    done = command(serving.folder, "up", "churn", "--port", "0", check=False)
    assert done.returncode == 5
    assert "CL-E501" in done.stderr
