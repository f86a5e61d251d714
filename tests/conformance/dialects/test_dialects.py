"""Every dialect keeps the promises of `cloche.serving.protocols.base`: the same answers, errors in its form."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from tests.unit.serving.conftest import SIGNATURE, Door, Response, board, make_door, run

from cloche.core.keys import KeyRing, mint_key
from cloche.core.signature import Columns, Field, Signature
from cloche.core.units import Rate
from cloche.serving.guard import Policy
from cloche.serving.protocols.base import find_dialects

__all__ = ["board", "make_door", "run"]  # fixtures

Run = Callable[[Any], None]
MakeDoor = Callable[..., Door]
Row = dict[str, Any]

ROWS: list[Row] = [
    {"age": 41, "pay": 1000.0, "job": "cook", "point": [0.5, 1.5]},
    {"age": 101, "pay": None, "job": "nurse", "point": [0.1, -2.0]},
    {"age": 0, "pay": 0.1, "job": "cook", "point": [3.0, 4.0]},
]
TEXTS = Signature(
    inputs=(Field(name="text", datatype="BYTES", shape=(-1,)),),
    outputs=(Field(name="embedding", datatype="FP32", shape=(-1, 3)),),
)


class Lengths:
    """A Lengths is an encoder whose vector is a text's length, its letters `a` and its words."""

    in_process = True

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        texts = columns["text"].tolist()
        rows = [[len(text), text.count("a"), len(text.split())] for text in texts]
        return {"embedding": np.array(rows, np.float32)}

    def close(self) -> None: ...


class Speech(NamedTuple):
    """A Speech is how the tests speak one dialect: a body of rows, what an answer says, what an error says."""

    path: str
    ask: Callable[[list[Row]], Any]
    labels: Callable[[Any], list[str]]
    told: Callable[[Any], str]


def tensor(name: str, datatype: str, rows: list[Row]) -> dict[str, Any]:
    values = [row[name] for row in rows]
    return {"name": name, "datatype": datatype, "shape": list(np.shape(values)), "data": values}


def as_tensors(rows: list[Row]) -> dict[str, Any]:
    return {
        "inputs": [tensor(field.name, field.datatype, rows) for field in SIGNATURE.inputs if field.name in rows[0]]
    }


def as_records(rows: list[Row]) -> dict[str, Any]:
    return {"dataframe_records": rows}


def as_instances(rows: list[Row]) -> dict[str, Any]:
    return {"instances": rows}


def as_columns(rows: list[Row]) -> dict[str, Any]:
    return {"inputs": {name: [row[name] for row in rows] for name in rows[0]}}


def as_split(rows: list[Row]) -> dict[str, Any]:
    return {"dataframe_split": {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}}


def of_tensors(body: Any) -> list[str]:
    return next(output["data"] for output in body["outputs"] if output["name"] == "label")


def error(body: Any) -> str:
    assert set(body) == {"error"}
    return body["error"]


def mlflow_error(body: Any) -> str:
    assert set(body) == {"error_code", "message"}
    assert body["error_code"].isupper()
    return body["message"]


def openai_error(body: Any) -> str:
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]["message"]


TF = "/v1/models/fraud:predict"
SPEECHES = {
    "cloche": [
        Speech("/predict/fraud", lambda rows: {"rows": rows},
               lambda body: [one["label"] for one in body["predictions"]], lambda body: body["detail"])
    ],
    "oip": [Speech("/v2/models/fraud/infer", as_tensors, of_tensors, error)],
    "tfserving": [
        Speech(TF, as_instances,
               lambda body: [one["label"] for one in body["predictions"]], error),
        Speech(TF, as_columns, lambda body: body["outputs"]["label"], error),
        Speech("/v1/models/fraud/versions/3:predict", lambda rows: {"signature_name": None, "instances": rows},
               lambda body: [one["label"] for one in body["predictions"]], error),
    ],
    "sagemaker": [
        Speech("/invocations", ask, lambda body: body["predictions"], mlflow_error)
        for ask in (as_split, as_columns, as_records, as_instances)
    ],
    "openai": [],  # speaks for models of another signature, below
}  # fmt: skip
ALL = [(name, speech) for name, speeches in SPEECHES.items() for speech in speeches]
EACH = pytest.mark.parametrize(("name", "speech"), ALL, ids=[f"{name}{at}" for at, (name, _) in enumerate(ALL)])


