"""Boosters as steps of scikit-learn models, which are converted as one."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, StackingClassifier, StackingRegressor, VotingClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from tests.conformance.models import mixed_pipeline, passengers
from tests.unit.bundle.converters.near import ask

from cloche.bundle.converters.base import Converted, ConvertOptions, find_converter
from cloche.core.errors import ConversionError

XgbClassifier = partial(xgboost.XGBClassifier, n_estimators=10, n_jobs=1)
XgbRegressor = partial(xgboost.XGBRegressor, n_estimators=10, n_jobs=1)
LgbmClassifier = partial(lightgbm.LGBMClassifier, n_estimators=10, n_jobs=1, verbose=-1)
LgbmRegressor = partial(lightgbm.LGBMRegressor, n_estimators=10, n_jobs=1, verbose=-1)

FRAME, ANSWER = passengers()
X = np.random.default_rng(0).normal(size=(300, 5))
CLASS = (X[:, 0] * X[:, 1] > 0).astype(int)
CLASS_OF_3 = np.digitize(X[:, 0], [-0.5, 0.5])


def convert(model: Any, rows: Any) -> Converted:
    """The model converted, which `find_converter` gives to scikit-learn's converter."""
    converted = find_converter(model).convert(model, rows, ConvertOptions())
    assert converted.framework.startswith("scikit-learn")
    return converted


def check(model: Any, rows: Any) -> Converted:
    converted = convert(model, rows)
    assert converted.columns is not None
    found = ask(converted, converted.columns)
    if "value" in found:
        np.testing.assert_allclose(found["value"], model.predict(rows), rtol=1e-6)
    else:
        assert (found["label"] == model.predict(rows)).all()
        np.testing.assert_allclose(found["probabilities"], model.predict_proba(rows), rtol=1e-5, atol=2e-7)
    return converted


@pytest.mark.parametrize("make", [XgbClassifier, LgbmClassifier], ids=["xgboost", "lightgbm"])
def test_a_column_transformer_before_a_classifier(make: Any) -> None:
    words = np.where(ANSWER == 1, "yes", "no") if make is LgbmClassifier else ANSWER
    converted = check(mixed_pipeline(make()).fit(FRAME, words), FRAME)
    assert [field.datatype for field in converted.signature.inputs] == ["INT64", "FP64", "BYTES", "BOOL"]
    single = make is XgbClassifier
    assert [f.datatype for f in converted.signature.outputs] == (
        ["INT64", "FP32"] if single else ["BYTES", "FP64"]
    )


@pytest.mark.parametrize("make", [XgbRegressor, LgbmRegressor], ids=["xgboost", "lightgbm"])
def test_a_column_transformer_before_a_regressor(make: Any) -> None:
    check(mixed_pipeline(make()).fit(FRAME, ANSWER * 3.0), FRAME)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("target", [CLASS, CLASS == 1, CLASS_OF_3], ids=["two", "truths", "three"])
@pytest.mark.parametrize("make", [XgbClassifier, LgbmClassifier], ids=["xgboost", "lightgbm"])
def test_a_scaler_before_a_classifier(make: Any, target: Any, dtype: type) -> None:
    if make is XgbClassifier and target.dtype == np.bool_:
        target = target.astype(int)
    rows = X.astype(dtype)
    check(make_pipeline(StandardScaler(), make()).fit(rows, target), rows)


@pytest.mark.parametrize("make", [XgbClassifier, LgbmClassifier], ids=["xgboost", "lightgbm"])
def test_what_a_sparse_matrix_leaves_out_is_missing_to_xgboost_and_zero_to_lightgbm(make: Any) -> None:
    draw = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "word": draw.choice([f"w{i}" for i in range(30)], 400).astype(object),
            "n": draw.integers(0, 3, 400).astype(float),
        }
    )
    target = (frame["word"].str[-1].isin(list("135")) ^ (frame["n"] > 0)).astype(int)
    columns = [("word", OneHotEncoder(handle_unknown="ignore"), ["word"]), ("n", "passthrough", ["n"])]
    model = make_pipeline(ColumnTransformer(columns), make()).fit(frame, target)
    assert model[0].sparse_output_
    check(model, frame)


def test_ordinal_codes_before_lightgbm() -> None:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("port", encoder, ["port"])], remainder="passthrough")
    model = make_pipeline(columns, LgbmClassifier()).fit(FRAME, ANSWER)
    check(model, FRAME)


SEVERAL = {
    "search": GridSearchCV(XgbClassifier(), {"max_depth": [2, 3]}, cv=2),
    "vote": VotingClassifier([("a", XgbClassifier()), ("b", LgbmClassifier())], voting="soft"),
    "stack": StackingClassifier([("a", XgbClassifier()), ("b", LgbmClassifier())], cv=2),
    "stack of regressors": StackingRegressor([("a", XgbRegressor()), ("b", LgbmRegressor())], cv=2),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_models_that_hold_several(kind: str) -> None:
    check(SEVERAL[kind].fit(X, CLASS), X)


def test_trees_of_scikit_learn_beside_a_booster_are_refused_with_a_reason() -> None:
    model = VotingClassifier([("a", XgbClassifier()), ("b", RandomForestClassifier(3))], voting="soft")
    with pytest.raises(ConversionError, match="XGBClassifier and trees of scikit-learn in one model"):
        convert(model.fit(X, CLASS), X)


def test_no_other_booster_is_imported_for_a_pipeline() -> None:
    assert find_converter(make_pipeline(StandardScaler(), XgbClassifier())).name == "sklearn"
    assert find_converter(XgbClassifier()).name == "xgboost"
    assert find_converter(LgbmRegressor()).name == "lightgbm"
