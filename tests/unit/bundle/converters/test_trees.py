"""Trees decide every split as scikit-learn does: 10,000 rows at and around the split points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from tests.unit.bundle.converters.near import ODD, ROWS, ask, near_splits

from cloche.bundle.converters._forest import switch_points
from cloche.bundle.converters.base import ConvertOptions
from cloche.bundle.converters.sklearn import SklearnConverter

COLUMNS = 5

CLASSIFIERS = {
    "one tree": lambda: DecisionTreeClassifier(max_depth=8, random_state=0),
    "random forest": lambda: RandomForestClassifier(15, random_state=0),
    "shallow random forest": lambda: RandomForestClassifier(16, max_depth=3, random_state=0),
    "extra trees": lambda: ExtraTreesClassifier(10, random_state=0),
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=25, random_state=0),
    "exponential boosting": lambda: GradientBoostingClassifier(
        n_estimators=25, loss="exponential", random_state=0
    ),
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=25, random_state=0),
}
# The exponential loss is for two classes only.
CLASSIFIER_CASES = [(kind, n) for kind in CLASSIFIERS for n in (2, 3) if (kind, n) != ("exponential boosting", 3)]
REGRESSORS = {
    "one tree": lambda: DecisionTreeRegressor(max_depth=8, random_state=0),
    "random forest": lambda: RandomForestRegressor(15, random_state=0),
    "extra trees": lambda: ExtraTreesRegressor(10, random_state=0),
    "gradient boosting": lambda: GradientBoostingRegressor(n_estimators=25, random_state=0),
    "histogram boosting": lambda: HistGradientBoostingRegressor(max_iter=25, random_state=0),
    "poisson boosting": lambda: HistGradientBoostingRegressor(max_iter=25, loss="poisson", random_state=0),
}


def numbers(dtype: type, count: int = 1_000) -> Any:
    return np.random.default_rng(0).normal(size=(count, COLUMNS)).astype(dtype)


def splits(model: Any) -> list[tuple[int, float]]:
    """(column, threshold) of every inner node."""
    if hasattr(model, "_predictors"):
        nodes = np.concatenate([tree.nodes for stage in model._predictors for tree in stage])
        nodes = nodes[(nodes["is_leaf"] == 0) & np.isfinite(nodes["num_threshold"])]
        return list(zip(nodes["feature_idx"].tolist(), nodes["num_threshold"].tolist(), strict=True))
    trees = [each.tree_ for each in np.ravel(getattr(model, "estimators_", [model]))]
    return [
        (int(f), float(t)) for tree in trees for f, t in zip(tree.feature, tree.threshold, strict=True) if f >= 0
    ]


def rows_near(model: Any, dtype: type) -> Any:
    """Histogram boosting takes any number, the other trees what float32 holds and no NaN."""
    odd = ODD if hasattr(model, "_predictors") else ()
    return near_splits(splits(model), numbers(dtype, ROWS), dtype, odd)


def answers(model: Any, rows: Any, asked: Any) -> Any:
    return ask(SklearnConverter().convert(model, rows, ConvertOptions()), {"x": asked})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("kind", "classes"), CLASSIFIER_CASES)
def test_a_classifier_answers_exactly_at_its_split_points(kind: str, classes: int, dtype: type) -> None:
    X = numbers(dtype)
    target = np.digitize(X[:, 0] * X[:, 1] + X[:, 2], np.linspace(-1, 1, classes + 1)[1:-1])
    model = CLASSIFIERS[kind]().fit(X, target)
    asked = rows_near(model, dtype)
    found = answers(model, X, asked)
    assert (found["label"] == model.predict(asked)).all()
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(asked), rtol=1e-5, atol=5e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", REGRESSORS)
def test_a_regressor_answers_exactly_at_its_split_points(kind: str, dtype: type) -> None:
    X = numbers(dtype)
    model = REGRESSORS[kind]().fit(X, np.abs(X[:, 0] * 10 + X[:, 1] ** 2) + 1)
    asked = rows_near(model, dtype)
    found = answers(model, X, asked)["value"]
    assert found.shape == (ROWS,)
    np.testing.assert_allclose(found, model.predict(asked), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_scaler_before_the_trees_keeps_them_exact(dtype: type) -> None:
    X = numbers(dtype) * np.array([1, 10, 0.1, 3, 7], dtype)
    model = make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=0)).fit(X, X[:, 0] > X[:, 3])
    scaler = model[0]
    asked = (rows_near(model[1], dtype) * scaler.scale_ + scaler.mean_).astype(dtype)
    assert (answers(model, X, asked)["label"] == model.predict(asked)).all()


def test_missing_values_go_where_training_sent_them() -> None:
    X = numbers(np.float64)
    X[::3, 0] = np.nan
    target = np.isnan(X[:, 0]) | (X[:, 1] > 0)
    for model in (RandomForestClassifier(10, random_state=0), HistGradientBoostingClassifier(max_iter=10)):
        model.fit(X, target)
        found = answers(model, X, X)
        assert (found["label"] == model.predict(X)).all()
        assert found["label"].dtype == np.bool_


def test_an_exact_tie_goes_where_scikit_learn_sends_it() -> None:
    # Equal numbers of both classes in each leaf: every raw score is 0, every vote one half.
    X = np.repeat([[0.0], [1.0]], 20, axis=0)
    target = np.tile([0, 1], 20)
    for model in (
        GradientBoostingClassifier(n_estimators=3),
        DecisionTreeClassifier(),
        RandomForestClassifier(4, bootstrap=False),
        HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=5),
    ):
        model.fit(X, target)
        assert (answers(model, X, X)["label"] == model.predict(X)).all(), model


def test_a_boosted_model_whose_weights_are_all_positive_keeps_its_labels() -> None:
    # ONNX Runtime asks for more than one half where no weight is negative; 0.2 is the second class all the same.
    X = np.array([[0.0]] * 9 + [[1.0]] * 11)
    target = np.array([0, 1] * 4 + [1] + [1] * 6 + [0] * 5)
    model = GradientBoostingClassifier(n_estimators=1, init="zero").fit(X, target)
    assert (model.decision_function(X) > 0).all()
    assert (model.decision_function(X) < 0.5).all()
    assert (answers(model, X, X)["label"] == model.predict(X)).all()


def test_a_switch_point_asks_the_question_of_float32() -> None:
    random = np.random.default_rng(2)
    thresholds = np.concatenate(
        [random.normal(size=2_000), random.normal(size=2_000).astype(np.float32), [0.0, -0.0]]
    )
    points = switch_points(thresholds.astype(np.float64))
    for asked in (points, np.nextafter(points, np.inf), np.nextafter(points, -np.inf), thresholds):
        assert ((asked.astype(np.float32) <= thresholds) == (asked <= points)).all()


def test_boosting_from_another_model_is_refused() -> None:
    X = numbers(np.float64, 200)
    model = GradientBoostingClassifier(n_estimators=2, init=DecisionTreeClassifier()).fit(X, X[:, 0] > 0)
    with pytest.raises(Exception, match="boosting that starts from a DecisionTreeClassifier is not converted"):
        answers(model, X, X)


@pytest.mark.parametrize("model", [DecisionTreeClassifier(), RandomForestClassifier(3)])
@pytest.mark.parametrize("only", [7, "yes"])
def test_a_model_that_saw_one_class_says_that_class(model: Any, only: object) -> None:
    rows = numbers(np.float64, 50)
    fitted = clone(model).fit(rows, np.full(50, only))
    found = answers(fitted, rows, rows)
    assert set(found["label"].tolist()) == {only}
    assert found["probabilities"].tolist() == [[1.0]] * 50
