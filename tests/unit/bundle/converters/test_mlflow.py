"""MLflow's folders are unwrapped: the model goes to its own converter, run and signature are kept."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
import xgboost
import yaml
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import cloche
from cloche.bundle.converters.base import Converted, ConvertOptions, find_converter
from cloche.bundle.converters.mlflow import MlflowConverter
from cloche.core.errors import ConfigError, ConversionError, RefusedError
from cloche.runtimes.base import RuntimePlace, load_runtime
from cloche.runtimes.files import Held
from cloche.testing import toy_onnx

X, Y = load_iris(return_X_y=True, as_frame=True)
NAMES = list(X)
SIGNATURE = {"inputs": json.dumps([{"type": "double", "name": name} for name in NAMES])}


def write(folder: Path, flavour: str, said: dict[str, Any], **more: Any) -> Path:
    """A folder as MLflow 3.17 writes it, but for the files of the flavour."""
    folder.mkdir(exist_ok=True)
    flavours = {flavour: said, "python_function": {"loader_module": f"mlflow.{flavour}"}}
    told = {"flavors": flavours, "mlflow_version": "3.17.2", "run_id": "8a1c", "signature": SIGNATURE} | more
    (folder / "MLmodel").write_text(yaml.safe_dump(told))
    return folder


def convert(folder: Path, rows: Any = X, **options: Any) -> Converted:
    converter = find_converter(folder)
    assert isinstance(converter, MlflowConverter)
    return converter.convert(folder, rows, ConvertOptions(**options))


def run(converted: Converted, rows: Any) -> Any:
    place = RuntimePlace(digest="")
    runtime = load_runtime(converted.runtime, converted.signature, Held(converted.files), place)
    return runtime.run({name: rows[name].to_numpy() for name in rows})


@pytest.fixture
def pickled(tmp_path: Path) -> tuple[Path, Any]:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    said = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}
    folder = write(tmp_path / "model", "sklearn", said)
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    return folder, model


def test_a_pickle_is_read_only_when_it_is_trusted(pickled: tuple[Path, Any]) -> None:
    with pytest.raises(RefusedError, match=r"model\.pkl is a pickle") as caught:
        convert(pickled[0])
    assert caught.value.code == "CL-E407"


def test_it_answers_as_before_and_run_and_signature_stay_in_the_lineage(
    pickled: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, model = pickled
    bundle = cloche.pack(folder, X, Y, name="iris", trust_pickle=True, directory=tmp_path)
    with cloche.load(bundle, directory=tmp_path) as loaded:
        assert loaded.predict(X).tolist() == model.predict(X).tolist()
        np.testing.assert_allclose(loaded.predict_proba(X), model.predict_proba(X), rtol=1e-4, atol=1e-6)
    origin = bundle.manifest.lineage.origin
    assert origin["mlflow run"] == "8a1c" and origin["mlflow version"] == "3.17.2"
    assert json.loads(json.loads(origin["mlflow signature"])["inputs"])[0]["name"] == NAMES[0]
    assert "mlflow run: `8a1c`" in bundle.read("card.md").decode()


@pytest.mark.parametrize(
    "example", [{"columns": ["x", "id"], "data": [[[1.0, 2.0, 3.0], 7]] * 4}, {"inputs": [[1.0, 2.0, 3.0]] * 4}]
)
def test_the_saved_example_stands_in_for_rows(example: Any, tmp_path: Path) -> None:
    info = {"artifact_path": "in.json"}
    folder = write(tmp_path / "model", "onnx", {"data": "model.onnx"}, saved_input_example_info=info)
    toy_onnx(folder / "model.onnx")
    (folder / "in.json").write_text(json.dumps(example))
    converted = convert(folder, None)
    assert converted.columns is not None
    assert converted.columns["x"].tolist() == [[1.0, 2.0, 3.0]] * 4


def test_an_onnx_flavour_is_its_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "onnx", {"data": "model.onnx"})
    toy_onnx(folder / "model.onnx")
    onnx.checker.check_model(onnx.load(folder / "model.onnx"))
    assert convert(folder, None).signature.inputs[0].shape == (-1, 3)


@pytest.mark.parametrize("kind", ["XGBClassifier", "Booster"])
def test_xgboost_keeps_the_class_that_was_logged(kind: str, tmp_path: Path) -> None:
    model = xgboost.XGBClassifier(n_estimators=5).fit(X, Y)
    said = {"data": "model.ubj", "model_class": f"xgboost.sklearn.{kind}"}
    folder = write(tmp_path / "model", "xgboost", said)
    model.save_model(folder / "model.ubj")
    converted = convert(folder)
    assert converted.description == kind
    answers = run(converted, X)
    np.testing.assert_allclose(answers["probabilities"], model.predict_proba(X), rtol=1e-4, atol=1e-6)


def test_lightgbms_text_is_read(tmp_path: Path) -> None:
    frame = X.set_axis(list("abcd"), axis=1)
    model = lightgbm.train({"objective": "regression", "verbose": -1}, lightgbm.Dataset(frame, label=Y), 5)
    folder = write(tmp_path / "model", "lightgbm", {"data": "model.lgb"})
    model.save_model(folder / "model.lgb")
    answers = run(convert(folder, frame), frame)
    np.testing.assert_allclose(answers["value"], model.predict(frame), rtol=1e-4, atol=1e-6)


def test_what_only_python_can_load_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "prophet", {"data": "model.pr"})
    with pytest.raises(ConversionError, match="no flavour of model is known here: prophet") as caught:
        convert(folder)
    assert "mlflow.prophet.load_model" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/passwd", "not-there.onnx"])
def test_a_file_outside_the_folder_is_not_read(name: str, tmp_path: Path) -> None:
    toy_onnx(tmp_path / "outside.onnx")
    with pytest.raises(ConversionError, match="which is not in the folder"):
        convert(write(tmp_path / "model", "onnx", {"data": name}))


@pytest.mark.parametrize("text", ["flavors: [", "- a list", "flavors: text", "!!python/object/apply:os.abort []"])
def test_a_broken_mlmodel_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(ConfigError) as caught:
        convert(tmp_path)
    assert caught.value.code == "CL-E206"
