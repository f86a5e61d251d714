"""Baseline quality, with scikit-learn as the oracle."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
    precision_score,
    r2_score,
    recall_score,
    roc_auc_score,
)

from cloche.bundle.quality import MAX_KNOTS, assess, calibrate, check_labels, roc_auc
from cloche.core.errors import ConfigError
from cloche.core.signature import Array, Columns, Field, Signature


def classifier(datatype: str, *classes: str) -> Signature:
    return Signature(
        inputs=(),
        outputs=(
            Field(name="label", datatype=datatype, shape=(-1,), classes=classes),
            Field(name="probabilities", datatype="FP64", shape=(-1, len(classes)), classes=classes),
        ),
    )


REGRESSOR = Signature(inputs=(), outputs=(Field(name="value", datatype="FP64", shape=(-1,)),))


def draw(classes: int, rows: int = 500, seed: int = 0) -> tuple[Array, Array]:
    """True class numbers, and probabilities that know something of them (rounded: there are ties)."""
    generator = np.random.default_rng(seed)
    true = generator.integers(0, classes, rows)
    raw = generator.random((rows, classes)).round(1) + 0.05
    raw[np.arange(rows), true] += 0.4
    return true, raw / raw.sum(axis=1, keepdims=True)


def test_two_classes_of_words_are_as_scikit_learn_says() -> None:
    true, scores = draw(2)
    names = np.array(["no", "yes"], dtype=object)
    given_, wanted = names[scores.argmax(axis=1)], names[true]
    outputs: Columns = {"label": given_, "probabilities": scores}
    metrics, holdout = assess("classification", classifier("BYTES", "no", "yes"), outputs, wanted)
    assert metrics == pytest.approx(
        {
            "accuracy": accuracy_score(wanted, given_),
            "precision": precision_score(wanted, given_, pos_label="yes"),
            "recall": recall_score(wanted, given_, pos_label="yes"),
            "f1": f1_score(wanted, given_, pos_label="yes"),
            "roc_auc": roc_auc_score(wanted == "yes", scores[:, 1]),
        }
    )
    assert holdout is not None
    assert holdout.loss_mean == pytest.approx(log_loss(true, scores))
    assert holdout.confusion is not None
    np.testing.assert_array_equal(holdout.confusion, confusion_matrix(wanted, given_))
    assert holdout.calibration is not None
    assert holdout.calibration.of == "probability"


@pytest.mark.parametrize("classes", [3, 7])
def test_many_classes_are_as_scikit_learn_s_macro_means(classes: int) -> None:
    true, scores = draw(classes)
    given_ = scores.argmax(axis=1)
    signature = classifier("INT64", *map(str, range(classes)))
    outputs: Columns = {"label": given_, "probabilities": scores}
    metrics, holdout = assess("classification", signature, outputs, true)
    assert metrics == pytest.approx(
        {
            "accuracy": accuracy_score(true, given_),
            "precision": precision_score(true, given_, average="macro"),
            "recall": recall_score(true, given_, average="macro"),
            "f1": f1_score(true, given_, average="macro"),
            "roc_auc": roc_auc_score(true, scores, multi_class="ovr", average="macro"),
        }
    )
    assert holdout is not None
    assert holdout.calibration is not None
    assert holdout.calibration.of == "confidence"


@pytest.mark.parametrize("dtype", [np.int64, np.float64, np.bool_])
def test_labels_may_come_as_integers_floats_or_truth_values(dtype: type) -> None:
    true, scores = draw(2)
    outputs: Columns = {"label": scores.argmax(axis=1), "probabilities": scores}
    metrics, _ = assess("classification", classifier("INT64", "0", "1"), outputs, true.astype(dtype))
    assert metrics is not None
    assert metrics["accuracy"] == pytest.approx(accuracy_score(true, scores.argmax(axis=1)))


def test_labels_that_the_model_never_learnt_count_as_wrong() -> None:
    true, scores = draw(3)
    given_ = np.minimum(scores.argmax(axis=1), 1)
    outputs: Columns = {"label": given_}
    metrics, _ = assess("classification", classifier("INT64", "0", "1"), outputs, true)
    assert metrics is not None
    assert metrics["accuracy"] == pytest.approx(accuracy_score(true, given_))
    assert metrics["f1"] == pytest.approx(f1_score(true, given_, average="macro"))


def test_classes_that_nobody_named_are_those_that_were_seen() -> None:
    signature = Signature(inputs=(), outputs=(Field(name="label", datatype="BYTES", shape=(-1,)),))
    given_ = np.array(["no", "yes", "yes", "yes"], dtype=object)
    metrics, holdout = assess("classification", signature, {"label": given_}, ["no", "no", "yes", "yes"])
    assert metrics == pytest.approx({"accuracy": 0.75, "precision": 2 / 3, "recall": 1.0, "f1": 0.8})
    assert holdout is None


def test_a_class_that_is_never_right_has_no_precision() -> None:
    outputs: Columns = {"label": np.zeros(4, dtype=np.int64)}
    metrics, _ = assess("classification", classifier("INT64", "0", "1"), outputs, [0, 0, 1, 1])
    assert metrics == {"accuracy": 0.5, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_numbers_are_as_scikit_learn_says() -> None:
    generator = np.random.default_rng(0)
    true = generator.normal(size=300)
    given_ = true + generator.normal(size=300)
    metrics, holdout = assess("regression", REGRESSOR, {"value": given_}, true)
    assert metrics == pytest.approx(
        {
            "mae": mean_absolute_error(true, given_),
            "rmse": mean_squared_error(true, given_) ** 0.5,
            "r2": r2_score(true, given_),
        }
    )
    assert holdout is not None
    assert holdout.loss_mean == pytest.approx(mean_squared_error(true, given_))


def test_without_spread_there_is_no_r2() -> None:
    metrics, _ = assess("regression", REGRESSOR, {"value": np.array([1.0, 2.0])}, [1.0, 1.0])
    assert metrics == {"mae": 0.5, "rmse": pytest.approx(0.5**0.5)}


@pytest.mark.parametrize("labels", [[1.0], [1.0, np.nan], ["a", "b"], [1.0, np.inf], 3.0])
def test_labels_that_do_not_fit_are_refused(labels: object) -> None:
    with pytest.raises(ConfigError) as caught:
        assess("regression", REGRESSOR, {"value": np.array([1.0, 2.0])}, labels)
    assert caught.value.code == "CL-E204"


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_a_missing_label_is_no_class(missing: object) -> None:
    labels = np.array(["0", missing], dtype=object)
    with pytest.raises(ConfigError, match="1 labels are missing"):
        assess("classification", classifier("INT64", "0", "1"), {"label": np.array([0, 1])}, labels)


def test_labels_may_be_a_frame_of_one_column() -> None:
    frame = pd.DataFrame({"y": [1.0, 2.0]})
    metrics, _ = assess("regression", REGRESSOR, {"value": np.array([1.0, 2.0])}, frame)
    assert metrics == {"mae": 0.0, "rmse": 0.0, "r2": 1.0}


def test_other_models_have_no_quality() -> None:
    other = Signature(inputs=(), outputs=(Field(name="vector", datatype="FP32", shape=(-1, 2)),))
    assert assess("other", other, {"vector": np.zeros((3, 2))}, [1, 2, 3]) == (None, None)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=60))
def test_roc_auc_counts_ties_as_half(pairs: list[tuple[bool, int]]) -> None:
    positive = np.array([hit for hit, _ in pairs])
    scores = np.array([score for _, score in pairs], dtype=np.float64)
    found = roc_auc(positive, scores)
    if positive.all() or not positive.any():
        assert found is None
    else:
        assert found == pytest.approx(roc_auc_score(positive, scores))


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=150))
def test_the_calibration_map_is_isotonic_regression(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([score / 30 for score, _ in pairs])
    hits = np.array([hit for _, hit in pairs])
    knots, shares = calibrate(scores, hits)
    wanted = IsotonicRegression().fit(scores, hits.astype(float)).predict(scores)
    np.testing.assert_allclose(np.interp(scores, knots, shares), wanted, atol=1e-9)


def test_a_map_of_many_rows_has_few_knots_and_stays_close() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random(200_000)
    hits = generator.random(200_000) < scores**2
    knots, shares = calibrate(scores, hits)
    assert len(knots) <= MAX_KNOTS
    assert (np.diff(knots) > 0).all()
    assert (np.diff(shares) >= 0).all()
    grid = np.linspace(0.05, 0.95, 50)
    np.testing.assert_allclose(np.interp(grid, knots, shares), grid**2, atol=0.02)


def test_more_blocks_than_knots_are_merged() -> None:
    scores = np.repeat(np.arange(300) / 300, 300)
    hits = np.concatenate([np.arange(300) < count for count in range(300)])
    knots, shares = calibrate(scores, hits)
    assert 100 <= len(knots) <= MAX_KNOTS
    np.testing.assert_allclose(np.interp(scores, knots, shares), scores, atol=0.01)


def test_the_name_of_a_column_is_no_label() -> None:
    with pytest.raises(ConfigError) as caught:
        check_labels("target", 3)
    assert caught.value.hint == "give the column itself: y=X['target']"
    with pytest.raises(ConfigError, match="2 labels for 3 rows") as caught:
        check_labels([1, 2], 3)
    assert "same rows" in (caught.value.hint or "")


def test_a_plain_list_of_labels_is_measured_where_the_labels_are_of_its_type() -> None:
    signature = Signature(inputs=(), outputs=(Field(name="value", datatype="BYTES", shape=(-1,)),))
    outputs = {"value": np.array(["good", "bad", "bad"], dtype=object)}
    quality, _ = assess("other", signature, outputs, ["good", "bad", "good"])
    assert quality is not None and quality["accuracy"] == pytest.approx(2 / 3)
    assert assess("other", signature, outputs, [1, 2, 3]) == (None, None)
