"""Many columns of numbers become one input of the graph, and every answer stays what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import ModelProto, TensorProto, helper
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import cloche
from cloche.bundle.converters._stack import LEAST, STACKED, stack_inputs
from cloche.core.signature import Field


def rows(width: int, count: int = 200) -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {}
    for place in range(width):
        whole, few = rng.integers(-(2**40), 2**40, count), rng.random(count) < 0.5
        columns[f"c{place}"] = [rng.normal(size=count), whole, few, rng.random(count, np.float32)][place % 4]
    frame = pd.DataFrame(columns)
    return frame, frame["c0"] > 0


@pytest.mark.parametrize("width", [LEAST - 1, LEAST, 40])
def test_a_model_of_numbers_answers_alike_over_one_input_or_many(width: int, tmp_path: Path) -> None:
    X, y = rows(width)
    model = GradientBoostingClassifier(n_estimators=20, random_state=0).fit(X, y)
    bundle = cloche.pack(model, X, y, name="wide", directory=tmp_path)
    graph = onnx.load_from_string(bundle.read("model/model.onnx")).graph
    is_stacked = width >= LEAST
    assert len(graph.input) == (1 if is_stacked else width)
    assert bundle.manifest.runtime.stacked == (tuple(X.columns) if is_stacked else ())
    with cloche.load(bundle, directory=tmp_path) as loaded:
        np.testing.assert_allclose(loaded.predict_proba(X), model.predict_proba(X), rtol=1e-5)
        np.testing.assert_array_equal(loaded.predict(X[:1]), model.predict(X[:1]))


def test_beside_words_the_numbers_are_stacked_wherever_they_stand(tmp_path: Path) -> None:
    X, y = rows(20)
    X.insert(3, "word", np.where(X["c1"] > 0, "up", "down"))
    numbers = [name for name in X if name != "word"]
    columns = ColumnTransformer(
        [
            ("a", StandardScaler(), numbers[10:]),
            ("w", OneHotEncoder(), ["word"]),
            ("b", StandardScaler(), numbers[:10]),
        ]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(X, y)
    bundle = cloche.pack(model, X, y, name="mixed", directory=tmp_path)
    assert set(bundle.manifest.runtime.stacked) == set(numbers)
    graph = onnx.load_from_string(bundle.read("model/model.onnx")).graph
    assert [value.name for value in graph.input] == [STACKED, "word"]
    with cloche.load(bundle, directory=tmp_path) as loaded:
        np.testing.assert_allclose(loaded.predict_proba(X), model.predict_proba(X), rtol=1e-6)


def graph_of(*nodes: Any, outputs: int = 1, kind: int = TensorProto.INT64) -> tuple[ModelProto, list[Field]]:
    inputs = [helper.make_tensor_value_info(f"i{place}", kind, ["n", 1]) for place in range(LEAST)]
    out = [helper.make_tensor_value_info("out", kind, None)]
    fields = [Field(name=f"c{place}", datatype="INT64", shape=(-1,)) for place in range(LEAST)]
    return helper.make_model(helper.make_graph(list(nodes), "g", inputs, out)), fields


def test_whole_numbers_that_stay_whole_are_let_be() -> None:
    """As float64 those above 2 ** 53 would be others."""
    names = [f"i{place}" for place in range(LEAST)]
    model, fields = graph_of(helper.make_node("Concat", names, ["out"], axis=1))
    before = model.SerializeToString()
    assert stack_inputs(model, fields) == ()
    assert model.SerializeToString() == before


def test_a_column_that_is_also_read_alone_is_let_be() -> None:
    names = [f"i{place}" for place in range(LEAST)]
    model, fields = graph_of(
        helper.make_node("Concat", names, ["all"], axis=1),
        helper.make_node("Cast", ["all"], ["numbers"], to=TensorProto.DOUBLE),
        helper.make_node("Identity", ["i3"], ["out"]),
    )
    assert stack_inputs(model, fields) == ()