def test_every_dialect_that_is_installed_is_spoken_here() -> None:
    assert {dialect.name for dialect in find_dialects()} == set(SPEECHES)


@EACH
def test_the_same_rows_have_the_same_answers(name: str, speech: Speech, make_door: MakeDoor, run: Run) -> None:
    rows = [row for row in ROWS if name != "oip" or row["pay"] is not None] + ROWS[:1]
    wanted = ["yes" if row["age"] > 100 else "no" for row in rows]

    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            answer = await client.ask(speech.path, speech.ask(rows))
            assert answer.status == 200, answer.body
            assert speech.labels(answer.json()) == wanted
            assert answer.headers["cloche-model"] == "fraud-model:3"
            assert len(answer.headers["cloche-prediction-id"]) == 24
            many = await client.ask(speech.path, speech.ask(rows * 1000))  # too large for the short way
            assert speech.labels(many.json()) == wanted * 1000

    run(scenario())


@EACH
def test_it_is_counted_under_its_name(name: str, speech: Speech, make_door: MakeDoor, run: Run) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            await door.ask(speech.path, speech.ask(ROWS[:1]))
            await door.ask(speech.path, b"{")
            text = (await door.ask("/metrics")).body.decode()
            for code in ("200", "400"):
                line = f'cloche_requests_total{{code="{code}",deployment="fraud",dialect="{name}",version="3"}} 1'
                assert line in text

    run(scenario())


def changed(**values: Any) -> list[Row]:
    return [ROWS[0], {**ROWS[0], **values}]


WRONG = {
    "another type": (changed(age="41"), 422, "age"),
    "a null where none is taken": (changed(age=None), 422, "age"),
    "a fraction for a whole number": (changed(age=1.5), 422, "age"),
    "a number too large": (changed(age=10**30), 422, "age"),
    "a list for a number": (changed(age=[1]), 422, "age"),
    "another shape": (changed(point=[1.0]), 422, "point"),
    "a text in an array": (changed(point=[1.0, "x"]), 422, "point"),
}


@EACH
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_refused_by_name(
    name: str, speech: Speech, case: str, make_door: MakeDoor, run: Run
) -> None:
    rows, status, field = WRONG[case]
    if name == "oip":
        status = 4  # what does not fit its description is a malformed tensor there

    async def scenario() -> None:
        async with make_door().open() as door:
            body = as_tensors([ROWS[0]] * 2) if name == "oip" else speech.ask(rows)
            if name == "oip":
                for one in body["inputs"]:
                    one["data"] = [row[one["name"]] for row in rows]
            answer = await door.ask(speech.path, body)
            assert str(answer.status).startswith(str(status)), answer.body
            assert answer.headers["content-type"].endswith("json")
            assert field in speech.told(answer.json())

    run(scenario())


@EACH
def test_what_is_no_request_is_refused(name: str, speech: Speech, make_door: MakeDoor, run: Run) -> None:
    no_job = [{key: value for key, value in row.items() if key != "job"} for row in ROWS[:1]]
    bodies = [b"", b"{", b"[]", b"null", b"1", b'"x"', b"{}", b"\xff", b"NaN", b"[" * 5000, b'{"a":' * 2000,
              json.dumps(speech.ask(ROWS[:1])).encode()[:-1], speech.ask(no_job)]  # fmt: skip
    if name != "oip":
        bodies.append(speech.ask([ROWS[0] | {"jobb": 1}]))

    async def scenario() -> None:
        async with make_door().open() as door:
            for body in bodies:
                answer = await door.ask(speech.path, body)
                assert answer.status in (400, 422), (body, answer.body)
                assert speech.told(answer.json())

    run(scenario())


