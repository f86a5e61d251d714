"""A look-up behind the model: callers send a key, the rest is read from their database."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import create_engine, text
from tests.journeys.conftest import shop_rows
from tests.journeys.serving import Serving, cloche, up
from tests.postgresql import PostgresqlServer, postgresql_server

TABLE = "create table customers (id integer primary key, age integer, income double precision, plan varchar(10))"
INSERT = "insert into customers values (:id, :age, :income, :plan)"


def customers(count: int) -> list[dict[str, Any]]:
    frame = shop_rows(count)[0][["age", "income", "plan"]].astype(object)
    records = frame.where(frame.notna(), None).to_dict("records")
    return [{"id": number, **record} for number, record in enumerate(records)]


def describe(folder: Path, url: str, **more: str) -> None:
    lines = {"source": url, "table": "customers", "key": "id", **more}
    features = "".join(f'{name} = "{value}"\n' for name, value in lines.items())
    (folder / "cloche.toml").write_text(
        f'version = 1\n[serve]\nworkers = 1\n[online.churn]\nmodel = "churn@champion"\n'
        f'[online.churn.features]\ncolumns = ["age", "income", "plan"]\n{features}'
    )


@pytest.fixture
def project(shop: Path, tmp_path: Path) -> Path:
    shutil.copytree(shop / ".cloche", tmp_path / ".cloche")
    return tmp_path


def test_the_caller_sends_a_key_and_gets_the_whole_rows_answer(project: Path, shop: Path) -> None:
    rows = customers(50)
    with sqlite3.connect(project / "shop.db") as database:
        database.execute(TABLE)
        database.executemany(INSERT, rows)
    database.close()
    describe(project, "sqlite:///shop.db")
    with up(shop, "churn") as whole, up(project) as serving:
        for row in rows[:20]:
            mails = row["id"] % 2 == 0
            sent = {name: value for name, value in row.items() if name != "id"} | {"mails": mails}
            expected = whole.ask("/predict/churn", sent).json()["prediction"]
            answer = serving.ask("/predict/churn", {"id": row["id"], "mails": mails})
            assert answer.json()["prediction"] == expected
        absent = serving.ask("/predict/churn", {"id": 77_777, "mails": True})
        assert (absent.status, absent.json()["code"]) == (422, "CL-E122")
        told = serving.ask("/predict/churn", {"id": 1, "mails": True, "age": 3})
        assert (told.status, told.json()["code"]) == (422, "CL-E103")
        inputs = [field["name"] for field in serving.ask("/v2/models/churn").json()["inputs"]]
        assert inputs == ["id", "mails"]
        assert '"id":0' in serving.log.read_text()  # the line to try


def test_a_table_that_does_not_fit_is_told_before_the_start(project: Path) -> None:
    sqlite3.connect(project / "shop.db").close()
    describe(project, "sqlite:///shop.db")
    done = cloche(project, "up", "--port", "0", check=False)
    assert done.returncode == 2
    assert "CL-E208" in done.stderr
    assert "there is no table customers" in done.stderr


@pytest.mark.heavy
def test_a_thousand_keys_a_second_on_postgresql_and_a_database_that_dies(project: Path) -> None:
    with postgresql_server() as server:
        url = server.new_database()
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection:
            connection.execute(text(TABLE))
            connection.execute(text(INSERT), customers(1_000))
        engine.dispose()
        describe(project, url, ttl="1s")
        with up(project) as serving:
            asyncio.run(calls(serving, seconds=1.0))
            quiet = asyncio.run(calls(serving, seconds=8.0))
            print("1,000 req/s, 1,000 keys: p99", quiet.p99_ms(), "ms", dict(quiet.statuses))
            assert set(quiet.statuses) == {200}
            hit = asyncio.run(dying(serving, server))
            print("database killed for 2 s:", dict(hit.statuses), "slowest", round(max(hit.seconds), 3), "s")
            assert set(hit.statuses) == {200, 503}
            assert max(hit.seconds) < 1.5  # the deadline is 1 s
            after = asyncio.run(calls(serving, seconds=2.0))
            assert set(after.statuses) == {200}


class Seen:
    """What came back: how many of each status, and the seconds that each took from when it was due."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []

    def p99_ms(self) -> float:
        return round(sorted(self.seconds)[int(len(self.seconds) * 0.99)] * 1e3, 2)


async def calls(serving: Serving, *, seconds: float, rate: int = 1_000, connections: int = 64) -> Seen:
    """An open loop over kept-alive connections, each request with the next key."""
    seen = Seen()
    due: asyncio.Queue[tuple[float, int] | None] = asyncio.Queue()
    callers = [asyncio.create_task(caller(serving, due, seen)) for _ in range(connections)]
    start = time.perf_counter()
    for number in range(int(seconds * rate)):
        at = start + number / rate
        while (left := at - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        due.put_nowait((at, number % 1_000))
    for _ in callers:
        due.put_nowait(None)
    await asyncio.gather(*callers)
    return seen


async def caller(serving: Serving, due: asyncio.Queue[tuple[float, int] | None], seen: Seen) -> None:
    parts = urlsplit(serving.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    while (asked := await due.get()) is not None:
        at, key = asked
        body = json.dumps({"id": key, "mails": True}).encode()
        head = f"POST /predict/churn HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        seen.statuses[int(answer.split(b" ")[1])] += 1
        seen.seconds.append(time.perf_counter() - at)
    writer.close()


async def dying(serving: Serving, server: PostgresqlServer) -> Seen:
    """The same load for 8 s, over which the database is gone from the second to the fourth."""

    async def fate() -> None:
        await asyncio.sleep(2)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(2)
        await asyncio.to_thread(server.start)

    load, _ = await asyncio.gather(calls(serving, seconds=8.0, rate=300), fate())
    return load
