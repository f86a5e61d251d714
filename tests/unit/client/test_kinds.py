"""What comes in goes out as the same kind: frames with their index, arrays, lists, in chunks of bounded size."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tests.unit.client.conftest import Serve

import cloche
from cloche.client import frames, rows

ARROW = "application/vnd.apache.arrow.stream"


def answer_to(count: int, **more: Any) -> tuple[int, dict[str, str], Any]:
    """An answer with so many predictions, which count from 0."""
    predictions = [{"label": str(n), "probabilities": {"no": 0.25, "yes": 0.75}} for n in range(count)]
    return 200, {}, {"model": "fraud:4", "prediction_id": "c" * 24, "predictions": predictions} | more


def stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_a_pandas_frame_gives_a_pandas_frame_with_its_index(serve: Serve) -> None:
    frame = pd.DataFrame({"age": [1.0, 2.0]}, index=pd.Index(["ann", "bob"], name="who"))
    with cloche.Client(serve(answer_to(2)).url) as client:
        answer = client.predict("fraud", frame)
    assert isinstance(answer, pd.DataFrame)
    assert answer.index.equals(frame.index)
    assert answer.index.name == "who"
    assert list(answer.columns) == ["label", "probabilities.no", "probabilities.yes"]
    assert answer["probabilities.yes"].tolist() == [0.75, 0.75]


def test_a_polars_frame_gives_a_polars_frame(serve: Serve) -> None:
    polars = pytest.importorskip("polars")
    with cloche.Client(serve(answer_to(2)).url) as client:
        answer = client.predict("fraud", polars.DataFrame({"age": [1.0, None]}))
    assert isinstance(answer, polars.DataFrame)
    assert answer["label"].to_list() == ["0", "1"]


def test_a_pyarrow_table_gives_a_pyarrow_table(serve: Serve) -> None:
    with cloche.Client(serve(answer_to(2)).url) as client:
        answer = client.predict("fraud", pa.table({"age": [1.0, 2.0]}))
    assert isinstance(answer, pa.Table)
    assert answer["label"].to_pylist() == ["0", "1"]


def test_many_rows_of_a_frame_go_and_come_as_arrow(serve: Serve) -> None:
    many = frames.ARROW_FROM
    said = pa.table({"label": ["yes"] * many, "probabilities": [{"no": 0.25, "yes": 0.75}] * many})
    server = serve((200, {"Content-Type": ARROW}, stream(said)))
    frame = pd.DataFrame(
        {"age": np.arange(many), "plan": pd.Categorical(["pro"] * many)}, index=range(7, 7 + many)
    )
    with cloche.Client(server.url) as client:
        answer = client.predict("fraud", frame)
    [seen] = server.seen
    assert (seen["headers"]["Content-Type"], seen["headers"]["Accept"]) == (ARROW, ARROW)
    assert pa.ipc.open_stream(seen["body"]).read_all().column_names == ["age", "plan"]  # and no index
    assert answer.index.equals(frame.index)
    assert answer["probabilities.yes"].tolist() == [0.75] * many


@pytest.mark.parametrize("code", ["CL-E115", "CL-E701"])
def test_a_server_without_arrow_is_asked_in_json_from_then_on(serve: Serve, code: str) -> None:
    many = frames.ARROW_FROM
    server = serve((415, {}, {"code": code}), answer_to(many))
    with cloche.Client(server.url) as client:
        for _ in range(2):
            assert len(client.predict("fraud", pd.DataFrame({"age": np.arange(many)}))) == many
    assert ["json" in seen for seen in server.seen] == [False, True, True]


def test_without_pyarrow_here_frames_go_as_json(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    many = frames.ARROW_FROM
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.ipc", None)
    server = serve(answer_to(many))
    with cloche.Client(server.url) as client:
        assert len(client.predict("fraud", pd.DataFrame({"age": np.arange(many)}))) == many
    assert len(server.seen[0]["json"]["rows"]) == many


def test_many_rows_go_in_chunks_and_keep_their_numbers(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", 2)
    flag = {"row": 0, "field": "age", "code": "CL-E109"}
    server = serve(answer_to(2), answer_to(2), answer_to(1, flags=[flag]))
    with cloche.Client(server.url) as client:
        predictions = client.predict("fraud", [{"age": n} for n in range(5)])
    assert [len(seen["json"]["rows"]) for seen in server.seen] == [2, 2, 1]
    assert len(predictions) == 5
    assert predictions[4].flags[0]["row"] == 4


def test_a_row_that_is_wrong_is_named_by_its_number_among_all(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", 2)
    detail = {"row": 1, "field": "age", "code": "CL-E105", "message": "`age` is text in row 1"}
    problem = {"code": "CL-E105", "detail": "`age` is text in row 1", "where": "request body, row 1"}
    server = serve(answer_to(2), (422, {}, problem | {"errors": [detail]}))
    with cloche.Client(server.url) as client, pytest.raises(cloche.InputError, match="in row 3") as caught:
        client.predict("fraud", [{"age": n} for n in range(4)])
    assert (caught.value.where, caught.value.details[0]["row"]) == ("request body, row 3", 3)
    assert caught.value.details[0]["message"] == "`age` is text in row 3"


def test_a_chunk_has_a_bounded_number_of_bytes(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "CHUNK_BYTES", 50)
    server = serve(answer_to(1))
    with cloche.Client(server.url) as client:
        client.predict("fraud", [{"text": "a" * 30}, {"text": "b" * 30}])
    assert len(server.seen) == 2


def test_an_array_goes_as_binary_tensors_of_the_models_types(serve: Serve) -> None:
    inputs = [{"name": "a", "datatype": "FP32", "shape": [-1]}, {"name": "n", "datatype": "INT64", "shape": [-1]}]
    head = {"outputs": [{"name": "label", "datatype": "BYTES", "shape": [2],
                         "parameters": {"binary_data_size": 13}}]}  # fmt: skip
    header = json.dumps(head).encode()
    body = header + b"\x03\x00\x00\x00yes" + b"\x02\x00\x00\x00no"
    server = serve(
        (200, {}, {"inputs": inputs, "outputs": []}),
        (200, {"Inference-Header-Content-Length": str(len(header))}, body),
    )
    with cloche.Client(server.url) as client:
        labels = client.predict("fraud", np.array([[1.5, 2.0], [2.5, 3.0]]), version=4)
    assert labels.tolist() == ["yes", "no"]
    assert [seen["path"] for seen in server.seen] == [
        "/v2/models/fraud/versions/4",
        "/v2/models/fraud/versions/4/infer",
    ]
    sent, length = server.seen[1], int(server.seen[1]["headers"]["Inference-Header-Content-Length"])
    assert [(one["name"], one["datatype"]) for one in json.loads(sent["body"][:length])["inputs"]] == [
        ("a", "FP32"),
        ("n", "INT64"),
    ]
    assert sent["body"][length:] == np.float32([1.5, 2.5]).tobytes() + np.int64([2, 3]).tobytes()


def test_an_array_of_another_width_is_refused_before_it_is_sent(serve: Serve) -> None:
    inputs = [{"name": "a", "datatype": "FP32", "shape": [-1]}, {"name": "n", "datatype": "INT64", "shape": [-1]}]
    server = serve((200, {}, {"inputs": inputs, "outputs": []}))
    with cloche.Client(server.url) as client, pytest.raises(cloche.ConfigError, match=r"\[2, 3\] does not fit"):
        client.predict("fraud", np.zeros((2, 3)))
    assert len(server.seen) == 1


def test_a_column_of_times_is_refused_with_its_name(serve: Serve) -> None:
    server = serve(answer_to(1))
    frame = pd.DataFrame({"since": pd.date_range("2026-01-01", periods=300)})
    with cloche.Client(server.url) as client, pytest.raises(cloche.ConfigError, match="`since` holds"):
        client.predict("fraud", frame)
    assert server.seen == []
