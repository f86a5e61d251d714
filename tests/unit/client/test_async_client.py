"""cloche.AsyncClient says what Client says: one text for both, other sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pandas as pd
import pytest
from tests.unit.client.conftest import Serve
from tests.unit.client.test_kinds import answer_to

import cloche


def run(url: str, rows: Any, **options: Any) -> Any:
    async def ask() -> Any:
        async with cloche.AsyncClient(url, **options) as client:
            return await client.predict("fraud", rows)

    return asyncio.run(ask())


def test_a_frame_gives_a_frame(serve: Serve) -> None:
    answer = run(serve(answer_to(2)).url, pd.DataFrame({"age": [1, 2]}, index=[5, 6]), key="clk_live_x")
    assert answer["label"].to_dict() == {5: "0", 6: "1"}


def test_a_connection_that_breaks_is_tried_once_more(serve: Serve) -> None:
    server = serve(None, answer_to(1))
    assert len(run(server.url, [{"age": 1}])) == 1
    assert len(server.seen) == 2


def test_an_answer_that_breaks_off_is_an_error(serve: Serve) -> None:
    with pytest.raises(cloche.BusyError, match="broke off"):
        run(serve((200, {"Content-Length": "1000"}, "{")).url, [{}])


def test_nobody_there_is_said_in_words(free_port: int) -> None:
    async def ready() -> bool:
        async with cloche.AsyncClient(f"http://127.0.0.1:{free_port}") as client:
            return await client.ready()

    assert asyncio.run(ready()) is False
    with pytest.raises(cloche.BusyError, match="nothing answers"):
        run(f"http://127.0.0.1:{free_port}", {})


def test_several_questions_can_be_asked_at_once(serve: Serve) -> None:
    async def ask() -> list[Any]:
        async with cloche.AsyncClient(serve(answer_to(1)).url) as client:
            return await asyncio.gather(*(client.predict("fraud", [{"age": n}]) for n in range(8)))

    assert len(asyncio.run(ask())) == 8
