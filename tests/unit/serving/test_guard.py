"""Who may ask what: every route and method of the whole door, with keys and without."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from cloche.core.errors import InputError
from cloche.core.keys import KeyRing, mint_key
from cloche.core.units import Rate
from cloche.serving.guard import PUBLIC, Policy, check_path

Run = Callable[[Any], None]
MakeDoor = Callable[..., Any]

NOW = time.time()
ASKING = mint_key("asking", scopes=["predict"], created=NOW)
WATCHING = mint_key("watching", scopes=["metrics"], created=NOW)
EXPIRED = mint_key("expired", created=NOW - 10, expires=NOW - 5)
RING = KeyRing([ASKING.record, WATCHING.record, EXPIRED.record])
OPEN = Policy(keys_required=True, loopback=False)
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


def bearer(key: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {key if isinstance(key, str) else key.text}"}


def every_path(door: Any) -> list[str]:
    posts = [path for dialect in door.dialects for path in dialect.paths()]
    return [*posts, *(route.path for route in door.pages.routes), "/", "/nope", "/predict/nope", "/v2/models/nope"]


def test_no_route_and_no_method_is_unguarded_when_keys_are_required(run: Run, make_door: MakeDoor) -> None:
    async def scenario() -> None:
        door = make_door(policy=OPEN, keys=RING)
        paths = every_path(door)
        assert {"/metrics", "/docs", "/openapi.json", "/v2", "/predict/fraud"} <= set(paths)
        for path in paths:
            for method in METHODS:
                for headers in ({}, bearer("clk_live_nonsense"), bearer(EXPIRED)):
                    answer = await door.call(method, path, b"{}", headers)
                    if path.encode() in PUBLIC:
                        assert answer.status in (200, 405), (method, path)
                    else:
                        assert answer.status == 401, (method, path)
                        assert answer.headers["www-authenticate"].startswith("Bearer")
                        assert b"CL-E40" in answer.body or "cloche-error" in answer.headers

    run(scenario())


def test_a_key_opens_what_its_scope_says(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door(policy=OPEN, keys=RING).open() as door:
            for path in every_path(door):
                if path.encode() in PUBLIC:
                    continue
                watches = path == "/metrics"
                asks = await door.ask(path, headers=bearer(ASKING))
                looks = await door.ask(path, headers=bearer(WATCHING))
                assert (asks.status == 403) == watches, path
                assert (looks.status == 403) == (not watches), path
            assert (await door.ask("/predict/fraud", row, headers=bearer(ASKING))).status == 200
            assert (await door.ask("/metrics", headers=bearer(WATCHING))).status == 200
            refused = await door.ask("/predict/fraud", row, headers=bearer(WATCHING))
            assert (refused.status, refused.json()["code"]) == (403, "CL-E403")

    run(scenario())


def test_another_spelling_of_a_path_needs_the_same_scope(run: Run, make_door: MakeDoor) -> None:
    async def scenario() -> None:
        async with make_door(policy=OPEN, keys=RING).open() as door:
            for path in ("/%6detrics", "/m%65trics", "/metric%73"):
                assert (await door.ask(path, headers=bearer(ASKING))).status == 403
                assert (await door.ask(path, headers=bearer(WATCHING))).status == 200

    run(scenario())


@pytest.mark.parametrize(
    "header", ["", "Basic YTpi", "Bearer", "bearer ", "Bearer \xff\xfe", "Bearer a b", "x" * 5000]
)
def test_an_authorization_that_is_no_key_is_refused(run: Run, make_door: MakeDoor, row: Any, header: str) -> None:
    async def scenario() -> None:
        async with make_door(policy=OPEN, keys=RING).open() as door:
            answer = await door.ask("/predict/fraud", row, headers={"authorization": header})
            assert answer.status == 401

    run(scenario())


def test_the_scheme_is_read_without_regard_to_case(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door(policy=OPEN, keys=RING).open() as door:
            for scheme in ("bearer", "BEARER"):
                headers = {"authorization": f"{scheme} {ASKING.text}"}
                assert (await door.ask("/predict/fraud", row, headers=headers)).status == 200

    run(scenario())


def test_on_loopback_nothing_needs_a_key_unless_it_is_wanted(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            assert (await door.ask("/predict/fraud", row)).status == 200
            for path in ("/metrics", "/docs", "/openapi.json", "/v2"):
                assert (await door.ask(path)).status == 200
        async with make_door(policy=Policy(keys_required=True, loopback=True), keys=RING).open() as door:
            assert (await door.ask("/predict/fraud", row)).status == 401
            assert (await door.ask("/v2/models/fraud")).status == 401
            assert (await door.ask("/metrics")).status == 200

    run(scenario())


def test_a_revoked_key_is_refused_with_the_next_request(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        async with make_door(policy=OPEN, keys=RING).open() as door, door.connect() as client:
            assert (await client.ask("/predict/fraud", row, headers=bearer(ASKING))).status == 200
            door.keys = KeyRing()
            assert (await client.ask("/predict/fraud", row, headers=bearer(ASKING))).status == 401

    run(scenario())


def test_limits_are_by_key_and_say_when_to_come_back(run: Run, make_door: MakeDoor, row: Any) -> None:
    async def scenario() -> None:
        policy = Policy(
            keys_required=False, loopback=True, limits={"asking": Rate(2, 3600), "default": Rate(1, 3600)}
        )
        async with make_door(policy=policy, keys=RING).open() as door:
            statuses = [(await door.ask("/predict/fraud", row, headers=bearer(ASKING))).status for _ in range(3)]
            assert statuses == [200, 200, 429]
            statuses = [(await door.ask("/predict/fraud", row)).status for _ in range(2)]
            assert statuses == [200, 429]
            refused = await door.ask("/v2/models/fraud/infer", {})
            assert refused.status == 429
            assert 1 <= int(refused.headers["retry-after"]) <= 7200
            assert (await door.ask("/livez")).status == 200

    run(scenario())


@pytest.mark.parametrize(
    "path",
    [b"//livez", b"/a/../livez", b"/a/./b", b"/..", b"/.", b"/livez%2f", b"/%2e%2e/x", b"/a%5cb", b"/a\\b",
     b"/a;b", b"/%00", b"/%ff", b"/%", b"/%2", b"/%zz", b"/%+1", b"*", b"livez", b""],
)  # fmt: skip
def test_a_path_that_could_be_read_in_two_ways_is_refused(path: bytes) -> None:
    with pytest.raises(InputError) as raised:
        check_path(path)
    assert raised.value.code == "CL-E116"


@pytest.mark.parametrize(
    ("path", "read"), [(b"/livez", b"/livez"), (b"/%6dodel", b"/model"), (b"/%C3%A9", b"/\xc3\xa9")]
)
def test_a_plain_path_is_given_as_the_routes_read_it(path: bytes, read: bytes) -> None:
    assert check_path(path) == read


def test_who_has_no_good_key_is_told_whom_to_ask_and_when_to_come_back(run: Run, make_door: MakeDoor) -> None:
    async def scenario() -> None:
        door = make_door(policy=OPEN, keys=RING)
        for headers in ({}, bearer(EXPIRED), bearer("clk_live_nonsense"), bearer(WATCHING)):
            answer = await door.call("POST", "/predict/fraud", b"{}", headers)
            assert "ask whoever runs the server" in answer.json()["hint"]
            assert "cloche keys" not in answer.body.decode()

    run(scenario())
