"""XGBoost models answer as ONNX what they answer themselves, bit for bit where nothing is exponentiated."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from tests.unit.bundle.converters.near import ODD, ROWS, ask, near_splits

from cloche.bundle.converters.base import Converted, ConvertOptions, find_converter
from cloche.core.errors import ConversionError, InputError

COLUMNS = 5
X = np.random.default_rng(0).normal(size=(1_000, COLUMNS))
X[::7, 1] = np.nan
X[::3, 4] = 0.0
CLASS = (X[:, 0] * X[:, 2] + np.nan_to_num(X[:, 1]) > 0).astype(int)
CLASS_OF_3 = np.digitize(X[:, 0] + X[:, 3], [-0.5, 0.5])
AMOUNT = np.exp(X[:, 0] * 0.3 + X[:, 2] * 0.5)
SHARE = AMOUNT / (1 + AMOUNT)

# Dart and gblinear are deprecated from 3.4 on; who has fitted one packs it still.
xgboost.set_config(verbosity=0)

# One thread: more would wait for each other, and for the other tests.
Classifier = partial(xgboost.XGBClassifier, n_jobs=1)
Regressor = partial(xgboost.XGBRegressor, n_jobs=1)
# What XGBRFClassifier is; that name goes.
RandomForest = partial(Classifier, n_estimators=1, learning_rate=1.0, subsample=0.8, colsample_bynode=0.8)

CLASSIFIERS = {
    "two classes": (Classifier(n_estimators=25), CLASS),
    "three classes": (Classifier(n_estimators=10), CLASS_OF_3),
    "the class alone": (Classifier(n_estimators=10, objective="multi:softmax"), CLASS_OF_3),
    "dart": (Classifier(n_estimators=15, booster="dart", rate_drop=0.3), CLASS),
    "a random forest": (RandomForest(num_parallel_tree=15), CLASS),
    "forests of three classes": (Classifier(n_estimators=4, num_parallel_tree=3), CLASS_OF_3),
    "zero is missing": (Classifier(n_estimators=15, missing=0.0), CLASS),
    "a start of its own": (Classifier(n_estimators=15, base_score=0.2), CLASS),
}
SUMS = ["reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:squaredlogerror"]
POWERS = ["count:poisson", "reg:gamma", "reg:tweedie", "reg:logistic"]


def convert(model: object, rows: object | None = X) -> Converted:
    return find_converter(model).convert(model, rows, ConvertOptions())


def rows_near(model: Any, dtype: type) -> Any:
    booster = model if isinstance(model, xgboost.Booster) else model.get_booster()
    nodes = booster.trees_to_dataframe()
    nodes = nodes[nodes["Feature"] != "Leaf"]
    splits = list(zip(nodes["Feature"].str[1:].astype(int), nodes["Split"], strict=True))
    return near_splits(splits, np.resize(X, (ROWS, COLUMNS)), dtype, ODD)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_answers_exactly_at_its_split_points(kind: str, dtype: type) -> None:
    model, target = CLASSIFIERS[kind]
    model.fit(X, target)
    asked = rows_near(model, dtype)
    found = ask(convert(model, X.astype(dtype)), {"x": asked})
    assert (found["label"] == model.predict(asked)).all()
    # 1.2e-7 is the last bit of a float32 near one: exponentials are rounded otherwise there.
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(asked), rtol=1e-6, atol=1.3e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("objective", SUMS)
def test_sums_are_the_same_to_the_last_bit(objective: str, dtype: type) -> None:
    model = Regressor(n_estimators=25, objective=objective).fit(X, AMOUNT)
    asked = rows_near(model, dtype)
    found = ask(convert(model, X.astype(dtype)), {"x": asked})["value"]
    assert found.dtype == np.float32
    assert np.array_equal(found, model.predict(asked))


@pytest.mark.parametrize("objective", POWERS)
def test_what_is_exponentiated_differs_in_the_last_bit_at_most(objective: str) -> None:
    model = Regressor(n_estimators=25, objective=objective)
    model.fit(X, SHARE if objective == "reg:logistic" else AMOUNT)
    asked = rows_near(model, np.float64)
    np.testing.assert_allclose(ask(convert(model), {"x": asked})["value"], model.predict(asked), rtol=4e-7)


@pytest.mark.parametrize("settings", [{}, {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9]}])
def test_several_outputs_are_columns(settings: dict[str, Any]) -> None:
    target = AMOUNT if settings else np.column_stack([AMOUNT, SHARE])
    model = Regressor(n_estimators=10, **settings).fit(X, target)
    found = ask(convert(model), {"x": X})["value"]
    assert found.shape == (len(X), 2)
    assert np.array_equal(found, model.predict(X))


def test_an_estimator_stops_at_its_best_iteration_and_a_booster_does_not() -> None:
    model = Classifier(n_estimators=60, early_stopping_rounds=3, learning_rate=1.0)
    model.fit(X[:700], CLASS_OF_3[:700], eval_set=[(X[700:], CLASS_OF_3[700:])], verbose=False)
    booster = model.get_booster()
    assert model.best_iteration + 1 < booster.num_boosted_rounds()
    stopped, whole = ask(convert(model), {"x": X}), ask(convert(booster), {"x": X})
    np.testing.assert_allclose(stopped["probabilities"], model.predict_proba(X), atol=2e-7)
    np.testing.assert_allclose(whole["probabilities"], booster.predict(xgboost.DMatrix(X)), atol=2e-7)
    assert np.abs(stopped["probabilities"] - whole["probabilities"]).max() > 0.01


@pytest.mark.parametrize("objective", ["binary:logistic", "multi:softprob", "multi:softmax"])
def test_a_booster_of_classes_answers_as_the_estimator_would(objective: str) -> None:
    many = objective.startswith("multi")
    settings = {"objective": objective, "nthread": 1, **({"num_class": 3} if many else {})}
    booster = xgboost.train(settings, xgboost.DMatrix(X, CLASS_OF_3 if many else CLASS), 10)
    asked = rows_near(booster, np.float64)
    converted = convert(booster)
    found = ask(converted, {"x": asked})
    answer = booster.predict(xgboost.DMatrix(asked))
    assert converted.task == "classification"
    if objective == "multi:softmax":
        assert (found["label"] == answer).all()
    else:
        probabilities = answer if many else np.column_stack([1 - answer, answer])
        np.testing.assert_allclose(found["probabilities"], probabilities, atol=2e-7)
        assert (found["label"] == probabilities.argmax(axis=1)).all()


@pytest.mark.parametrize("suffix", [".json", ".ubj"])
def test_a_file_answers_as_what_was_saved(suffix: str, tmp_path: Path) -> None:
    classifier = Classifier(n_estimators=5).fit(X, CLASS_OF_3)
    regressor = Regressor(n_estimators=5).fit(X, AMOUNT)
    for name, model in (("class", classifier), ("amount", regressor)):
        model.save_model(tmp_path / f"{name}{suffix}")
        converted = convert(tmp_path / f"{name}{suffix}")
        assert converted.description == type(model).__name__
        assert converted.files == convert(model).files


def test_other_files_are_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"rows": []}')
    with pytest.raises(Exception, match="no converter knows the file"):
        find_converter(tmp_path / "a.json")


def test_a_damaged_file_is_refused_in_words(tmp_path: Path) -> None:
    Classifier(n_estimators=2).fit(X, CLASS).save_model(tmp_path / "m.json")
    (tmp_path / "m.json").write_bytes((tmp_path / "m.json").read_bytes()[:-400])
    with pytest.raises(ConversionError, match=r"XGBoost can't read m\.json"):
        convert(tmp_path / "m.json")


def test_columns_go_by_name_and_keep_their_types() -> None:
    frame = pd.DataFrame({"age": np.arange(200) % 70, "pay": X[:200, 0], "adult": X[:200, 2] > 0})
    frame["pay"] = frame["pay"].astype(np.float32)
    model = Classifier(n_estimators=10).fit(frame, frame["adult"] ^ (frame["age"] > 40))
    converted = convert(model, frame[["pay", "adult", "age"]].assign(other=1))
    assert [(f.name, f.datatype) for f in converted.signature.inputs] == [
        ("age", "INT64"),
        ("pay", "FP32"),
        ("adult", "BOOL"),
    ]
    assert converted.unused == ("other",)
    found = ask(converted, {name: frame[name].to_numpy() for name in frame})
    assert (found["label"] == model.predict(frame)).all()
    as_array = convert(model, frame.to_numpy(np.float64))
    assert [field.name for field in as_array.signature.inputs] == ["age", "pay", "adult"]


def test_without_rows_inputs_are_drawn() -> None:
    converted = convert(Regressor(n_estimators=3).fit(X, AMOUNT), None)
    assert converted.columns is None and converted.reference is None
    assert converted.signature.inputs[0].shape == (-1, COLUMNS)


def custom(target: Any, sums: Any) -> tuple[Any, Any]:
    return sums - target, np.ones_like(sums)


WORDS = pd.DataFrame({"port": pd.Categorical(["a", "b", "c", "d"] * 50)})
REFUSED = {
    "no trees": (lambda: Classifier(booster="gblinear").fit(np.nan_to_num(X), CLASS), "gblinear"),
    "several outputs a leaf": (
        lambda: Regressor(n_estimators=2, multi_strategy="multi_output_tree").fit(X, X[:, [0, 2]]),
        "several outputs in a leaf",
    ),
    "survival": (
        lambda: xgboost.train({"objective": "survival:cox", "nthread": 1}, xgboost.DMatrix(X, AMOUNT), 2),
        "the objective survival:cox",
    ),
    "no probabilities": (
        lambda: Classifier(n_estimators=2, objective="binary:hinge").fit(X, CLASS),
        "the objective binary:hinge",
    ),
    "its own objective": (
        lambda: Regressor(n_estimators=2, objective=custom).fit(X, AMOUNT),
        "an objective of its own",
    ),
    "not fitted": (Regressor, "is not fitted"),
    "splits by category": (
        lambda: Classifier(n_estimators=2, enable_categorical=True).fit(WORDS, [0, 1, 1, 0] * 50),
        "splits by category",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_exact_is_refused_with_a_reason(kind: str) -> None:
    make, reason = REFUSED[kind]
    with pytest.raises(ConversionError, match=reason) as caught:
        convert(make(), None)
    assert caught.value.code == "CL-E802"
    assert caught.value.hint


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match="the rows have 3 columns, and the model has 5 features"):
        convert(Regressor(n_estimators=2).fit(X, AMOUNT), X[:, :3])


def test_trees_of_one_leaf_are_a_constant() -> None:
    model = Classifier(n_estimators=2, gamma=1e9).fit(X, CLASS)
    np.testing.assert_allclose(ask(convert(model), {"x": X})["probabilities"], model.predict_proba(X), rtol=1e-6)
