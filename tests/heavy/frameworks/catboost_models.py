"""CatBoost models become bundles that answer as they do; run by pytest beside CatBoost."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import catboost
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.conformance.checks import check_converter
from tests.heavy.frameworks.journey import check_journey
from tests.unit.bundle.converters.near import ODD, ROWS, ask, near_splits

import cloche
from cloche.bundle.converters._catboost import read_booster
from cloche.bundle.converters.base import Converted, ConvertOptions, find_converter
from cloche.core.errors import ConversionError

COLUMNS = 5
X = np.random.default_rng(0).normal(size=(1_000, COLUMNS))
X[::7, 1] = np.nan
X[::3, 4] = 0.0
CLASS = (X[:, 0] * X[:, 2] + np.nan_to_num(X[:, 1]) > 0).astype(int)
CLASS_OF_3 = np.digitize(X[:, 0] + X[:, 3], [-0.5, 0.5])
AMOUNT = np.exp(X[:, 0] * 0.3 + X[:, 2] * 0.5)
QUIET: dict[str, Any] = {
    "iterations": 25,
    "depth": 4,
    "verbose": 0,
    "allow_writing_files": False,
    "thread_count": 1,
}
Classifier = partial(catboost.CatBoostClassifier, **QUIET)
Regressor = partial(catboost.CatBoostRegressor, **QUIET)

CLASSIFIERS = {
    "two classes": (Classifier(), CLASS),
    "three classes": (Classifier(), CLASS_OF_3),
    "words": (Classifier(), np.array(["no", "yes"])[CLASS]),
    "truths": (Classifier(), CLASS == 1),
    "one class against the others": (Classifier(loss_function="MultiClassOneVsAll"), CLASS_OF_3),
    "what is missing is large": (Classifier(nan_mode="Max"), CLASS),
    "leaf by leaf": (Classifier(grow_policy="Lossguide"), CLASS),
    "level by level": (Classifier(grow_policy="Depthwise"), CLASS_OF_3),
}
LOSSES = ["RMSE", "MAE", "Quantile", "Huber:delta=1", "Poisson", "Tweedie:variance_power=1.5"]


def convert(model: object, rows: object | None = X) -> Converted:
    return find_converter(model).convert(model, rows, ConvertOptions())


def rows_near(model: Any, dtype: type) -> Any:
    borders = model.get_borders()
    splits = [(column, border) for column, found in borders.items() for border in found]
    return near_splits(splits, np.resize(X, (ROWS, COLUMNS)), dtype, ODD)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_answers_exactly_at_its_split_points(kind: str, dtype: type) -> None:
    model, target = CLASSIFIERS[kind]
    model.fit(X, target)
    asked = rows_near(model, dtype)
    found = ask(convert(model, X.astype(dtype)), {"x": asked})
    assert (found["label"].astype(str) == model.predict(asked).ravel().astype(str)).all()
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(asked), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_regressor_answers_exactly_at_its_split_points(loss: str, dtype: type) -> None:
    model = Regressor(loss_function=loss).fit(X, AMOUNT)
    asked = rows_near(model, dtype)
    found = ask(convert(model, X.astype(dtype)), {"x": asked})["value"]
    np.testing.assert_allclose(found, model.predict(asked), rtol=1e-14)


def test_it_keeps_the_promises_of_converters() -> None:
    for model in (Classifier().fit(X, CLASS), Regressor().fit(X, AMOUNT)):
        check_converter(find_converter(model), model, X)
    pipeline = make_pipeline(StandardScaler(), Classifier()).fit(X, CLASS)
    assert check_converter(find_converter(pipeline), pipeline, X).framework.startswith("scikit-learn")


def test_a_file_answers_as_what_was_saved(tmp_path: Path) -> None:
    for model in (Classifier().fit(X, CLASS_OF_3), Regressor(loss_function="Poisson").fit(X, AMOUNT)):
        model.save_model(str(tmp_path / "model.cbm"))
        converted = convert(tmp_path / "model.cbm")
        assert converted.description == type(model).__name__
        assert converted.files == convert(model).files


def test_what_is_not_exact_is_refused_with_a_reason() -> None:
    words = X.astype(object)
    words[:, 4] = np.resize(["a", "b", "c"], len(X))
    with pytest.raises(ConversionError, match="features of categories are not converted"):
        convert(Classifier().fit(words, CLASS, cat_features=[4]), None)
    with pytest.raises(ConversionError, match="the loss RMSEWithUncertainty"):
        convert(Regressor(loss_function="RMSEWithUncertainty").fit(X, AMOUNT), None)
    with pytest.raises(ConversionError, match="is not fitted"):
        read_booster(Regressor())


def test_it_is_served_as_it_was_packed(tmp_path: Path) -> None:
    model = Regressor().fit(X, AMOUNT)
    rows = X[:50]
    bundle = cloche.pack(model, X, AMOUNT, name="amount", directory=tmp_path)
    check_journey(bundle, tmp_path, {"x": np.nan_to_num(rows)}, model.predict(np.nan_to_num(rows)))
