"""The admin API: nothing without a key, each key what its scopes allow, and the CLI's answers."""

from __future__ import annotations

import json
import re
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.unit.app.admin.conftest import Desk

from cloche.app.acts import Acts
from cloche.app.admin.openapi import openapi_document
from cloche.app.admin.routes import FILE_PATH, PREFIX, ROUTES
from cloche.store.events import list_events
from cloche.store.keys import Keys

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
PATHS = sorted(
    {f"{PREFIX}{route.path}" for route in ROUTES}
    | {f"{PREFIX}{FILE_PATH}", f"{PREFIX}/openapi.json", "/", "/nothing", "/livez", f"{PREFIX}/livez", "/metrics"}
)


def filled(path: str) -> str:
    return re.sub(r"{(\w+)(:int)?}", lambda found: "1" if found[2] else "toy", path)


def test_without_a_key_every_route_is_refused_but_livez(desk: Desk) -> None:
    with desk.client() as client:
        for path in PATHS:
            for method in METHODS:
                answer = client.request(method, filled(path))
                if (path, method) in (("/livez", "GET"), ("/livez", "HEAD")):
                    assert answer.status_code == 200
                    continue
                assert answer.status_code == 401, (method, path)
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert "access-control-allow-origin" not in answer.headers


def test_keys_that_may_only_predict_are_refused_everywhere(desk: Desk) -> None:
    with desk.client(desk.key("predict", "metrics")) as client:
        for route in ROUTES:
            answer = client.request(route.method, filled(f"{PREFIX}{route.path}"), json={})
            assert answer.status_code == 403, route
            assert answer.json()["code"] == "CL-E403"


@pytest.mark.parametrize(("scope", "allowed"), [("read", {"read"}), ("deploy", {"read", "deploy"})])
def test_a_scope_allows_its_own_routes_and_no_other(desk: Desk, scope: str, allowed: set[str]) -> None:
    with desk.client(desk.key(scope)) as client:
        for route in ROUTES:
            answer = client.request(
                route.method, filled(f"{PREFIX}{route.path}"), json=None if route.method == "GET" else {"odd": 1}
            )
            assert (answer.status_code != 403) == (route.scope in allowed), (route, answer.text)


@pytest.mark.parametrize("text", ["clk_live_0000000000_" + "0" * 43 + "_00000000", "nonsense", "Ä"])
def test_a_key_that_nobody_knows_is_refused(desk: Desk, text: str) -> None:
    with desk.client() as client:
        answer = client.get(f"{PREFIX}/models", headers={"authorization": f"Bearer {text}".encode()})
        assert (answer.status_code, answer.json()["code"]) == (401, "CL-E402")


