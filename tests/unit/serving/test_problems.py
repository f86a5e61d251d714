"""Every code has a status, and every problem says what to do."""

from __future__ import annotations

import json

import pytest

from cloche.core.codes import CODES
from cloche.core.errors import BusyError, ClocheError, InputError, ModelError, RefusedError
from cloche.serving.problems import NotAllowedError, headers_of, message_of, problem_body, refusal_body, status_of

FAMILIES = {error.default_code[:5]: error for error in ClocheError.__subclasses__()}


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_status(code: str) -> None:
    error = FAMILIES[code[:5]]("what happened", code=code)
    status = status_of(error)
    expected = {"1": 4, "3": 4, "4": 4, "6": 5, "9": 5}.get(code[4])
    if code == "CL-E604":
        expected = 4
    if expected is not None:
        assert status // 100 == expected
    body = json.loads(problem_body(error, "id"))
    assert (body["status"], body["code"], body["detail"]) == (status, code, message_of(error))
    assert body["detail"].startswith("what happened")
    assert ("try again in 1.0 s" in body["detail"]) == (status in (429, 503) and isinstance(error, BusyError))
    assert body["title"] == CODES[code][0]
    if status in (429, 503):
        assert int(dict(headers_of(error))[b"retry-after"]) >= 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("x", code="CL-E101"), 400),
        (InputError("x", code="CL-E104"), 422),
        (InputError("x", code="CL-E114"), 413),
        (InputError("x", code="CL-E115"), 415),
        (RefusedError("x", code="CL-E401"), 401),
        (RefusedError("x", code="CL-E403"), 403),
        (NotAllowedError("x", ["POST"]), 405),
        (BusyError("x", code="CL-E601"), 503),
        (BusyError("x", code="CL-E602"), 504),
        (BusyError("x", code="CL-E604"), 429),
        (ModelError("x"), 500),
        (ModelError("x", code="CL-E902"), 503),
        (ClocheError("x", code="CL-E999"), 500),
    ],
)
def test_the_table(error: ClocheError, status: int) -> None:
    assert status_of(error) == status


def test_the_time_to_come_back_is_whole_seconds_from_one() -> None:
    assert headers_of(BusyError("x", retry_after_s=0.1)) == [(b"retry-after", b"1")]
    assert headers_of(BusyError("x", retry_after_s=2.1)) == [(b"retry-after", b"3")]


def test_what_is_not_allowed_names_what_is() -> None:
    assert headers_of(NotAllowedError("x", ["GET", "HEAD"])) == [(b"allow", b"GET, HEAD")]


def test_a_problem_has_where_hint_and_every_bad_row_if_there_are() -> None:
    error = InputError("x", where="request body", hint="do", details=[{"row": 1}])
    body = json.loads(problem_body(error, "id"))
    assert (body["where"], body["hint"], body["errors"], body["request_id"]) == (
        "request body", "do", [{"row": 1}], "id",
    )  # fmt: skip
    assert set(json.loads(problem_body(InputError("x"), "id"))) == {
        "type", "title", "status", "detail", "code", "request_id",
    }  # fmt: skip


def test_a_refusal_before_there_is_a_request_has_the_same_shape() -> None:
    body = json.loads(refusal_body(431, "CL-E117", "too large"))
    assert (body["status"], body["code"], body["detail"]) == (431, "CL-E117", "too large")
