"""One small model for each thing that can be packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier, LGBMRegressor
from onnx import TensorProto, helper
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBClassifier, XGBRegressor

PYTHON_CLASS = '''"""Adds two numbers."""

import numpy as np


class Adder:
    def load(self):
        self.offset = 1.0

    def predict(self, a, b):
        return {"total": np.asarray(a) + np.asarray(b) + self.offset}
'''


def passengers(count: int = 300, seed: int = 0) -> tuple[pd.DataFrame, Any]:
    """Numbers, whole numbers, truths and strings, with missing values; the answer leans on all."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": random.integers(1, 90, count),
            "fare paid, €": random.normal(30.0, 10.0, count),
            "port": random.choice(["S", "C", "Q"], count).astype(object),
            "adult": random.random(count) < 0.5,
        }
    )
    answer = ((frame["age"] > 40) ^ (frame["port"] == "S")).astype(int).to_numpy()
    frame.loc[random.random(count) < 0.1, "fare paid, €"] = np.nan
    frame.loc[random.random(count) < 0.1, "port"] = None
    return frame, answer


def mixed_pipeline(final: Any) -> Any:
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="?"), OneHotEncoder(handle_unknown="ignore")
    )
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = [
        ("words", words, ["port"]),
        ("numbers", numbers, ["age", "fare paid, €"]),
        ("rest", "passthrough", ["adult"]),
    ]
    return make_pipeline(ColumnTransformer(columns), final)


def classifier() -> tuple[Any, Any]:
    random = np.random.default_rng(1)
    X = random.normal(size=(300, 6))
    return GradientBoostingClassifier(n_estimators=20).fit(X, (X[:, 0] * X[:, 1] > 0).astype(int)), X


def regressor() -> tuple[Any, Any]:
    random = np.random.default_rng(2)
    X = random.normal(size=(300, 4)).astype(np.float32)
    return RandomForestRegressor(n_estimators=10, random_state=0).fit(X, X[:, 0] * 100), X


def pipeline() -> tuple[Any, Any]:
    frame, answer = passengers()
    return mixed_pipeline(LogisticRegression()).fit(frame, np.where(answer == 1, "yes", "no")), frame


def xgboost_classifier() -> tuple[Any, Any]:
    random = np.random.default_rng(4)
    X = random.normal(size=(300, 5))
    X[::9, 2] = np.nan
    return XGBClassifier(n_estimators=10, n_jobs=1).fit(X, np.digitize(X[:, 0] * X[:, 1], [-0.3, 0.3])), X


def xgboost_regressor() -> tuple[Any, Any]:
    frame, answer = passengers()
    frame = frame.drop(columns="port")
    return XGBRegressor(n_estimators=10, n_jobs=1).fit(frame, answer * 100.0), frame


def lightgbm_classifier() -> tuple[Any, Any]:
    frame, answer = passengers()
    frame = frame.rename(columns={"fare paid, €": "fare paid"}).astype({"port": "category"})
    model = LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1)
    return model.fit(frame, np.where(answer == 1, "yes", "no")), frame


def lightgbm_regressor() -> tuple[Any, Any]:
    random = np.random.default_rng(5)
    X = random.normal(size=(300, 4)).astype(np.float32)
    return LGBMRegressor(n_estimators=10, n_jobs=1, verbose=-1).fit(X, X[:, 0] * 100), X


def boosted_pipeline() -> tuple[Any, Any]:
    frame, answer = passengers()
    return mixed_pipeline(LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1)).fit(frame, answer), frame


def onnx_file(folder: Path) -> tuple[Path, Any]:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, 2], [1.0, 0.5, -1.0, 2.0, 0.0, 3.0])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["features", "w"], ["scores"])],
        "from a test",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "linear.onnx"
    path.write_bytes(model.SerializeToString())
    return path, np.random.default_rng(3).normal(size=(50, 3)).astype(np.float32)
