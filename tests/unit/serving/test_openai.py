"""OpenAI's embeddings: what fits, and the two ways in which a vector goes back."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import numpy as np
import pytest

from cloche.core.errors import InputError, NotFoundError
from cloche.core.signature import Field, Signature
from cloche.serving.protocols.base import Live
from cloche.serving.protocols.openai import OpenAiDialect

TEXT = Field(name="text", datatype="BYTES", shape=(-1,))
VECTOR = Field(name="embedding", datatype="FP32", shape=(-1, 3))


def dialect() -> OpenAiDialect:
    signature = Signature(inputs=(TEXT,), outputs=(VECTOR,))
    return OpenAiDialect(
        Live(
            deployment="minilm", model="encoder", version=2, signature=signature, platform="onnx", description="",
            examples={"text": np.array(["x"], object)}, is_ready=lambda: True,
        )
    )  # fmt: skip


def ask(**members: Any) -> tuple[Any, Any]:
    body = msgspec.json.encode({"model": "minilm", "input": "x", **members})
    return dialect().decode(body, {b"content-type": b"application/json"})


@pytest.mark.parametrize(
    ("inputs", "outputs", "fits"),
    [
        ((TEXT,), (VECTOR,), True),
        ((TEXT,), (msgspec.structs.replace(VECTOR, shape=(-1, -1)),), True),
        ((TEXT, TEXT), (VECTOR,), False),
        ((TEXT,), (VECTOR, VECTOR), False),
        ((msgspec.structs.replace(TEXT, name="body"),), (VECTOR,), False),
        ((msgspec.structs.replace(TEXT, datatype="INT64"),), (VECTOR,), False),
        ((TEXT,), (msgspec.structs.replace(VECTOR, name="vector"),), False),
        ((TEXT,), (msgspec.structs.replace(VECTOR, shape=(-1,)),), False),
    ],
)
def test_it_speaks_for_texts_to_vectors_only(inputs: Any, outputs: Any, fits: bool) -> None:
    assert OpenAiDialect.fits(Signature(inputs=inputs, outputs=outputs)) is fits


@pytest.mark.parametrize("model", ["minilm", "encoder", "encoder:2"])
def test_a_text_or_a_list_by_any_name_of_the_model(model: str) -> None:
    columns, wants = ask(model=model, input=["a", "b"], user="u", dimensions=3)
    assert (columns["text"].tolist(), wants) == (["a", "b"], "float")
    columns, wants = ask(model=model, encoding_format="base64")
    assert (columns["text"].tolist(), wants) == (["x"], "base64")


def test_base64_is_the_vectors_little_endian_floats() -> None:
    vectors = np.array([[0.1, -2.0, 3e-8], [4, 5, 6]], np.float32)
    made = dialect()
    answer = msgspec.json.decode(made.encode({"embedding": vectors}, (), "base64", "id").body)
    raw = [base64.b64decode(one["embedding"]) for one in answer["data"]]
    assert np.array_equal(np.stack([np.frombuffer(one, "<f4") for one in raw]), vectors)
    answer = msgspec.json.decode(made.encode({"embedding": vectors}, (), "float", "id").body)
    assert np.array_equal(np.array([one["embedding"] for one in answer["data"]], np.float32), vectors)


def test_another_model_or_another_width_is_refused() -> None:
    with pytest.raises(NotFoundError, match="'gpt' is not live"):
        ask(model="gpt")
    with pytest.raises(InputError, match="dimensions"):
        ask(dimensions=256)
    with pytest.raises(InputError, match="input") as raised:
        ask(input=[[1, 2]])
    assert "tokens are not taken" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": [1]}, "input"),
        ({"input": None}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": "3"}, "dimensions"),
        ({"dimensions": 2}, "dimensions"),
        ({"model": 1}, "model"),
        ({"inptu": "x"}, "inptu"),  # passed over, it would mislead
    ],
)
def test_an_error_names_the_member_as_openai_does(members: dict[str, Any], param: str) -> None:
    with pytest.raises(InputError) as raised:
        ask(**members)
    told = msgspec.json.decode(dialect().problem(raised.value, "id").body)["error"]
    assert told["param"] == param
    assert param in told["message"]


def test_a_member_of_any_length_is_told_in_a_few_words() -> None:
    with pytest.raises(InputError) as raised:
        ask(**{"x" * 100_000: 1})
    assert len(str(raised.value)) < 400


def test_a_width_that_the_signature_does_not_know_is_not_promised() -> None:
    signature = Signature(inputs=(TEXT,), outputs=(msgspec.structs.replace(VECTOR, shape=(-1, -1)),))
    made = OpenAiDialect(msgspec.structs.replace(dialect()._live, signature=signature))
    for width in (-1, 3):
        with pytest.raises(InputError, match=r"dimensions") as raised:
            made.decode(msgspec.json.encode({"model": "minilm", "input": "x", "dimensions": width}), {})
        assert raised.value.hint == "leave it out"
