"""Our own dialect's answers: one prediction or many, numbers by the names of their classes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from cloche.core.errors import BusyError, InputError
from cloche.core.signature import Columns, Field, Signature
from cloche.engine.validate import Flag
from cloche.serving.protocols.base import Live
from cloche.serving.protocols.cloche import ClocheDialect


def dialect(*outputs: Field) -> ClocheDialect:
    signature = Signature(inputs=(Field(name="x", datatype="FP32", shape=(-1,)),), outputs=outputs)
    return ClocheDialect(
        Live(
            deployment="m", model="m", version=3, signature=signature, platform="onnx", description="",
            examples={"x": np.zeros(1, np.float32)}, is_ready=lambda: True,
        )
    )  # fmt: skip


def encoded(made: ClocheDialect, outputs: Columns, single: bool, flags: Any = ()) -> Any:
    answer = made.encode(outputs, flags, single, "0" * 24)
    assert (answer.status, dict(answer.headers)[b"content-type"]) == (200, b"application/json")
    return json.loads(answer.body)


CLASSES = ("no", "yes")
CLASSIFIER = (
    Field(name="label", datatype="INT64", shape=(-1,), classes=CLASSES),
    Field(name="probabilities", datatype="FP64", shape=(-1, 2), classes=CLASSES),
)


def test_a_classifier_answers_label_and_probabilities_by_name() -> None:
    outputs: Columns = {"label": np.array([1, 0]), "probabilities": np.array([[0.25, 0.75], [1, 0]])}
    assert encoded(dialect(*CLASSIFIER), outputs, False) == {
        "model": "m:3",
        "prediction_id": "0" * 24,
        "predictions": [
            {"label": 1, "probabilities": {"no": 0.25, "yes": 0.75}},
            {"label": 0, "probabilities": {"no": 1.0, "yes": 0.0}},
        ],
    }
    one = {name: column[:1] for name, column in outputs.items()}
    assert encoded(dialect(*CLASSIFIER), one, True) == {
        "model": "m:3",
        "prediction_id": "0" * 24,
        "prediction": {"label": 1, "probabilities": {"no": 0.25, "yes": 0.75}},
    }


def test_a_regressor_answers_a_value() -> None:
    made = dialect(Field(name="value", datatype="FP32", shape=(-1,)))
    assert encoded(made, {"value": np.array([0.5], np.float32)}, True)["prediction"] == {"value": 0.5}


def test_any_other_model_answers_its_outputs() -> None:
    made = dialect(
        Field(name="größe", datatype="FP32", shape=(-1, 2, 2)),
        Field(name="words", datatype="BYTES", shape=(-1, 2)),
    )
    outputs: Columns = {"größe": np.ones((1, 2, 2), np.float32), "words": np.array([["a", None]], object)}
    assert encoded(made, outputs, True)["prediction"] == {"größe": [[1, 1], [1, 1]], "words": ["a", None]}
    assert encoded(made, outputs, False)["predictions"] == [{"größe": [[1, 1], [1, 1]], "words": ["a", None]}]


def test_flags_are_listed() -> None:
    made = dialect(Field(name="value", datatype="FP32", shape=(-1,)))
    answer = encoded(made, {"value": np.zeros(1, np.float32)}, True, (Flag(0, "x", "CL-E109"),))
    assert answer["flags"] == [{"row": 0, "field": "x", "code": "CL-E109"}]


@pytest.mark.parametrize(
    ("error", "status", "header"),
    [
        (InputError("no", code="CL-E104"), 422, None),
        (BusyError("busy", code="CL-E601", retry_after_s=2.5), 503, (b"retry-after", b"3")),
    ],
)
def test_a_problem_is_rfc_9457(error: Any, status: int, header: Any) -> None:
    answer = dialect().problem(error, "id")
    assert answer.status == status
    assert (b"content-type", b"application/problem+json") in answer.headers
    assert header is None or header in answer.headers
    assert json.loads(answer.body)["request_id"] == "id"