def test_a_key_is_good_at_once_and_refused_as_soon_as_it_is_revoked(desk: Desk) -> None:
    with desk.client(desk.key("read")) as client:
        assert client.get(f"{PREFIX}/models").status_code == 200
        Keys(desk.project.store).revoke("ci")
        assert client.get(f"{PREFIX}/models").status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:8082", 200),
        ("[::1]:8082", 200),
        ("evil.example", 403),
        ("evil.example:8082", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
    ],
)
def test_a_page_that_calls_this_host_by_another_name_is_refused(desk: Desk, host: str, status: int) -> None:
    parts = urlsplit(desk.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(f"GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert connection.makefile("rb").readline().split()[1] == str(status).encode()


def test_answers_are_those_of_the_command_line(served: Desk) -> None:
    acts = Acts(served.project)
    with served.client(served.key("admin", name="ops")) as client:
        for path, act in (
            ("/deployments", acts.status()),
            ("/deployments/toy", acts.status("toy")),
            ("/history?deployment=toy&limit=3", acts.history("toy", 3)),
            ("/stats?deployment=toy&last=7d", None),
            ("/models", acts.models()),
            ("/models/toy", acts.models("toy")),
            ("/versions/toy:1", None),
            ("/versions/toy@champion", None),
            ("/audit?limit=2", acts.audit(2)),
            ("/audit/verify", acts.verify_audit()),
        ):
            answer = client.get(f"{PREFIX}{path}")
            assert answer.status_code == 200, answer.text
            assert answer.json()["version"] == 1
            if act is not None:
                assert answer.json() == json.loads(json.dumps(act))
        assert client.get(f"{PREFIX}/versions/toy:1").json()["manifest"]["name"] == "toy"


def test_a_rollout_from_its_begin_to_its_end_in_the_name_of_the_key(served: Desk) -> None:
    with served.client(served.key("deploy", name="pipeline")) as client:

        def post(path: str, **form: Any) -> Any:
            return client.post(f"{PREFIX}{path}", json=form)

        begun = post("/rollouts", reference="toy:2", steps="5% for 1h, 100%")
        assert (begun.status_code, begun.json()["candidate"]) == (200, "toy:2")
        assert client.get(f"{PREFIX}/rollouts/{begun.json()['rollout']}").json()["ended"] is None
        assert post("/rollouts", reference="toy:2").status_code == 409
        assert (post("/promote").status_code, post("/promote").json()["code"]) == (409, "CL-E508")
        for command in ("pause", "resume", "abort"):
            assert post(f"/{command}").json()["command"] == command
        assert post("/rollback", deployment="toy", why="odd").json()["stable"] == "toy:1"
        assert post("/rollouts", reference="toy:2").json()["code"] == "CL-E413"
        assert post("/unblock", reference="toy:2").json()["was_blocked"] is True
        moved = client.put(f"{PREFIX}/aliases", json={"reference": "toy:2", "alias": "next"})
        assert moved.json()["now"] == "toy:2"
    store = served.project.store
    assert {one.who for one in list_events(store)} == {"ada", "pipeline"}
    told = [(row["who"], row["action"]) for row in Acts(served.project).audit(7)["items"]]
    assert told[-2:] == [("pipeline", "unblocked"), ("pipeline", "alias moved")]


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("POST", "/rollouts", {"content": b"{"}, 400, "CL-E101"),
        ("POST", "/rollouts", {"json": {}}, 400, "CL-E102"),
        ("POST", "/rollouts", {"json": {"reference": "toy:9"}}, 404, "CL-E301"),
        ("POST", "/rollouts", {"json": {"reference": "toy:1", "taste": 1}}, 400, "CL-E102"),
        ("POST", "/rollouts", {"json": {"reference": "toy:2", "strategy": "odd"}}, 400, "CL-E201"),
        ("POST", "/rollouts", {"json": {"reference": "x" * 70_000}}, 413, "CL-E114"),
        ("POST", "/promote", {"json": {}}, 409, "CL-E505"),
        ("GET", "/history?limit=many", {}, 400, "CL-E117"),
        ("GET", "/history?taste=sweet", {}, 400, "CL-E117"),
        ("GET", "/models?limit=1", {}, 400, "CL-E117"),
        ("GET", "/deployments/nobody", {}, 404, "CL-E302"),
        ("GET", "/rollouts/7", {}, 404, "CL-E302"),
        ("GET", "/nothing", {}, 404, "CL-E304"),
        ("DELETE", "/models", {}, 405, "CL-E306"),
        ("GET", "//models", {}, 400, "CL-E116"),
        ("PATCH", "/uploads/toy/files/toy", {"content": b"x"}, 400, "CL-E117"),
        ("PATCH", "/uploads/toy/files/toy", {"headers": {"upload-offset": "0"}}, 404, "CL-E303"),
        ("POST", "/uploads/toy/finish", {"json": {}}, 400, "CL-E203"),
        ("POST", f"/uploads/{'a' * 64}/finish", {"json": {}}, 404, "CL-E303"),
    ],
)
def test_what_can_t_be_is_said_as_a_problem(
    served: Desk, method: str, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    with served.client(served.key("admin")) as client:
        answer = client.request(method, f"{PREFIX}{path}", **options)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_the_document_describes_every_route(desk: Desk) -> None:
    document = json.loads(openapi_document())
    assert document["openapi"].startswith("3.1.")
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert named <= set(document["components"]["schemas"])
    with desk.client(desk.key("read")) as client:
        assert client.get(f"{PREFIX}/openapi.json").json() == document
    described = {(path, method) for path, found in document["paths"].items() for method in found}
    assert len(described) == len(ROUTES) + 1
