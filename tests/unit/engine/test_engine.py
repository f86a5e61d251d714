"""The engine: validate, look up, run; and what it does not let out of a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cloche.core.errors import InputError, ModelError
from cloche.core.signature import Columns, Field, Signature
from cloche.engine.cache import Cache
from cloche.engine.engine import Engine
from cloche.engine.validate import Flag

SIGNATURE = Signature(
    inputs=(Field(name="x", datatype="FP32", shape=(-1,), minimum=0.0, maximum=10.0),),
    outputs=(Field(name="value", datatype="FP32", shape=(-1,)), Field(name="kind", datatype="INT64", shape=(-1,))),
)


class Doubling:
    """A Doubling is a runtime that doubles `x` and keeps what it was asked."""

    in_process = True

    def __init__(self, **instead: Any) -> None:
        self.asked: list[Columns] = []
        self._instead = instead

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        self.asked.append(columns)
        x = columns["x"]
        return {"value": x * 2, "kind": np.ones(len(x), np.int64), **self._instead}

    def close(self) -> None: ...


def rows(*values: float) -> Columns:
    return {"x": np.array(values, np.float32)}


def test_it_predicts_and_flags() -> None:
    engine = Engine(SIGNATURE, Doubling(), ref="m:1")
    result = engine.predict(rows(1, 20))
    assert result.outputs["value"].tolist() == [2, 40]
    assert result.flags == (Flag(1, "x", "CL-E109"),)


def test_refused_rows_never_reach_the_model() -> None:
    runtime = Doubling()
    engine = Engine(SIGNATURE, runtime, ref="m:1", on_invalid="reject")
    with pytest.raises(InputError):
        engine.predict(rows(1, 20))
    assert runtime.asked == []


def test_an_answer_comes_from_the_cache_with_its_own_flags() -> None:
    runtime = Doubling()
    engine = Engine(SIGNATURE, runtime, ref="m:1", digest="d", cache=Cache(size=10_000))
    first = engine.predict(rows(20))
    second = engine.predict(rows(20))
    assert len(runtime.asked) == 1
    assert second.outputs["value"].tolist() == first.outputs["value"].tolist() == [40]
    assert second.flags == first.flags == (Flag(0, "x", "CL-E109"),)
    assert engine.predict(rows(3)).outputs["value"].tolist() == [6]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_the_models_failure(value: float) -> None:
    engine = Engine(SIGNATURE, Doubling(value=np.array([1, value], np.float32)), ref="m:1")
    with pytest.raises(ModelError, match="m:1 answered `value` with a number that is not finite") as raised:
        engine.predict(rows(1, 2))
    assert raised.value.code == "CL-E900"


def test_the_largest_numbers_are_finite_though_their_sum_is_not() -> None:
    largest = np.full(2, np.finfo(np.float32).max)
    engine = Engine(SIGNATURE, Doubling(value=largest), ref="m:1")
    assert engine.predict(rows(1, 2)).outputs["value"].tolist() == largest.tolist()


def test_as_many_rows_come_out_as_went_in() -> None:
    engine = Engine(SIGNATURE, Doubling(kind=np.ones(3, np.int64)), ref="m:1")
    with pytest.raises(ModelError, match="m:1 answered 3 rows of `kind` to 2") as raised:
        engine.predict(rows(1, 2))
    assert raised.value.code == "CL-E901"


def test_the_sizes_of_open_axes_are_noted_where_there_are_any() -> None:
    tokens = Signature(inputs=(Field(name="x", datatype="FP32", shape=(-1, -1)),), outputs=SIGNATURE.outputs)
    open_axes = Engine(tokens, Doubling(), ref="m:1")
    assert open_axes.prepare({"x": np.zeros((2, 7), np.float32)}).sizes == (7,)
    assert Engine(SIGNATURE, Doubling(), ref="m:1").prepare(rows(1)).sizes == ()