@EACH
def test_a_body_bent_at_random_is_never_a_bug(name: str, speech: Speech, make_door: MakeDoor, run: Run) -> None:
    good = json.dumps(speech.ask(ROWS[:1] * 2)).encode()
    generator = random.Random(5)

    async def scenario() -> None:
        door = make_door()
        seen = set()
        for _ in range(300):
            answer = await door.call("POST", speech.path, bent(good, generator), {})
            assert answer.status < 500, answer.body
            seen.add(answer.status)
            if answer.status != 200:
                assert speech.told(answer.json())
        assert {200, 400, 422} & seen

    run(scenario())


def bent(body: bytes, generator: random.Random) -> bytes:
    """The body with one to four of its pieces cut, doubled, swapped for another or made odd."""
    odd = [
        b"null",
        b"-1",
        b"1e400",
        b"[]",
        b"{}",
        b'""',
        b"true",
        b"[[1]]",
        b'{"b64":"x"}',
        b"\x00",
        b"\xff",
        b"9" * 40,
    ]
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(body) or 1)
        length = generator.randint(0, 6)
        kind = generator.randrange(4)
        piece = body[at : at + length] * 2 if kind == 0 else generator.choice(odd) if kind == 1 else b""
        if kind == 3:
            other = generator.randrange(len(body) or 1)
            piece = body[other : other + length]
        body = body[:at] + piece + body[at + length :]
    return body


@EACH
def test_who_may_not_is_told_so_in_its_form(name: str, speech: Speech, make_door: MakeDoor, run: Run) -> None:
    key = mint_key("a", scopes=["metrics"], created=0.0)
    limits = {"default": Rate(1, 3600)}

    async def scenario() -> None:
        guarded = Policy(keys_required=True, loopback=False)
        async with make_door(policy=guarded, keys=KeyRing([key.record])).open() as door:
            for headers, status in (({}, 401), ({"authorization": f"Bearer {key.text}"}, 403)):
                answer = await door.ask(speech.path, speech.ask(ROWS[:1]), headers=headers)
                assert answer.status == status
                assert "key" in speech.told(answer.json())
        async with make_door(policy=Policy(keys_required=False, loopback=True, limits=limits)).open() as door:
            answers = [await door.ask(speech.path, speech.ask(ROWS[:1])) for _ in range(2)]
            assert [answer.status for answer in answers] == [200, 429]
            assert "limit" in speech.told(answers[1].json())
            assert int(answers[1].headers["retry-after"]) > 0

    run(scenario())


@EACH
def test_another_method_is_told_so_in_its_form(name: str, speech: Speech, make_door: MakeDoor, run: Run) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            answer = await door.ask(speech.path)
            assert (answer.status, answer.headers["allow"]) == (405, "POST")
            assert "POST" in json.dumps(answer.json())
            speech.told(answer.json())

    run(scenario())


def embed(door: Door, **members: Any) -> Any:
    return door.ask("/v1/embeddings", {"model": "fraud", "input": ["a bad day", "na"], **members})


def make_encoder(make_door: MakeDoor) -> Door:
    examples: Columns = {"text": np.array(["a bad day"], object)}
    return make_door(signature=TEXTS, examples=examples, runtime=Lengths())


