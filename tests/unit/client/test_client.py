"""cloche.Client against a real server on a real socket that answers what the test says."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.unit.client.conftest import Serve

import cloche

ONE = {
    "model": "fraud:4",
    "prediction_id": "a" * 24,
    "prediction": {"label": "yes", "probabilities": {"yes": 0.9}},
}
MANY = {
    "model": "fraud:4",
    "prediction_id": "b" * 24,
    "predictions": [{"value": 1.5}, {"value": 2.5}],
    "flags": [{"row": 1, "field": "age", "code": "CL-E109"}],
}


def test_one_row_gives_one_prediction_with_its_id_and_model(serve: Serve) -> None:
    server = serve((200, {}, ONE))
    with cloche.Client(server.url) as client:
        prediction = client.predict("fraud", {"age": 41, "plan": "pro"})
    assert prediction == {"label": "yes", "probabilities": {"yes": 0.9}}
    assert (prediction.id, prediction.model, prediction.flags) == ("a" * 24, "fraud:4", ())
    assert server.seen[0]["path"] == "/predict/fraud"
    assert server.seen[0]["json"] == {"age": 41, "plan": "pro"}


def test_many_rows_give_as_many_predictions_each_with_its_own_id_and_flags(serve: Serve) -> None:
    server = serve((200, {}, MANY))
    with cloche.Client(server.url) as client:
        first, second = client.predict("fraud", [{"age": 1}, {"age": 999}])
    assert (first, second) == ({"value": 1.5}, {"value": 2.5})
    assert (first.id, second.id) == ("b" * 24 + ".0", "b" * 24 + ".1")
    assert (len(first.flags), second.flags[0]["field"]) == (0, "age")


def test_a_data_frame_goes_as_its_rows_with_missing_values_as_null(serve: Serve) -> None:
    server = serve((200, {}, MANY))
    frame = pd.DataFrame({"age": [41.0, np.nan], "plan": ["pro", None], "n": np.array([1, 2], dtype="int64")})
    with cloche.Client(server.url) as client:
        client.predict("fraud", frame)
    assert server.seen[0]["json"] == {
        "rows": [{"age": 41.0, "plan": "pro", "n": 1}, {"age": None, "plan": None, "n": 2}]
    }


def test_numpy_numbers_in_a_row_go_as_numbers(serve: Serve) -> None:
    server = serve((200, {}, ONE))
    with cloche.Client(server.url) as client:
        client.predict("fraud", {"age": np.int64(41), "x": np.float32(0.5), "v": np.arange(3)})
    assert server.seen[0]["json"] == {"age": 41, "x": 0.5, "v": [0, 1, 2]}


def test_what_is_no_rows_is_refused_before_it_is_sent(serve: Serve) -> None:
    server = serve((200, {}, ONE))
    with cloche.Client(server.url) as client, pytest.raises(cloche.ConfigError, match="from a str"):
        client.predict("fraud", "age=41")
    assert server.seen == []


def test_key_version_and_deadline_travel_along(serve: Serve) -> None:
    server = serve((200, {}, ONE))
    with cloche.Client(server.url, key="clk_live_x") as client:
        client.predict("fraud", {}, version=3, deadline="80ms")
        client.predict("fraud", {})
    first, second = server.seen
    assert first["path"] == "/predict/fraud?version=3"
    assert first["headers"]["Authorization"] == "Bearer clk_live_x"
    assert first["headers"]["Cloche-Deadline"] == "80ms"
    assert second["headers"]["Cloche-Deadline"] == "10000ms"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (422, "CL-E104", cloche.InputError),
        (401, "CL-E401", cloche.RefusedError),
        (404, "CL-E305", cloche.NotFoundError),
        (503, "CL-E601", cloche.BusyError),
        (500, "CL-E900", cloche.ModelError),
    ],
)
def test_a_problem_is_raised_as_the_class_of_its_code(
    serve: Serve, status: int, code: str, kind: type[cloche.ClocheError]
) -> None:
    body = {
        "code": code,
        "title": "of its kind",
        "detail": "what happened",
        "hint": "what to do",
        "errors": [{"row": 3, "field": "age"}],
    }
    server = serve((status, {"Retry-After": "7"}, body))
    with cloche.Client(server.url, timeout="5s") as client, pytest.raises(kind, match="what happened") as caught:
        client.predict("fraud", {})
    assert (caught.value.code, caught.value.hint) == (code, "what to do")
    assert caught.value.details[0]["field"] == "age"
    if isinstance(caught.value, cloche.BusyError):
        assert caught.value.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("status", "kind"), [(502, cloche.BusyError), (403, cloche.RefusedError), (418, cloche.ClocheError)]
)
def test_an_answer_that_is_not_ours_is_raised_by_its_status(
    serve: Serve, status: int, kind: type[cloche.ClocheError]
) -> None:
    server = serve((status, {}, "<html>a proxy</html>"))
    with cloche.Client(server.url) as client, pytest.raises(kind, match=str(status)):
        client.predict("fraud", {})


def test_a_code_that_this_client_does_not_know_yet_is_raised_all_the_same(serve: Serve) -> None:
    server = serve((422, {}, {"code": "CL-E198", "title": "new"}))
    with cloche.Client(server.url) as client, pytest.raises(cloche.InputError, match="new"):
        client.predict("fraud", {})


def test_a_connection_that_breaks_before_the_answer_is_tried_once_more(serve: Serve) -> None:
    server = serve(None, (200, {}, ONE))
    with cloche.Client(server.url) as client:
        assert client.predict("fraud", {"age": 1})["label"] == "yes"
    assert [seen["json"] for seen in server.seen] == [{"age": 1}, {"age": 1}]


def test_a_connection_that_breaks_twice_is_an_error(serve: Serve) -> None:
    server = serve(None)
    with cloche.Client(server.url) as client, pytest.raises(cloche.BusyError) as caught:
        client.predict("fraud", {})
    assert caught.value.code == "CL-E605"
    assert len(server.seen) == 2


def test_nobody_there_is_said_in_words(free_port: int) -> None:
    with cloche.Client(f"http://127.0.0.1:{free_port}") as client:
        assert client.ready() is False
        with pytest.raises(cloche.BusyError, match="nothing answers") as caught:
            client.predict("fraud", {})
    assert caught.value.code == "CL-E605"


def test_an_answer_that_does_not_come_in_time_is_an_error_and_not_asked_for_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with cloche.Client(url, timeout="50ms") as client, pytest.raises(cloche.BusyError) as caught:
            client.predict("fraud", {})
    assert caught.value.code == "CL-E602"


def test_the_missing_value_of_pandas_goes_as_null(serve: Serve) -> None:
    server = serve((200, {}, MANY))
    frame = pd.DataFrame({"n": pd.array([1, None], dtype="Int64"), "s": pd.array(["a", None], dtype="string")})
    with cloche.Client(server.url) as client:
        client.predict("fraud", frame)
    assert server.seen[0]["json"] == {"rows": [{"n": 1, "s": "a"}, {"n": None, "s": None}]}


def test_a_value_that_json_has_no_word_for_is_refused(serve: Serve) -> None:
    with cloche.Client(serve((200, {}, ONE)).url) as client, pytest.raises(cloche.ConfigError, match="object"):
        client.predict("fraud", {"age": object()})


@pytest.mark.parametrize(("status", "ready"), [(200, True), (503, False)])
def test_ready_says_what_the_server_says(serve: Serve, status: int, ready: bool) -> None:
    with cloche.Client(serve((status, {}, {})).url) as client:
        assert client.ready() is ready


def test_the_key_does_not_show(serve: Serve) -> None:
    with cloche.Client("http://127.0.0.1:1", key="clk_live_secret") as client:
        assert "secret" not in repr(client)


def test_several_problems_are_listed_three_of_them_in_full(serve: Serve) -> None:
    errors = [{"row": n, "field": "age", "message": f"`age` is bad in row {n}"} for n in range(5)]
    body = {"code": "CL-E105", "detail": "`age` is bad in row 0 (and 4 more)", "errors": errors}
    with cloche.Client(serve((422, {}, body)).url) as client, pytest.raises(cloche.InputError) as caught:
        client.predict("fraud", {})
    assert "age: `age` is bad in row 2" in str(caught.value)
    assert "row 3" not in str(caught.value)
    assert "and 2 more" in str(caught.value)


def test_when_to_come_back_stands_in_the_text(serve: Serve) -> None:
    server = serve((503, {"Retry-After": "7"}, "a proxy"))
    with (
        cloche.Client(server.url, timeout="5s") as client,
        pytest.raises(cloche.BusyError, match="try again in 7 s"),
    ):
        client.predict("fraud", {})


def test_nobody_there_is_said_with_the_address(free_port: int) -> None:
    with (
        cloche.Client(f"http://127.0.0.1:{free_port}") as client,
        pytest.raises(cloche.BusyError, match=f"http://127.0.0.1:{free_port}"),
    ):
        client.predict("fraud", {})


def test_a_url_without_a_scheme_is_refused() -> None:
    with pytest.raises(cloche.ConfigError, match="http://"):
        cloche.Client("localhost:8080")


def test_a_list_of_numbers_is_told_that_its_rows_are_no_mappings(serve: Serve) -> None:
    with (
        cloche.Client(serve((200, {}, ONE)).url) as client,
        pytest.raises(cloche.ConfigError, match="a row is a int, not a mapping"),
    ):
        client.predict("fraud", [1, 2])


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("value", [pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-01").to_pydatetime()])
def test_a_time_is_refused_with_its_column(serve: Serve, value: Any, many: bool) -> None:
    rows: Any = pd.DataFrame({"since": [value]}) if many else {"since": value}
    with (
        cloche.Client(serve((200, {}, MANY)).url) as client,
        pytest.raises(cloche.ConfigError, match=r"`since` holds a .*, which can't be sent"),
    ):
        client.predict("fraud", rows)


def test_a_busy_server_that_says_when_to_come_back_is_asked_once_more(serve: Serve) -> None:
    server = serve((503, {"Retry-After": "0"}, {"code": "CL-E601"}), (200, {}, ONE))
    with cloche.Client(server.url) as client:
        assert client.predict("fraud", {"age": 1})["label"] == "yes"
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    "answer",
    [
        (503, {"Retry-After": "60"}, {"code": "CL-E601"}),  # later than the timeout
        (503, {}, {"code": "CL-E603"}),  # it does not say
        (429, {"Retry-After": "0"}, {"code": "CL-E604"}),  # the caller's own limit
        (500, {}, {"code": "CL-E900"}),
    ],
)
def test_no_other_answer_is_asked_for_again(serve: Serve, answer: Any) -> None:
    server = serve(answer)
    with cloche.Client(server.url) as client, pytest.raises(cloche.ClocheError):
        client.predict("fraud", {})
    assert len(server.seen) == 1


def test_an_answer_that_breaks_off_is_not_asked_for_again(serve: Serve) -> None:
    server = serve((200, {"Content-Length": "1000"}, "{"))
    with cloche.Client(server.url) as client, pytest.raises(cloche.BusyError, match="broke off") as caught:
        client.predict("fraud", {})
    assert (caught.value.code, len(server.seen)) == ("CL-E605", 1)


def test_an_error_of_the_open_inference_protocol_is_raised_by_its_header(serve: Serve) -> None:
    metadata = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], "outputs": []}
    problem = (422, {"Cloche-Error": "CL-E107"}, {"error": "`x` is infinite in row 0"})
    server = serve((200, {}, metadata), problem)
    with (
        cloche.Client(server.url) as client,
        pytest.raises(cloche.InputError, match="infinite in row 0") as caught,
    ):
        client.predict("fraud", np.zeros((1, 2)))
    assert caught.value.code == "CL-E107"
