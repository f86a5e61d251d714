"""`cloche.asgi` in apps of Starlette and FastAPI, by TestClient and by a real uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

import cloche
from cloche.app.asgi import ModelApp
from cloche.testing import toy_classifier

ROW = {"age": 41.0, "visits": 12, "plan": "pro"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    model, frame, labels = toy_classifier()
    cloche.pack(model, frame, labels, name="churn", directory=folder)
    return folder


@pytest.fixture(scope="module")
def label(folder: Path) -> str:
    with cloche.load("churn", directory=folder) as model:
        return str(model.predict([ROW])[0])


@pytest.fixture
def models(folder: Path) -> Iterator[ModelApp]:
    app = cloche.asgi("churn@champion", directory=folder)
    yield app
    asyncio.run(app.stop())


@pytest.fixture(params=["starlette", "fastapi", "by itself"])
def client(request: pytest.FixtureRequest, models: ModelApp) -> Iterator[tuple[TestClient, str]]:
    """A client of an app with the model in it, and the path that it is mounted at."""
    app: Any
    if request.param == "fastapi":
        app, root = FastAPI(), "/models"
        app.mount("/models", models)
    elif request.param == "starlette":
        app, root = Starlette(routes=[Mount("/an app/models", models)]), "/an%20app/models"
    else:
        app, root = models, ""
    with TestClient(app) as opened:
        yield opened, root


def test_every_dialect_and_the_pages_answer_below_the_mount(client: tuple[TestClient, str], label: str) -> None:
    ask, root = client
    answer = ask.post(f"{root}/predict/churn", json=ROW)
    assert (answer.status_code, answer.json()["prediction"]["label"]) == (200, label)
    assert answer.headers["cloche-model"] == "churn:1"
    assert ask.get(f"{root}/v2/models/churn").json()["name"] == "churn"
    assert ask.get(f"{root}/readyz").status_code == 200
    assert "cloche_requests_total" in ask.get(f"{root}/metrics").text
    page = ask.get(f"{root}/docs")
    assert page.status_code == 200
    assert ask.get(f"{root}/docs/docs.css").status_code == 200
    led = ask.get(f"{root}/", headers={"accept": "text/html"}, follow_redirects=False)
    assert led.headers["location"] == "docs"


def test_the_document_says_where_it_stands(client: tuple[TestClient, str]) -> None:
    ask, root = client
    document = ask.get(f"{root}/openapi.json").json()
    assert [server["url"].replace(" ", "%20") for server in document.get("servers", [])] == (
        [root] if root else []
    )


def test_what_is_wrong_is_refused_as_ever(client: tuple[TestClient, str]) -> None:
    ask, root = client
    answer = ask.post(f"{root}/predict/churn", json={**ROW, "visits": "many"})
    assert (answer.status_code, answer.json()["code"]) == (422, "CL-E105")
    assert ask.get(f"{root}/nothing").json()["code"] == "CL-E304"
    assert ask.get(f"{root}/predict/churn").status_code == 405


def test_many_rows_at_once_come_and_go_in_other_bodies(client: tuple[TestClient, str]) -> None:
    ask, root = client
    body = "age,visits,plan\n" + "41,12,pro\n" * 2_000
    answer = ask.post(f"{root}/predict/churn", content=body, headers={"content-type": "text/csv"})
    assert answer.status_code == 200
    assert len(answer.text.splitlines()) == 2_001


def test_each_event_loop_gets_its_own_batcher(models: ModelApp, label: str) -> None:
    app = Starlette(routes=[Mount("/models", models)])
    for _ in range(3):
        ask = TestClient(app)  # outside of a `with` each request has a loop of its own
        assert ask.post("/models/predict/churn", json=ROW).json()["prediction"]["label"] == label
    assert len(models._apps) <= 2


def test_it_can_be_made_ready_before_the_first_request(models: ModelApp) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        await models.start()
        yield
        await models.stop()

    app = FastAPI(lifespan=lifespan)
    app.mount("/models", models)
    with TestClient(app) as ask:
        assert models._loaded is not None
        assert ask.get("/models/readyz").status_code == 200
    assert models._loaded is None


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.01, 0.03])
def test_a_stop_while_it_loads_leaves_nothing_that_is_closed(models: ModelApp, label: str, after_s: float) -> None:
    async def work() -> dict[str, Any]:
        starting = asyncio.create_task(models.start())
        await asyncio.sleep(after_s)
        await models.stop()
        await starting
        return await models.predict(ROW)

    assert asyncio.run(work())["label"] == label


def test_under_uvicorn_concurrent_callers_are_answered_in_batches(
    models: ModelApp, free_port: int, label: str
) -> None:
    app = FastAPI()
    app.mount("/models", models)
    server = uvicorn.Server(uvicorn.Config(app, port=free_port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 10
        while not server.started:
            assert time.monotonic() < until
            time.sleep(0.01)

        async def ask() -> list[Any]:
            async with cloche.AsyncClient(f"http://127.0.0.1:{free_port}/models") as client:
                return await asyncio.gather(*(client.predict("churn", ROW) for _ in range(32)))

        assert {answer["label"] for answer in asyncio.run(ask())} == {label}
    finally:
        server.should_exit = True
        thread.join(10)


def test_keys_of_its_table_are_asked_for(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "cloche.toml").write_text(
        f'version = 1\n[project]\ndata = "{folder / ".cloche"}"\n'
        '[online.churn]\nmodel = "churn@champion"\n[online.churn.access]\nkeys = true\n'
    )
    models = cloche.asgi("churn", directory=tmp_path)
    with TestClient(models) as ask:
        assert ask.post("/predict/churn", json=ROW).status_code == 401
        assert ask.get("/livez").status_code == 200


def test_what_is_not_there_is_said_when_it_is_made(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(cloche.NotFoundError):
        cloche.asgi("fraud", directory=folder)
    with pytest.raises(cloche.NotFoundError):
        cloche.asgi("fraud", directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_load_says_so_at_the_start(folder: Path, models: ModelApp) -> None:
    broken = ModelApp(models._config, msgspec.structs.replace(models._deployed, bundle=str(folder / "gone")))
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(broken({"type": "lifespan"}, receive, send))
    [message] = sent
    assert message["type"] == "lifespan.startup.failed"
    assert "CL-E303" in message["message"]


def test_an_endpoint_of_ones_own_asks_the_same_batcher(models: ModelApp, label: str) -> None:
    async def scenario() -> Any:
        one, many = await asyncio.gather(models.predict(ROW), models.predict([ROW, ROW]))
        with pytest.raises(cloche.InputError):
            await models.predict({**ROW, "visits": "many"})
        return one, many

    one, many = asyncio.run(scenario())
    assert set(one["probabilities"]) == {"no", "yes"}
    assert [one["label"], *(each["label"] for each in many)] == [label] * 3