def test_embeddings_are_the_vectors_that_the_other_dialects_give(make_door: MakeDoor, run: Run) -> None:
    async def scenario() -> None:
        async with make_encoder(make_door).open() as door:
            ours = await door.ask("/predict/fraud", [{"text": "a bad day"}, {"text": "na"}])
            wanted = [one["embedding"] for one in ours.json()["predictions"]]
            assert wanted == [[9.0, 3.0, 3.0], [2.0, 1.0, 1.0]]
            theirs = (await embed(door)).json()
            assert [one["embedding"] for one in theirs["data"]] == wanted
            assert [one["index"] for one in theirs["data"]] == [0, 1]
            assert (theirs["object"], theirs["model"]) == ("list", "fraud-model:3")
            assert theirs["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
            instances = await door.ask(TF, {"instances": ["a bad day", "na"]})
            assert instances.json() == {"predictions": wanted}
            columns = await door.ask(TF, {"inputs": {"text": ["a bad day", {"b64": "bmE="}]}})
            assert columns.json() == {"outputs": wanted}
            invoked = await door.ask("/invocations", {"inputs": ["a bad day", "na"]})
            assert invoked.json() == {"predictions": wanted}
            text = (await door.ask("/metrics")).body.decode()
            assert 'dialect="openai"' in text

    run(scenario())


def test_embeddings_refuse_what_they_do_not_take_in_their_form(make_door: MakeDoor, run: Run) -> None:
    cases: list[tuple[Any, int, str]] = [
        ({"model": "gpt", "input": "x"}, 404, "gpt"),
        ({"model": "fraud", "input": []}, 400, "empty"),
        ({"model": "fraud", "input": [1, 2]}, 400, "text"),
        ({"model": "fraud", "input": [[1, 2]]}, 400, "text"),
        ({"model": "fraud"}, 400, "input"),
        ({"model": "fraud", "input": "x", "dimensions": 2}, 422, "dimensions"),
        ({"model": "fraud", "input": "x", "encoding_format": "hex"}, 400, "encoding_format"),
        (b"{", 400, "JSON"),
    ]

    async def scenario() -> None:
        async with make_encoder(make_door).open() as door:
            for body, status, word in cases:
                answer = await door.ask("/v1/embeddings", body)
                assert answer.status == status, (body, answer.body)
                assert word in openai_error(answer.json())
            good = json.dumps({"model": "fraud", "input": ["a bad day"]}).encode()
            generator = random.Random(7)
            for _ in range(300):
                answer = await door.call("POST", "/v1/embeddings", bent(good, generator))
                assert answer.status < 500, answer.body

    run(scenario())


def test_only_a_model_of_texts_and_vectors_speaks_of_embeddings(make_door: MakeDoor, run: Run) -> None:
    async def scenario() -> None:
        door = make_door()
        assert "openai" not in {dialect.name for dialect in door.dialects}
        answer: Response = await door.call("POST", "/v1/embeddings", b"{}")
        assert answer.status == 404

    run(scenario())


def test_every_path_is_described_documented_and_guarded(make_door: MakeDoor, run: Run) -> None:
    reference = (Path(__file__).parents[3] / "docs/reference/http.md").read_text()

    async def scenario() -> None:
        live = msgspec.structs.replace(make_encoder(make_door).live, aliases=("champion",))
        door = make_door(policy=Policy(keys_required=True, loopback=True))
        asked = 0
        for dialect in (one(live) for one in find_dialects()):
            described = dialect.openapi()
            ways = [("POST", path) for path in dialect.paths()] + [("GET", one.path) for one in dialect.routes()]
            for method, path in ways:
                # versions and labels stand in words at the path that they are a twin of
                below = re.search(r"/versions/3|/labels/champion", path)
                twin = path.replace(below[0], "") if below else path
                operation = described[twin][method.lower()]
                assert below is None or path[: below.end()] in operation["description"]
                shown = twin.replace("fraud", "{deployment}" if dialect.name == "cloche" else "{model}")
                assert f"`{shown}`" in reference or f"`…/{shown.rpartition('/')[2]}`" in reference
                answer = await door.call(method, path, b"{}")
                assert answer.status == (200 if path in ("/ping", "/health") else 401)
                asked += 1
        assert asked > 20

    run(scenario())
