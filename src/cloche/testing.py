"""For tests, yours and ours: a clock that stands still, small models, a project in a folder of its own."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from cloche.bundle.sign import Signer
from cloche.core.signature import Array
from cloche.store.database import Store

__all__ = ["FakeClock", "make_rows", "memory_store", "toy_classifier", "toy_onnx", "toy_signer"]


class FakeClock:
    """A FakeClock is a clock that moves only when it is told to; call it for the time in seconds."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move on; a clock never goes back."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self.now += seconds

    def sleep(self, seconds: float) -> None:
        """What code under test may sleep with: it takes no time."""
        self.advance(seconds)


def memory_store() -> Store:
    """A store in this process's memory, gone when it is closed."""
    return Store("sqlite://")


def toy_signer(seed: int = 0) -> Signer:
    """A signer whose key is the same for the same seed: never for anything real."""
    return Signer.of_bytes(seed.to_bytes(32, "big"))


def toy_onnx(path: Path, inputs: int = 3) -> Path:
    """Write an ONNX file that answers `value` = the sum of the columns of `x` [-1, inputs], twice.

    Needs the onnx package (`pip install "cloche[onnx]"`).
    """
    helper: Any = import_module("onnx.helper")
    onnx: Any = import_module("onnx")
    number = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["value"])],
        "toy",
        [helper.make_tensor_value_info("x", number, ["rows", inputs])],
        [helper.make_tensor_value_info("value", number, ["rows", 1])],
        [helper.make_tensor("weights", number, [inputs, 1], [2.0] * inputs)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def make_rows(count: int = 200, seed: int = 0) -> tuple[dict[str, Array], Array]:
    """Columns `age` (FP64, some missing), `visits` (INT64) and `plan` (BYTES), and labels "no" and "yes"."""
    generator = np.random.default_rng(seed)
    age = generator.normal(40.0, 12.0, count).round(1)
    visits = generator.integers(0, 30, count)
    plan = np.array(["basic", "free", "pro"], dtype=object)[generator.integers(0, 3, count)]
    chance = 1 / (1 + np.exp(-(0.08 * (age - 40) + 0.15 * (visits - 15) + (plan == "pro"))))
    labels = np.where(generator.random(count) < chance, "yes", "no")
    age[generator.random(count) < 0.05] = np.nan
    return {"age": age, "visits": visits, "plan": plan}, labels


def toy_classifier(count: int = 200, seed: int = 0) -> tuple[Any, Any, Array]:
    """A fitted scikit-learn pipeline for `make_rows`, a pandas frame of such rows, and their labels."""
    compose: Any = import_module("sklearn.compose")
    impute: Any = import_module("sklearn.impute")
    linear: Any = import_module("sklearn.linear_model")
    pipeline: Any = import_module("sklearn.pipeline")
    preprocessing: Any = import_module("sklearn.preprocessing")
    pandas: Any = import_module("pandas")
    columns, labels = make_rows(count, seed)
    frame = pandas.DataFrame(columns)
    numbers = pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler())
    words = preprocessing.OneHotEncoder(handle_unknown="ignore")
    prepare = compose.ColumnTransformer([("numbers", numbers, ["age", "visits"]), ("words", words, ["plan"])])
    model = pipeline.make_pipeline(prepare, linear.LogisticRegression())
    return model.fit(frame, labels), frame, labels
