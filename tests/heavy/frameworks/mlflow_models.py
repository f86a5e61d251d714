"""Folders that MLflow itself writes become bundles that answer as its own `pyfunc` does; run where MLflow is."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import lightgbm
import mlflow
import numpy as np
import pytest
import xgboost
from mlflow.models import infer_signature
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.heavy.frameworks.journey import check_journey

import cloche

X, Y = load_iris(return_X_y=True, as_frame=True)
X = X.set_axis(["a", "b", "c", "d"], axis=1)
MODEL = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
ROWS = {name: X[name].to_numpy() for name in X}


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def save(folder: Path, kind: str) -> Any:
    """The folder of one flavour, and the fitted model in it."""
    example = {"input_example": X[:50], "signature": infer_signature(X, Y)}
    if kind in ("skops", "cloudpickle", "pickle"):
        mlflow.sklearn.save_model(MODEL, folder, serialization_format=kind, **example)
        return MODEL
    if kind == "xgboost":
        model = xgboost.XGBClassifier(n_estimators=5).fit(X, Y)
        mlflow.xgboost.save_model(model, folder, **example)
        return model
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(X, Y)
    mlflow.lightgbm.save_model(model, folder, **example)
    return model


@pytest.mark.parametrize("kind", ["skops", "cloudpickle", "pickle", "xgboost", "lightgbm"])
@pytest.mark.parametrize("rows", [X, None], ids=["rows", "the saved example"])
def test_a_flavour_answers_as_pyfunc_does(kind: str, rows: Any, tmp_path: Path) -> None:
    save(tmp_path / "model", kind)
    wanted = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(X)
    trust = "pickle" in kind
    bundle = cloche.pack(tmp_path / "model", rows, name="iris", trust_pickle=trust, directory=tmp_path)
    with cloche.load(bundle, directory=tmp_path) as loaded:
        assert loaded.predict(X).tolist() == np.asarray(wanted).tolist()
    origin = bundle.manifest.lineage.origin
    assert origin["mlflow version"] == mlflow.__version__
    assert json.loads(json.loads(origin["mlflow signature"])["inputs"])[0]["name"] == "a"


def test_a_boosters_score_is_the_likelier_class(tmp_path: Path) -> None:
    booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(X, label=Y > 0), 5)
    mlflow.xgboost.save_model(booster, tmp_path / "model")
    wanted = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(X)
    bundle = cloche.pack(tmp_path / "model", X, name="iris", directory=tmp_path)
    with cloche.load(bundle, directory=tmp_path) as loaded:
        np.testing.assert_allclose(loaded.predict_proba(X)[:, 1], wanted, rtol=1e-4, atol=1e-6)


def test_onnx_is_taken_as_it_is(tmp_path: Path) -> None:
    numbers = X.to_numpy(np.float32)
    model = to_onnx(MODEL, numbers[:1], options={"zipmap": False})
    mlflow.onnx.save_model(model, tmp_path / "model")
    wanted = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(numbers)
    bundle = cloche.pack(tmp_path / "model", {"X": numbers}, name="iris", directory=tmp_path)
    with cloche.load(bundle, directory=tmp_path) as loaded:
        assert loaded.predict(numbers).tolist() == wanted["label"].tolist()


def test_a_logged_model_keeps_its_run_and_goes_the_whole_way(tmp_path: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("e", artifact_location=str(tmp_path / "mlruns"))
    mlflow.set_experiment("e")
    with mlflow.start_run() as run:
        logged = mlflow.sklearn.log_model(MODEL, name="model", input_example=X[:50])
    folder = mlflow.artifacts.download_artifacts(logged.model_uri)
    bundle = cloche.pack(folder, X, Y, name="iris", directory=tmp_path)
    assert bundle.manifest.lineage.origin["mlflow run"] == run.info.run_id
    check_journey(bundle, tmp_path, ROWS, MODEL.predict(X))


def test_a_function_is_refused_with_the_way_out(tmp_path: Path) -> None:
    class Own(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input

    mlflow.pyfunc.save_model(tmp_path / "model", python_model=Own())
    with pytest.raises(cloche.ConversionError, match="python_function") as caught:
        cloche.pack(tmp_path / "model", X, name="own", directory=tmp_path)
    assert "mlflow.pyfunc.load_model" in (caught.value.hint or "")


def test_packing_imports_no_mlflow(tmp_path: Path) -> None:
    save(tmp_path / "model", "skops")
    code = (
        "import sys; from pathlib import Path; import cloche\n"
        "cloche.pack(Path('model'), name='iris', directory='.')\n"
        "print('mlflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.split() == ["False"]
