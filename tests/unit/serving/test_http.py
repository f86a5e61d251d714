"""The whole door over a socket: answers of both dialects, every kind of bad request, and nothing breaks it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import random
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloche.core.board import Board
from cloche.core.errors import ModelError
from cloche.core.signature import NUMPY_TYPES, Columns, Field, Signature
from cloche.engine.cache import Cache
from cloche.serving.protocols.tensors import to_binary

Run = Callable[[Any], None]
MakeDoor = Callable[..., Any]
INFER = "/v2/models/fraud/infer"


def tensors(rows: list[dict[str, Any]], **changed: Any) -> dict[str, Any]:
    """The request of these rows in the Open Inference Protocol."""
    types = {"age": "INT64", "pay": "FP64", "job": "BYTES", "point": "FP32"}
    inputs = []
    for name, datatype in types.items():
        data = [row[name] for row in rows]
        shape = [len(rows), 2] if name == "point" else [len(rows)]
        inputs.append({"name": name, "datatype": datatype, "shape": shape, "data": data})
    return {"inputs": inputs, **changed}


def test_one_row_gets_one_prediction(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            answer = await door.ask("/predict/fraud", row, headers={"x-request-id": "mine-1"})
            assert answer.status == 200
            body = answer.json()
            assert body["model"] == answer.headers["cloche-model"] == "fraud-model:3"
            assert re.fullmatch(r"[0-9a-f]{24}", body["prediction_id"])
            assert body["prediction_id"] == answer.headers["cloche-prediction-id"]
            assert answer.headers["x-request-id"] == "mine-1"
            assert re.fullmatch(r"queue;dur=\d+\.\d+, model;dur=\d+\.\d+", answer.headers["server-timing"])
            assert body["prediction"]["label"] == "no"
            assert body["prediction"]["probabilities"] == pytest.approx({"no": 0.795, "yes": 0.205})
            assert "flags" not in body

    run(scenario())


def test_many_rows_get_as_many_predictions_in_order(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            rows = [{**row, "age": age} for age in (10, 110, 30)]
            for body in ({"rows": rows}, rows):
                answer = (await door.ask("/predict/fraud", body)).json()
                assert [one["label"] for one in answer["predictions"]] == ["no", "yes", "no"]
                assert "prediction" not in answer

    run(scenario())


def test_odd_values_are_flagged(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            odd = [row, {**row, "age": 150, "job": "pilot"}]
            flags = [{"row": 1, "field": "age", "code": "CL-E109"}, {"row": 1, "field": "job", "code": "CL-E108"}]
            assert (await door.ask("/predict/fraud", odd)).json()["flags"] == flags
            answer = (await door.ask(INFER, tensors(odd))).json()
            assert json.loads(answer["parameters"]["flags"]) == flags
        async with make_door(on_invalid="reject").open() as door:
            refused = await door.ask("/predict/fraud", odd)
            assert refused.status == 422
            assert [(one["row"], one["field"]) for one in refused.json()["errors"]] == [(1, "age"), (1, "job")]

    run(scenario())


def test_both_dialects_give_the_same_numbers(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            rows = [{**row, "age": age, "pay": None} for age in (1, 99, 120)]
            ours = (await door.ask("/predict/fraud", rows)).json()["predictions"]
            for path in (INFER, "/v2/models/fraud/versions/3/infer"):
                theirs = (await door.ask(path, tensors(rows, id="a"))).json()
                assert (theirs["id"], theirs["model_name"], theirs["model_version"]) == ("a", "fraud", "3")
                by_name = {output["name"]: output for output in theirs["outputs"]}
                assert by_name["label"]["data"] == [one["label"] for one in ours]
                assert by_name["probabilities"]["data"] == [
                    one["probabilities"][name] for one in ours for name in ("no", "yes")
                ]

    run(scenario())


def test_binary_goes_in_and_out_over_the_wire(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            request = tensors([row], parameters={"binary_data_output": True})
            parts = []
            for one in request["inputs"]:
                column = np.array(one.pop("data"), NUMPY_TYPES[one["datatype"]]).reshape(one["shape"])
                parts.append(to_binary(column, one["datatype"]))
                one["parameters"] = {"binary_data_size": len(parts[-1])}
            header = json.dumps(request).encode()
            headers = {
                "content-type": "application/octet-stream",
                "inference-header-content-length": str(len(header)),
            }
            answer = await door.ask(INFER, header + b"".join(parts), headers=headers)
            assert answer.status == 200
            length = int(answer.headers["inference-header-content-length"])
            described = json.loads(answer.body[:length])["outputs"]
            assert (
                answer.body[length + described[0]["parameters"]["binary_data_size"] :]
                == np.array([0.795, 0.205], "<f4").tobytes()
            )

    run(scenario())


@pytest.mark.parametrize("datatype", list(NUMPY_TYPES))
@pytest.mark.parametrize("tail", [(), (2,)])
def test_outputs_of_every_type_are_written(
    run: Run, make_door: MakeDoor, datatype: str, tail: tuple[int, ...]
) -> None:
    value: Any = "größe" if datatype == "BYTES" else NUMPY_TYPES[datatype].type(1)

    class Constant:
        in_process = True

        def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
            return {"y": np.full((len(columns["x"]), *tail), value, NUMPY_TYPES[datatype])}

        def close(self) -> None: ...

    signature = Signature(
        inputs=(Field(name="x", datatype="FP32", shape=(-1,)),),
        outputs=(Field(name="y", datatype=datatype, shape=(-1, *tail)),),
    )

    async def scenario() -> None:
        door = make_door(signature=signature, examples={"x": np.zeros(2, np.float32)}, runtime=Constant())
        async with door.open():
            plain = value if datatype == "BYTES" else 1
            one = (await door.ask("/predict/fraud", {"x": 1})).json()["prediction"]["y"]
            assert one == (plain if not tail else [plain] * 2)
            request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}
            (output,) = (await door.ask(INFER, request)).json()["outputs"]
            assert output["data"] == ([plain] if not tail else [plain] * 2)

    run(scenario())


def test_the_version_may_be_named_and_must_be_the_one(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            assert (await door.ask("/predict/fraud?version=3", row)).status == 200
            for query, status, code in (
                ("version=4", 404, "CL-E305"), ("version=", 404, "CL-E305"), ("version=3&x=1", 400, "CL-E117"),
                ("v", 400, "CL-E117"), ("version=%33", 404, "CL-E305"), ("&", 400, "CL-E117"),
            ):  # fmt: skip
                answer = await door.ask(f"/predict/fraud?{query}", row)
                assert (answer.status, answer.json()["code"]) == (status, code), query
            assert (await door.ask("/v2/models/fraud/versions/4/infer", tensors([row]))).status == 404

    run(scenario())


@pytest.mark.parametrize("deadline", ["5s", "80ms", "1m"])
def test_a_deadline_may_be_sent(run: Run, make_door: MakeDoor, row: Any, deadline: str) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            answer = await door.ask("/predict/fraud", row, headers={"cloche-deadline": deadline})
            assert answer.status == 200

    run(scenario())


@pytest.mark.parametrize("deadline", ["", "5", "-1s", "0s", "soon", "2h", "1e3s", "\xff", "9" * 400 + "s"])
def test_a_deadline_that_is_none_is_refused(run: Run, make_door: MakeDoor, row: Any, deadline: str) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            answer = await door.ask("/predict/fraud", row, headers={"cloche-deadline": deadline})
            assert (answer.status, answer.json()["code"]) == (400, "CL-E117")

    run(scenario())


@pytest.mark.parametrize("request_id", ["a b", "x" * 129, "\xff", ""])
def test_a_request_id_that_can_not_be_echoed_is_not(
    run: Run, make_door: MakeDoor, row: Any, request_id: str
) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            for path in ("/predict/fraud", "/nope"):
                answer = await door.ask(path, row, headers={"x-request-id": request_id})
                assert "x-request-id" not in answer.headers

    run(scenario())


def test_what_the_model_raises_stays_in_the_log_under_the_request_id(
    run: Run, make_door: MakeDoor, row: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:

            def fails(columns: Columns) -> None:
                raise KeyError("secret")

            door.runtime.acts = fails
            for path, body in (("/predict/fraud", row), (INFER, tensors([row]))):
                answer = await door.ask(path, body, headers={"x-request-id": "mine-7"})
                assert answer.status == 500
                assert answer.headers["content-type"].endswith("json")
            assert {vars(record)["request_id"] for record in caplog.records} == {"mine-7"}
            assert "secret" in caplog.records[0].getMessage()

            def dies(columns: Columns) -> None:
                raise ModelError("died", code="CL-E902")

            door.runtime.acts = dies
            answer = await door.ask("/predict/fraud", row)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            door.runtime.acts = lambda columns: None
            assert (await door.ask("/predict/fraud", row)).status == 200

    run(scenario())


def test_an_answer_from_the_cache_says_so(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door(cache=Cache(size=100_000)).open() as door:
            first, second = [await door.ask("/predict/fraud", row) for _ in range(2)]
            assert second.headers["server-timing"] == "cache;desc=hit"
            assert first.json()["prediction"] == second.json()["prediction"]
            assert first.json()["prediction_id"] != second.json()["prediction_id"]
            assert door.runtime.rows == 1

    run(scenario())


def test_a_method_that_is_not_allowed_is_told_which_are(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
                answer = await door.ask("/predict/fraud", method=method)
                assert (answer.status, answer.headers["allow"], answer.json()["code"]) == (405, "POST", "CL-E306")
                answer = await door.ask(INFER, method=method)
                assert (answer.status, answer.headers["allow"]) == (405, "POST")
                assert "error" in answer.json()
            for path in ("/livez", "/metrics", "/openapi.json", "/v2", "/v2/models/fraud", "/docs"):
                answer = await door.ask(path, row)
                assert answer.status == 405
                assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}

    run(scenario())


def test_what_is_not_there_is_told_in_the_dialect_that_speaks_there(
    run: Run, make_door: MakeDoor, row: Any
) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            for path, code in (("/nope", "CL-E304"), ("/", "CL-E304"), ("/livez/", "CL-E304"),
                               ("/predict/other", "CL-E305"), ("/predict/", "CL-E305")):  # fmt: skip
                for body in (None, row):
                    answer = await door.ask(path, body)
                    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
                    assert answer.json()["code"] == code
            for path in ("/v2/nope", "/v2/models/other", "/v2/models/other/infer", "/v2/models/fraud/nope"):
                answer = await door.ask(path)
                assert (answer.status, list(answer.json())) == (404, ["error"])
                assert answer.headers["cloche-error"] in ("CL-E304", "CL-E305")

    run(scenario())


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""]
)
def test_another_media_type_is_refused(run: Run, make_door: MakeDoor, row: Any, media_type: str) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            answer = await door.ask("/predict/fraud", row, headers={"content-type": media_type})
            assert (answer.status, answer.json()["code"]) == (415, "CL-E115")

    run(scenario())


def test_a_compressed_body_is_read_and_an_unknown_coding_refused(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            for path, body in (("/predict/fraud", row), ("/invocations", {"instances": [row]})):
                squeezed = gzip.compress(json.dumps(body).encode())
                plain = await door.ask(path, body)
                answer = await door.ask(path, squeezed, headers={"content-encoding": "gzip"})
                assert answer.status == plain.status == 200
            answer = await door.ask("/predict/fraud", squeezed, headers={"content-encoding": "br"})
            assert (answer.status, answer.json()["code"]) == (415, "CL-E115")
            assert "'br'" in answer.json()["detail"]
            assert (await door.ask("/predict/fraud", row, headers={"content-encoding": "identity"})).status == 200

    run(scenario())


@pytest.mark.parametrize("media_type", ["application/json", "Application/JSON", "application/json;charset=utf-8"])
def test_json_by_any_spelling_is_taken(run: Run, make_door: MakeDoor, row: Any, media_type: str) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            assert (await door.ask("/predict/fraud", row, headers={"content-type": media_type})).status == 200

    run(scenario())


def test_an_empty_body_is_refused(run: Run, make_door: MakeDoor) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            for path in ("/predict/fraud", INFER):
                assert (await door.ask(path, b"")).status == 400
                assert (await door.ask(path, method="POST")).status == 400

    run(scenario())


def test_health_and_metadata(run: Run, make_door: MakeDoor) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            for path in ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/v2/models/fraud/ready",
                         "/v2/models/fraud/versions/3/ready"):  # fmt: skip
                assert (await door.ask(path)).status == 200
            server = (await door.ask("/v2")).json()
            assert (server["name"], "binary_tensor_data" in server["extensions"]) == ("cloche", True)
            for path in ("/v2/models/fraud", "/v2/models/fraud/versions/3"):
                model = (await door.ask(path)).json()
                assert (model["name"], model["versions"], model["platform"]) == ("fraud", ["3"], "onnx")
                assert model["inputs"][3] == {"name": "point", "datatype": "FP32", "shape": [-1, 2]}
            door.state.is_ready = False
            for path in ("/readyz", "/v2/health/ready", "/v2/models/fraud/ready"):
                assert (await door.ask(path)).status == 503
            assert (await door.ask("/livez")).status == 200

    run(scenario())


def test_what_was_asked_is_counted(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            refused: list[str] = []
            door.state.refused = refused.append
            for body in (row, row, b"{"):
                await door.ask("/predict/fraud", body)
            await door.ask(INFER, tensors([row] * 3))
            await door.ask("/nope")
            text = (await door.ask("/metrics")).body.decode()
            labels = 'deployment="fraud",dialect="{}",version="3"'
            assert f'cloche_requests_total{{code="200",{labels.format("cloche")}}} 2.0' in text
            assert f'cloche_requests_total{{code="400",{labels.format("cloche")}}} 1.0' in text
            assert f'cloche_requests_total{{code="200",{labels.format("oip")}}} 1.0' in text
            assert 'cloche_errors_total{deployment="fraud",reason="CL-E101",version="3"} 1.0' in text
            assert 'cloche_batch_size_sum{deployment="fraud",version="3"} 5.0' in text
            assert "cloche_inflight 0.0" in text
            assert refused == ["CL-E304"]

    run(scenario())


def test_who_does_not_read_answers_is_not_written_to_without_end(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            body = json.dumps([row] * 400).encode()
            head = b"POST /predict/fraud HTTP/1.1\r\nhost: t\r\ncontent-length: %d\r\n\r\n" % len(body)
            (connection,) = [c async for c in _connections(door)]
            most = 0
            for number in range(300):
                await client.say(head + body)
                for _ in range(1000):
                    if door.runtime.rows == 400 * (number + 1):
                        break
                    await asyncio.sleep(0)
                most = max(most, connection.transport.get_write_buffer_size())
                if door.runtime.rows < 400 * (number + 1):
                    break  # it waits for its answers to be read
            assert number < 299
            assert most < 1_000_000
            client.writer.transport.abort()

    run(scenario())


def test_bodies_that_are_being_read_have_a_sum(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door(max_body=200_000).open() as door, contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(door.connect()) for _ in range(5)]
            head = b"POST /predict/fraud HTTP/1.1\r\nhost: t\r\ncontent-length: 200000\r\n\r\n"
            for client in clients:
                await client.say(head + b" " * 190_000)
            heard = [asyncio.ensure_future(client.hear()) for client in clients]
            done, waiting = await asyncio.wait(heard, return_when=asyncio.FIRST_COMPLETED)
            answer = done.pop().result()
            assert (answer.status, answer.json()["code"]) == (503, "CL-E601")
            assert int(answer.headers["retry-after"]) >= 1
            for one in waiting:
                one.cancel()
            assert (await door.ask("/predict/fraud", row)).status == 200

    run(scenario())


async def _connections(door: Any) -> Any:
    while not door.server.connections:
        await asyncio.sleep(0.001)
    for connection in door.server._state.connections:
        yield connection


# -- anything at all -----------------------------------------------------------------------------------------

_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-300, 300), st.integers(), st.floats(), st.text(max_size=4),
    st.sampled_from(["cook", "age", 2**63, 2**64, -1, 1e300, 10**400, "FP32", "BYTES", "INT64", "BOOL"]),
)  # fmt: skip
_names = st.sampled_from(
    ["age", "pay", "job", "point", "rows", "inputs", "name", "shape", "datatype", "data", "parameters", "outputs",
     "id", "binary_data_size", "binary_data_output", "x"]
)  # fmt: skip
_anything = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=6),
    max_leaves=20,
)
_row = st.fixed_dictionaries(
    {
        "age": st.integers(0, 200) | _scalars,
        "pay": st.none() | st.floats(allow_nan=False) | _scalars,
        "job": st.sampled_from(["cook", "nurse", "pilot"]) | _scalars,
        "point": st.lists(st.floats(-9, 9), min_size=2, max_size=2) | _anything,
    }
)
_tensor = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["age", "pay", "job", "point", "other"]) | _scalars,
        "shape": st.lists(st.integers(-2, 4) | st.integers(), max_size=4) | _anything,
        "datatype": st.sampled_from([*NUMPY_TYPES, "FP8"]) | _scalars,
    },
    optional={"data": _anything, "parameters": _anything},
)
_bodies = st.one_of(
    st.binary(max_size=200),
    *(
        made.map(lambda value: json.dumps(value).encode())
        for made in (
            _anything, _row, st.lists(_row, max_size=3),
            st.fixed_dictionaries({"rows": st.lists(_row, max_size=3)}),
            st.fixed_dictionaries({"inputs": st.lists(_tensor, max_size=5)}, optional={"outputs": _anything,
                                  "id": _scalars, "parameters": _anything}),
        )
    ),
)  # fmt: skip
_headers = st.dictionaries(
    st.sampled_from(["content-type", "inference-header-content-length", "cloche-deadline", "x-request-id"]),
    st.sampled_from(["application/json", "application/octet-stream", "0", "1", "50", "-1", "x", "1s", ""]),
    max_size=2,
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["/predict/fraud", INFER]), _bodies, _headers), min_size=1, max_size=8))
def test_no_body_and_no_header_breaks_it(make_door: MakeDoor, asked: list[Any]) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            for path, body, headers in asked:
                answer = await door.ask(path, body, headers=headers)
                assert answer.status in (200, 400, 413, 415, 422), (path, body, answer)
                if answer.status != 200:
                    content = answer.json()
                    code = answer.headers.get("cloche-error") or content["code"]
                    assert re.fullmatch(r"CL-E1\d\d", code)
                    assert content["detail" if path != INFER else "error"]

    uvloop.run(scenario())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_no_bytes_at_all_break_it(make_door: MakeDoor, sent: list[bytes]) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            for data in sent:
                async with door.connect() as client:
                    await client.say(data)
                    client.writer.write_eof()
            assert (await door.ask("/livez")).status == 200

    uvloop.run(scenario())


def test_memory_stays_flat_under_bad_requests(board: Board, make_door: MakeDoor, row: Any) -> None:
    chance = random.Random(3)
    bad: list[tuple[str, bytes]] = [
        ("/predict/fraud", b"{"),
        ("/predict/fraud", b"[" * 50_000),
        ("/predict/fraud", json.dumps({**row, "age": "x"}).encode()),
        ("/predict/fraud", json.dumps([{**row, "job": 3}] * 50).encode()),
        ("/predict/fraud", json.dumps({"x" * 1000: 1}).encode()),
        (INFER, json.dumps(tensors([row]) | {"id": 3}).encode()),
        (
            INFER,
            json.dumps({"inputs": [{"name": "age", "shape": [2**40], "datatype": "INT64", "data": []}]}).encode(),
        ),
        ("/nope", b"{}"),
    ]

    async def scenario() -> None:
        async with make_door(max_body=200_000).open() as door:
            async with door.connect() as client:
                for number in range(2_200):
                    path, body = chance.choice(bad)
                    assert (await client.ask(path, body, headers={"x-request-id": f"r{number}"})).status >= 400
                    if number == 199:
                        gc.collect()
                        tracemalloc.start()
                        before = tracemalloc.get_traced_memory()[0]
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            assert grown < 500_000

    uvloop.run(scenario())
