"""LightGBM models answer as ONNX what they answer themselves, bit for bit where nothing is exponentiated."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from tests.unit.bundle.converters.near import ODD, ROWS, ask, near_splits

from cloche.bundle.converters.base import Converted, ConvertOptions, find_converter
from cloche.core.errors import ConversionError

COLUMNS = 6
#: The column of whole numbers that some models take for categories.
CODE = 5
random = np.random.default_rng(0)
X = random.normal(size=(1_000, COLUMNS))
X[::7, 1] = np.nan
X[::3, 4] = 0.0
X[:, CODE] = random.integers(0, 40, len(X))
CODES = np.isin(X[:, CODE], [3, 4, 5, 22, 31, 32, 39])
CLASS = ((X[:, 0] * X[:, 2] + np.nan_to_num(X[:, 1]) > 0) ^ CODES).astype(int)
CLASS_OF_3 = np.digitize(X[:, 0] + X[:, 3] + CODES, [-0.5, 0.5])
AMOUNT = np.exp(X[:, 0] * 0.3 + X[:, 2] * 0.5)
SHARE = AMOUNT / (1 + AMOUNT)
ODD_OF_DOUBLES = (*ODD, 1e300, -1e300, 1.7e308, float(np.float32(1e-35)), -float(np.float32(1e-35)))
ODD_CODES = (np.nan, 2.7, -0.5, -1.0, 30.0, 31.0, 32.0, 39.5, 40.0, 1e9, -1e9)

# One thread: more would wait for each other, and for the other tests.
QUIET: dict[str, Any] = {"n_estimators": 25, "verbose": -1, "n_jobs": 1}
Classifier = partial(lightgbm.LGBMClassifier, **QUIET)
Regressor = partial(lightgbm.LGBMRegressor, **QUIET)

CLASSIFIERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "two classes": (Classifier(), CLASS, {}),
    "three classes": (Classifier(), CLASS_OF_3, {}),
    "one class against the others": (Classifier(objective="multiclassova"), CLASS_OF_3, {}),
    "words": (Classifier(), np.array(["no", "yes"])[CLASS], {}),
    "truths": (Classifier(), CLASS == 1, {}),
    "a steeper sigmoid": (Classifier(sigmoid=2.7), CLASS, {}),
    "a random forest": (Classifier(boosting_type="rf", bagging_freq=1, bagging_fraction=0.5), CLASS, {}),
    "dart": (Classifier(boosting_type="dart"), CLASS, {}),
    "zero is missing": (Classifier(zero_as_missing=True), CLASS, {}),
    "nothing is missing": (Classifier(use_missing=False), CLASS, {}),
    "categories": (Classifier(), CLASS, {"categorical_feature": [CODE]}),
    "many sets of categories": (
        Classifier(max_cat_to_onehot=1, min_data_per_group=5, cat_smooth=1),
        CLASS_OF_3,
        {"categorical_feature": [CODE]},
    ),
    "categories and zeros": (Classifier(zero_as_missing=True), CLASS, {"categorical_feature": [CODE]}),
}
SUMS = ["regression", "regression_l1", "huber", "fair", "quantile", "mape"]
POWERS = ["poisson", "gamma", "tweedie", "cross_entropy", "cross_entropy_lambda"]


def convert(model: object, rows: object | None = X) -> Converted:
    return find_converter(model).convert(model, rows, ConvertOptions())


def rows_near(model: Any, dtype: type) -> Any:
    booster = model if isinstance(model, lightgbm.Booster) else model.booster_
    nodes = booster.trees_to_dataframe()
    nodes = nodes[nodes["decision_type"] == "<="]
    columns = nodes["split_feature"].str.removeprefix("Column_").astype(int)
    splits = list(zip(columns, nodes["threshold"].astype(float), strict=True))
    odd = ODD if dtype is np.float32 else ODD_OF_DOUBLES
    rows = near_splits(splits, np.resize(X, (ROWS, COLUMNS)), dtype, odd)
    rows[::5, CODE] = np.random.default_rng(3).choice(ODD_CODES, len(rows[::5]))
    return rows


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_answers_exactly_at_its_split_points(kind: str, dtype: type) -> None:
    model, target, how = CLASSIFIERS[kind]
    model.fit(X, target, **how)
    asked = rows_near(model, dtype)
    found = ask(convert(model, X.astype(dtype)), {"x": asked})
    assert (found["label"] == model.predict(asked)).all()
    # 2.2e-16 is the last bit of a float64 near one: exponentials are rounded otherwise there.
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(asked), rtol=1e-14, atol=3e-16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("objective", SUMS)
def test_sums_are_the_same_to_the_last_bit(objective: str, dtype: type) -> None:
    model = Regressor(objective=objective).fit(X, AMOUNT)
    asked = rows_near(model, dtype)
    found = ask(convert(model, X.astype(dtype)), {"x": asked})["value"]
    assert found.dtype == np.float64
    assert np.array_equal(found, model.predict(asked))


@pytest.mark.parametrize("objective", POWERS)
def test_what_is_exponentiated_differs_in_the_last_bits_at_most(objective: str) -> None:
    model = Regressor(objective=objective).fit(X, SHARE if "entropy" in objective else AMOUNT)
    asked = rows_near(model, np.float64)
    np.testing.assert_allclose(ask(convert(model), {"x": asked})["value"], model.predict(asked), rtol=2e-15)


@pytest.mark.parametrize("model", [Regressor(reg_sqrt=True), lightgbm.LGBMRanker(**QUIET)], ids=["root", "rank"])
def test_other_answers_are_the_same_to_the_last_bit(model: Any) -> None:
    how = {"group": [50] * 20} if isinstance(model, lightgbm.LGBMRanker) else {}
    model.fit(X, CLASS_OF_3, **how)
    assert np.array_equal(ask(convert(model), {"x": X})["value"], model.predict(X))


def test_the_best_iteration_is_the_last() -> None:
    known, new = lightgbm.Dataset(X[:700], CLASS[:700]), lightgbm.Dataset(X[700:], CLASS[700:])
    booster = lightgbm.train(
        {"objective": "binary", "learning_rate": 1.0, "num_threads": 1, "verbose": -1},
        known,
        valid_sets=[new],
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
        keep_training_booster=True,
    )
    assert booster.best_iteration < booster.current_iteration()
    found = ask(convert(booster), {"x": X})["probabilities"]
    np.testing.assert_allclose(found[:, 1], booster.predict(X), rtol=1e-14)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_booster_and_its_file_answer_as_the_estimator_would(classes: int, tmp_path: Path) -> None:
    settings = {"objective": "binary"} if classes == 2 else {"objective": "multiclass", "num_class": 3}
    target = CLASS if classes == 2 else CLASS_OF_3
    booster = lightgbm.train({**settings, "verbose": -1, "num_threads": 1}, lightgbm.Dataset(X, target), 10)
    answer = booster.predict(X)
    probabilities = np.column_stack([1 - answer, answer]) if classes == 2 else answer
    booster.save_model(tmp_path / "model.txt")
    for model in (booster, tmp_path / "model.txt"):
        found = ask(convert(model), {"x": X})
        np.testing.assert_allclose(found["probabilities"], probabilities, rtol=1e-14, atol=3e-16)
        assert (found["label"] == probabilities.argmax(axis=1)).all()


def test_other_files_are_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("trees are green")
    with pytest.raises(Exception, match="no converter knows the file"):
        find_converter(tmp_path / "a.txt")


def passengers() -> tuple[pd.DataFrame, Any]:
    count = 800
    draw = np.random.default_rng(4)
    frame = pd.DataFrame(
        {
            "fare paid": draw.normal(size=count),
            "port": pd.Categorical(draw.choice(list("SCQX"), count)),
            "deck": pd.Categorical(draw.integers(10, 50, count)),
            "ship": pd.Categorical(["Titanic"] * count),
            "age": draw.integers(1, 90, count),
            "adult": draw.random(count) < 0.5,
        }
    )
    frame.loc[::11, "port"] = None
    codes = frame["deck"].astype(int)
    answer = frame["port"].isin(["S", "C"]) ^ (frame["fare paid"] > 0) ^ codes.isin([11, 17, 30, 44])
    return frame, answer.astype(int).to_numpy()


def columns_of(converted: Converted, frame: pd.DataFrame) -> dict[str, Any]:
    """The frame as the bundle takes it."""
    given = {}
    for field in converted.signature.inputs:
        column = frame[field.name]
        values = column.astype(object).where(column.notna(), None) if field.datatype == "BYTES" else column
        given[field.name] = values.to_numpy().astype(field.numpy_type)
    return given


def test_categories_of_a_frame_go_in_as_strings_and_whole_numbers() -> None:
    frame, answer = passengers()
    model = Classifier(min_data_per_group=5).fit(frame, answer)
    converted = convert(model, frame[frame.columns[::-1]])
    assert [(field.name, field.datatype) for field in converted.signature.inputs] == [
        ("fare paid", "FP64"),
        ("port", "BYTES"),
        ("deck", "INT64"),
        ("ship", "BYTES"),
        ("age", "INT64"),
        ("adult", "BOOL"),
    ]
    strange = frame.assign(
        port=pd.Categorical(np.resize(["S", "Atlantis", "Q"], len(frame))),
        deck=pd.Categorical(np.resize([11, 99, 30], len(frame))),
    )
    for asked in (frame, strange):
        found = ask(converted, columns_of(converted, asked))
        np.testing.assert_allclose(found["probabilities"], model.predict_proba(asked), rtol=1e-14, atol=3e-16)


def test_categories_of_which_some_are_missing_may_be_numbers() -> None:
    frame, answer = passengers()
    frame.loc[::5, "deck"] = None
    model = Classifier(min_data_per_group=5).fit(frame, answer)
    converted = convert(model, frame)
    assert [field.datatype for field in converted.signature.inputs if field.name == "deck"] == ["FP64"]
    found = ask(converted, columns_of(converted, frame))
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(frame), rtol=1e-14, atol=3e-16)


def test_rows_of_a_file_tell_categories_by_their_strings() -> None:
    frame, answer = passengers()
    frame = frame.drop(columns="deck")
    model = Classifier().fit(frame, answer)
    strings = {"port": frame["port"].astype(object).where(frame["port"].notna(), None), "ship": ["Titanic"] * 800}
    rows = {name: list(strings.get(name, frame[name])) for name in frame}
    converted = convert(model, rows)
    found = ask(converted, columns_of(converted, frame))
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(frame), rtol=1e-14, atol=3e-16)


def test_categories_whose_columns_can_not_be_told_are_refused() -> None:
    frame, answer = passengers()
    model = Classifier().fit(frame, answer)
    with pytest.raises(ConversionError, match="which columns are categories can't be told"):
        convert(model, {name: list(range(5)) for name in frame})
    with pytest.raises(ConversionError, match="can't be told") as caught:
        convert(model, None)
    assert "frame" in (caught.value.hint or "")


def custom(target: Any, sums: Any) -> tuple[Any, Any]:
    return sums - target, np.ones_like(sums)


REFUSED = {
    "linear trees": (lambda: Regressor(linear_tree=True).fit(np.nan_to_num(X), AMOUNT), "linear trees"),
    "its own objective": (lambda: Regressor(objective=custom).fit(X, AMOUNT), "an objective of its own"),
    "not fitted": (Regressor, "is not fitted"),
    "no probabilities": (
        lambda: Classifier(objective="cross_entropy").fit(X, CLASS),
        "the objective cross_entropy",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_exact_is_refused_with_a_reason(kind: str) -> None:
    make, reason = REFUSED[kind]
    with pytest.raises(ConversionError, match=reason) as caught:
        convert(make(), None)
    assert caught.value.code == "CL-E802"
    assert caught.value.hint


def test_trees_of_one_leaf_are_a_constant() -> None:
    model = Regressor(min_child_samples=900).fit(X, AMOUNT)
    assert np.array_equal(ask(convert(model), {"x": X})["value"], model.predict(X))
