"""scikit-learn models become ONNX that answers as they do, or are refused in words."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC
from tests.conformance.models import mixed_pipeline, passengers

from cloche.bundle.converters.base import Converted, ConvertOptions
from cloche.bundle.converters.sklearn import SklearnConverter, check_packages, check_protobuf
from cloche.core.errors import ConversionError, InputError, MissingExtraError
from cloche.runtimes.base import RuntimePlace, load_runtime
from cloche.runtimes.files import Held

FRAME, ANSWER = passengers(400)
MODEL = "model/model.onnx"


def convert(model: Any, rows: Any, **options: Any) -> Converted:
    return SklearnConverter().convert(model, rows, ConvertOptions(**options))


def run(converted: Converted, columns: Any) -> Any:
    files = converted.files
    place = RuntimePlace(digest="")
    return load_runtime(converted.runtime, converted.signature, Held(files), place).run(columns)


def outputs(converted: Converted) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(field.name, field.datatype, field.shape) for field in converted.signature.outputs]


def test_a_frame_gives_one_input_a_column_of_its_own_name_and_type() -> None:
    converted = convert(mixed_pipeline(LogisticRegression()).fit(FRAME, ANSWER), FRAME)
    assert [(field.name, field.datatype, field.shape) for field in converted.signature.inputs] == [
        ("age", "INT64", (-1,)),
        ("fare paid, €", "FP64", (-1,)),
        ("port", "BYTES", (-1,)),
        ("adult", "BOOL", (-1,)),
    ]
    assert outputs(converted) == [("label", "INT64", (-1,)), ("probabilities", "FP64", (-1, 2))]
    assert converted.signature.outputs[1].classes == ("0", "1")
    assert converted.task == "classification"
    assert converted.description == "Pipeline(ColumnTransformer, LogisticRegression)"
    assert converted.framework.startswith("scikit-learn 1.")
    assert converted.original_bytes > len(converted.files[MODEL])
    assert converted.original_row_s is not None and converted.original_row_s > 0


@pytest.mark.parametrize("dtype", ["FP32", "FP64"])
def test_an_array_gives_one_input_x_of_its_type(dtype: str) -> None:
    X = np.random.default_rng(0).normal(size=(50, 3)).astype({"FP32": np.float32, "FP64": np.float64}[dtype])
    converted = convert(LinearRegression().fit(X, X[:, 0]), X)
    assert [(f.name, f.datatype, f.shape) for f in converted.signature.inputs] == [("x", dtype, (-1, 3))]
    assert outputs(converted) == [("value", dtype, (-1,))]
    assert converted.task == "regression"


ENCODERS = {
    "one-hot beside missing values": OneHotEncoder(handle_unknown="ignore"),
    "one-hot without the first": OneHotEncoder(drop="first", handle_unknown="ignore"),
    "one-hot without one of two": OneHotEncoder(drop="if_binary"),
    "one-hot with rare ones joined": OneHotEncoder(min_frequency=130, handle_unknown="infrequent_if_exist"),
    "ordinal": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "ordinal with its own missing": OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2
    ),
    "most frequent, then one-hot": make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_answer_as_they_do_for_missing_and_unknown_strings(name: str) -> None:
    columns = ColumnTransformer([("words", ENCODERS[name], ["port"]), ("age", "passthrough", ["age"])])
    model = make_pipeline(columns, HistGradientBoostingClassifier(max_iter=15)).fit(FRAME, ANSWER)
    converted = convert(model, FRAME)
    strange = FRAME.head(5).assign(port=["S", "Z", "unheard of", None, "Q"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unknown categories
        try:
            expected = model.predict_proba(strange)
        except ValueError:
            return  # an encoder that refuses what it does not know: the engine does so before
    ports = np.array(["S", "Z", "unheard of", None, "Q"], dtype=object)
    columns_of = {"age": strange["age"].to_numpy(), "port": ports}
    given = {name: columns_of.get(name, column[:5]) for name, column in (converted.columns or {}).items()}
    np.testing.assert_allclose(run(converted, given)["probabilities"], expected, rtol=1e-5, atol=1e-6)


def test_encoders_of_whole_numbers_truths_and_fractions_are_exact() -> None:
    frame = pd.DataFrame(
        {"level": [1.5, 2.5, 1.7, np.nan] * 30, "code": [7, 8, 9, 10] * 30, "on": [True, False] * 60}
    )
    words = ColumnTransformer([("all", OneHotEncoder(handle_unknown="ignore"), ["level", "code", "on"])])
    model = make_pipeline(words, LogisticRegression()).fit(frame, [0, 1, 1, 0] * 30)
    converted = convert(model, frame)
    asked = {"level": np.array([1.6, np.nan]), "code": np.array([7, 99]), "on": np.array([True, False])}
    frame_asked = pd.DataFrame(asked)
    np.testing.assert_allclose(run(converted, asked)["probabilities"], model.predict_proba(frame_asked), atol=1e-9)


X3 = np.random.default_rng(5).normal(size=(240, 4))
Y3 = np.digitize(X3[:, 0] + X3[:, 1] * X3[:, 2], [-0.5, 0.5])

MODELS = {
    "naive Bayes": (GaussianNB(), Y3),
    "neighbours": (KNeighborsClassifier(), Y3),
    "support vectors": (SVC(), Y3),
    "calibrated": (CalibratedClassifierCV(GaussianNB(), cv=3), Y3),
    "search": (GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=3), Y3),
    "vote": (VotingClassifier([("a", GaussianNB()), ("b", RandomForestClassifier(5))], voting="soft"), Y3),
    "stack": (
        StackingClassifier([("a", GaussianNB()), ("b", GradientBoostingClassifier(n_estimators=5))], cv=3),
        Y3,
    ),
    "support vector regression": (SVR(), X3[:, 0]),
    "network": (MLPRegressor(hidden_layer_sizes=(8,), max_iter=2000, random_state=0, tol=1e-2), X3[:, 0]),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_of_many_kinds_convert(name: str) -> None:
    model, target = MODELS[name]
    converted = convert(model.fit(X3, target), X3)
    assert converted.reference is not None
    assert outputs(converted)[0][0] in ("label", "value")


def test_a_classifier_without_probabilities_answers_labels_only() -> None:
    assert outputs(convert(LinearSVC().fit(X3, Y3), X3)) == [("label", "INT64", (-1,))]


def test_labels_keep_their_type() -> None:
    for target, datatype in ((Y3 > 0, "BOOL"), (np.array(["a", "b", "c"])[Y3], "BYTES"), (Y3 * 1.0, "INT64")):
        assert outputs(convert(LogisticRegression().fit(X3, target), X3))[0] == ("label", datatype, (-1,))


def test_several_targets_of_a_regressor_are_columns() -> None:
    assert outputs(convert(Ridge().fit(X3, X3[:, :2]), X3)) == [("value", "FP64", (-1, 2))]


def test_rows_may_come_in_another_order_and_with_more_columns_than_fit() -> None:
    model = mixed_pipeline(LogisticRegression()).fit(FRAME, ANSWER)
    shuffled = FRAME[["port", "adult", "age", "fare paid, €"]].assign(extra=1)
    assert list(convert(model, shuffled).columns or {}) == list(FRAME.columns)


def test_columns_called_like_the_outputs_do_no_harm() -> None:
    frame = pd.DataFrame(X3, columns=["label", "probabilities", "value", "t0"])
    converted = convert(make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, Y3), frame)
    assert [field.name for field in converted.signature.inputs] == list(frame.columns)


def test_columns_by_type_and_those_left_out_are_found() -> None:
    columns = ColumnTransformer(
        [("n", StandardScaler(), make_column_selector(dtype_include="int64")), ("none", "drop", ["port"])],
        remainder="passthrough",
    )
    frame = FRAME.fillna({"fare paid, €": 0.0})
    converted = convert(make_pipeline(columns, LogisticRegression()).fit(frame, ANSWER), frame)
    assert len(converted.signature.inputs) == 4


def test_without_rows_some_are_drawn_and_none_are_kept() -> None:
    converted = convert(GradientBoostingClassifier(n_estimators=3).fit(X3, Y3), None)
    assert converted.columns is None and converted.reference is None
    assert [(f.name, f.datatype, f.shape) for f in converted.signature.inputs] == [("x", "FP64", (-1, 4))]


def test_training_leftovers_are_stripped() -> None:
    model = onnx.load_from_string(
        convert(mixed_pipeline(LogisticRegression()).fit(FRAME, ANSWER), FRAME).files[MODEL]
    )
    assert not model.doc_string and not model.graph.doc_string and not model.metadata_props
    assert model.producer_name == "cloche"
    assert not model.graph.value_info and not any(node.name or node.doc_string for node in model.graph.node)
    used = {node.domain for node in model.graph.node}
    assert {each.domain for each in model.opset_import} <= used | {""}


REFUSED = {
    "a clusterer": (KMeans(2, n_init=1), X3, None, "neither a classifier nor a regressor"),
    "isotonic": (
        IsotonicRegression(),
        X3[:, 0].reshape(-1, 1),
        X3[:, 0],
        "IsotonicRegression has no counterpart in ONNX",
    ),
    "a changed target": (
        TransformedTargetRegressor(Ridge()),
        X3,
        X3[:, 0],
        "TransformedTargetRegressor has no counterpart in ONNX",
    ),
    "a threshold": (
        FixedThresholdClassifier(GaussianNB(), threshold=0.9),
        X3,
        Y3 > 0,
        "its threshold would be lost",
    ),
    "boosting by category": (
        HistGradientBoostingClassifier(categorical_features=[0], max_iter=3),
        np.abs(X3).round(),
        Y3,
        "categorical_features is not converted",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_converted_is_refused_with_the_reason(name: str) -> None:
    model, rows, target, reason = REFUSED[name]
    with pytest.raises(ConversionError, match=reason) as caught:
        convert(model.fit(rows, target), rows)
    assert "Python class" in (caught.value.hint or "")
    assert caught.value.code == "CL-E802"


def test_a_mismatch_names_rows_and_distance() -> None:
    # No tolerance at all: float32 probabilities can't pass.
    model = GradientBoostingClassifier(n_estimators=5).fit(X3, Y3)
    with pytest.raises(
        ConversionError, match=r"probabilities differs on \d+ of 240 rows \(row \d+, .*apart"
    ) as caught:
        convert(model, X3, rtol=0.0, atol=0.0)
    assert caught.value.code == "CL-E801"
    assert caught.value.details[0]["output"] == "probabilities"


def test_rows_that_the_model_itself_refuses_are_named_as_such() -> None:
    model = LogisticRegression().fit(X3, Y3)
    with pytest.raises(InputError, match="the model itself fails on these rows"):
        convert(model, X3[:, :2])
    with pytest.raises(InputError, match="the rows lack port"):
        convert(mixed_pipeline(LogisticRegression()).fit(FRAME, ANSWER), FRAME.drop(columns="port"))


def test_an_array_for_a_model_that_knows_names_is_told_how_to_be_a_frame() -> None:
    frame = pd.DataFrame(X3, columns=["a", "b", "c", "d"])
    with pytest.raises(InputError, match="fitted on a frame") as caught:
        convert(LogisticRegression().fit(frame, Y3), X3)
    assert "columns=['a', 'b', 'c', 'd']" in (caught.value.hint or "")


def test_columns_that_the_model_does_not_use_are_told() -> None:
    frame = pd.DataFrame(X3, columns=["a", "b", "c", "d"])
    converted = convert(LogisticRegression().fit(frame, Y3), frame.assign(extra=1))
    assert converted.unused == ("extra",)


def test_a_model_that_is_not_fitted_is_refused() -> None:
    with pytest.raises(ConversionError, match="LogisticRegression is not fitted"):
        convert(LogisticRegression(), X3)


def test_the_wrong_protobuf_is_refused_before_it_fails() -> None:
    check_protobuf("6.33.6")
    with pytest.raises(MissingExtraError, match=r"protobuf 7\.0\.1") as caught:
        check_protobuf("7.0.1")
    assert caught.value.hint == 'pip install "cloche[sklearn]"'


def test_every_missing_package_is_named_with_the_one_command_that_brings_it() -> None:
    check_packages()
    with pytest.raises(MissingExtraError, match="needs no_such_a and no_such_b") as caught:
        check_packages(("no_such_a", "onnx", "no_such_b"))
    assert caught.value.hint == 'pip install "cloche[sklearn]"'


def test_looking_at_a_model_imports_no_framework() -> None:
    code = (
        "import sys; from cloche.bundle.converters.base import find_converter\n"
        "try: find_converter(object())\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print(sorted({'sklearn', 'skl2onnx', 'onnx', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["ConfigError", "[]"]


def test_two_processes_make_the_same_file() -> None:
    # skl2onnx keeps operator sets in a set, whose order is each process's own
    code = """if True:
        import hashlib, numpy as np
        from sklearn.ensemble import GradientBoostingRegressor
        from cloche.bundle.converters.base import ConvertOptions, find_converter
        rows = np.arange(40.0).reshape(20, 2)
        model = GradientBoostingRegressor(n_estimators=3, random_state=0).fit(rows, rows[:, 0])
        files = find_converter(model).convert(model, rows, ConvertOptions()).files
        print(sorted((name, hashlib.sha256(data).hexdigest()) for name, data in files.items()))
    """
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": str(seed)}, check=True, stdout=subprocess.PIPE
        ).stdout
        for seed in range(4)
    }
    assert len(said) == 1
    assert b"model.onnx" in said.pop()


def test_names_that_lightgbm_gave_to_an_array_are_no_names() -> None:
    rows = np.arange(40.0).reshape(20, 2)
    model = LinearRegression().fit(pd.DataFrame(rows, columns=["Column_0", "Column_1"]), rows[:, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # scikit-learn says that the names are missing
        converted = convert(model, rows)
    assert [field.name for field in converted.signature.inputs] == ["x"]
