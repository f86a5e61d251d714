"""The playground: a control an input, filled with a real example, and what validation says while one types."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from cloche.core.signature import Field, Signature
from cloche.serving.guard import Policy
from cloche.serving.playground import MOST_CONTROLS

Run = Callable[[Any], None]
MakeDoor = Callable[..., Any]


def test_the_form_has_a_control_for_each_input_with_a_real_value(run: Run, make_door: MakeDoor) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            answer = await client.ask("/playground/fraud")
            page = answer.body.decode()
            assert answer.headers["content-type"].startswith("text/html")
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            kinds = re.findall(r'data-name="(\w+)" data-kind="(\w+)"', page)
            assert kinds == [("age", "number"), ("pay", "number"), ("job", "text"), ("point", "json")]
            assert re.search(r'id="c1" value="41"', page)
            assert re.search(r'id="c3" value="cook"', page)
            assert '<option value="nurse">' in page
            assert "[0.5,1.5]</textarea>" in page
            assert "onclick" not in page
            links = re.findall(r'(?:src|href)="\.\.(/docs/[^"]+)"', page)
            assert len(links) == 3
            for name in links:
                assert (await client.ask(name)).status == 200

    run(scenario())


def test_what_is_said_while_one_types_is_what_the_server_would_say(
    run: Run, make_door: MakeDoor, row: Any
) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:

            async def said(**changed: Any) -> list[tuple[str, str, bool]]:
                body = {**row, **changed}
                answer = await client.ask("/playground/fraud/check", body)
                assert answer.status == 200
                return [(one["field"], one["code"], one["answered"]) for one in answer.json()["problems"]]

            assert await said() == []
            assert await said(age="x", point=[1]) == [("age", "CL-E105", False), ("point", "CL-E110", False)]
            assert await said(age=500, job="king") == [("age", "CL-E109", True), ("job", "CL-E108", True)]
            assert await said(extra=1) == [("extra", "CL-E103", False)]
            assert door.runtime.rows == 0

    run(scenario())


def test_no_body_is_too_odd_to_be_told(run: Run, make_door: MakeDoor) -> None:
    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            for body in (b"", b"{", b"null", b"[]", b'"\xff"', b"[" * 100_000):
                answer = await client.ask("/playground/fraud/check", body)
                assert answer.status == 200
                assert answer.json()["problems"][0]["message"]
            large = await client.ask("/playground/fraud/check", b" " * 1_000_001)
            assert large.status == 413

    run(scenario())


def test_it_needs_a_key_where_predictions_do(run: Run, make_door: MakeDoor) -> None:
    async def scenario() -> None:
        policy = Policy(keys_required=True, loopback=False)
        async with make_door(policy=policy).open() as door, door.connect() as client:
            assert (await client.ask("/playground/fraud")).status == 401
            assert (await client.ask("/playground/fraud/check", {})).status == 401

    run(scenario())


def test_texts_of_the_model_can_not_become_markup(run: Run, make_door: MakeDoor) -> None:
    wicked = '</script><img src=x onerror="alert(1)">'
    signature = Signature(
        inputs=(Field(name=wicked, datatype="BYTES", shape=(-1,), categories=(wicked, "b")),),
        outputs=(Field(name="value", datatype="FP32", shape=(-1,)),),
    )

    async def scenario() -> None:
        examples = {wicked: np.array([wicked], object)}
        async with make_door(signature=signature, examples=examples).open() as door, door.connect() as client:
            page = (await client.ask("/playground/fraud")).body.decode()
            assert "<img" not in page
            data = re.search(r'<script type="application/json" id="examples">(.*?)</script>', page, re.DOTALL)
            assert data is not None
            assert json.loads(data[1]) == [{wicked: wicked}]

    run(scenario())


def test_a_very_wide_model_gets_one_box(run: Run, make_door: MakeDoor) -> None:
    names = [f"f{number}" for number in range(MOST_CONTROLS + 1)]
    signature = Signature(
        inputs=tuple(Field(name=name, datatype="FP64", shape=(-1,)) for name in names),
        outputs=(Field(name="value", datatype="FP32", shape=(-1,)),),
    )

    async def scenario() -> None:
        examples = {name: np.array([1.5]) for name in names}
        async with make_door(signature=signature, examples=examples).open() as door, door.connect() as client:
            page = (await client.ask("/playground/fraud")).body.decode()
            assert re.findall(r'data-kind="(\w+)"', page) == ["whole"]

    run(scenario())
