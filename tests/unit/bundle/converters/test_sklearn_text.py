"""Pipelines on raw text answer as scikit-learn does, or are refused with the reason."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import MaxAbsScaler, Normalizer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from tests.conformance.checks import check_converter

from cloche.bundle.converters.base import Converted, ConvertOptions, find_converter
from cloche.bundle.converters.sklearn import SklearnConverter
from cloche.bundle.pickles import convert_pickle
from cloche.core.errors import ConfigError, ConversionError, InputError
from cloche.runtimes.base import RuntimePlace, load_runtime
from cloche.runtimes.files import Held

RANDOM = np.random.default_rng(0)
WORDS = ["".join(RANDOM.choice(list("abcdefghijkéßü"), RANDOM.integers(2, 8))) for _ in range(300)]
TEXTS = [" ".join(RANDOM.choice(WORDS[: RANDOM.integers(20, 300)], 15)).capitalize() for _ in range(240)]
TWO = np.where([text[0] < "F" for text in TEXTS], "early", "late")
THREE = np.array([len(text) % 3 for text in TEXTS])

EXACT = [
    (make_pipeline(TfidfVectorizer(), LogisticRegression()), TWO),
    (make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), SGDClassifier(loss="log_loss")), THREE),
    (make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)), LinearSVC()), THREE),
    (make_pipeline(CountVectorizer(), TfidfTransformer(), MultinomialNB()), THREE),
    (make_pipeline(CountVectorizer(binary=True), ComplementNB()), THREE),
    (make_pipeline(TfidfVectorizer(), RidgeClassifier()), TWO),
    (make_pipeline(TfidfVectorizer(), Ridge()), THREE.astype(float)),
    (make_pipeline(TfidfVectorizer(dtype=np.float32), LogisticRegression()), THREE),
    (make_pipeline(TfidfVectorizer(), TruncatedSVD(10), Normalizer(), LogisticRegression()), THREE),
    (make_pipeline(TfidfVectorizer(), SelectKBest(k=50), LogisticRegression()), THREE),
    (make_pipeline(TfidfVectorizer(), SelectKBest(k=50), RandomForestClassifier(5)), TWO),
    (make_pipeline(TfidfVectorizer(), MaxAbsScaler(), LogisticRegression()), TWO),
    (make_pipeline(TfidfVectorizer(), MLPClassifier((8,), max_iter=20)), TWO),
    (make_pipeline(TfidfVectorizer(), CalibratedClassifierCV(LinearSVC(), cv=2)), TWO),
    (
        make_pipeline(
            make_union(TfidfVectorizer(), CountVectorizer(analyzer="char", ngram_range=(2, 2))),
            LogisticRegression(max_iter=1000),
        ),
        TWO,
    ),
    (
        GridSearchCV(
            make_pipeline(TfidfVectorizer(), LogisticRegression()), {"logisticregression__C": [1, 9]}, cv=2
        ),
        TWO,
    ),
]


def fit(model: Any, rows: Any, labels: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about iterations, mostly
        return model.fit(rows, labels)


def convert(model: Any, rows: Any, **options: Any) -> Converted:
    return SklearnConverter().convert(model, rows, ConvertOptions(**options))


def run(converted: Converted, columns: Any) -> Any:
    place = RuntimePlace(digest="")
    return load_runtime(converted.runtime, converted.signature, Held(converted.files), place).run(columns)


def steps(model: Any) -> str:
    model = getattr(model, "estimator", model)
    return "-".join(name for name, _ in model.steps)


@pytest.mark.parametrize(
    ("model", "labels"), EXACT, ids=lambda value: steps(value) if hasattr(value, "fit") else ""
)
def test_raw_texts_are_answered_as_the_pipeline_does(model: Any, labels: Any) -> None:
    fit(model, TEXTS, labels)
    converted = convert(model, TEXTS)
    new = ["Never seen at all", *TEXTS[::7], "", WORDS[0].upper()]
    answers = run(converted, {"text": np.array(new, object)})
    if "value" in answers:
        np.testing.assert_allclose(answers["value"], model.predict(new), rtol=1e-5)
    else:
        assert answers["label"].tolist() == model.predict(new).tolist()
    if "probabilities" in answers:
        np.testing.assert_allclose(answers["probabilities"], model.predict_proba(new), rtol=1e-4, atol=1e-6)


def test_the_converter_keeps_its_promises_on_text() -> None:
    model = fit(make_pipeline(TfidfVectorizer(), LogisticRegression()), TEXTS, TWO)
    converted = check_converter(find_converter(model), model, TEXTS)
    assert [(field.name, field.datatype, field.shape) for field in converted.signature.inputs] == [
        ("text", "BYTES", (-1,))
    ]


def test_a_linear_model_goes_past_the_vocabulary() -> None:
    model = fit(make_pipeline(TfidfVectorizer(), LogisticRegression()), TEXTS, TWO)
    converted = convert(model, TEXTS)
    assert converted.runtime.step is not None
    assert converted.runtime.step.files == ("model/weights.npy",)
    assert len(converted.files["model/model.onnx"]) < 2_000


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (TEXTS, "text"),
        (np.array(TEXTS), "text"),
        (pd.Series(TEXTS, name="review"), "review"),
        (pd.DataFrame({"review": TEXTS, "stars": 3}), "review"),
        ({"review": TEXTS}, "review"),
        ([{"text": text, "id": "x"} for text in TEXTS], "text"),
        (None, "text"),
    ],
    ids=["list", "array", "series", "frame", "dict", "dicts", "no rows"],
)
def test_texts_come_as_people_hold_them(rows: Any, name: str) -> None:
    model = fit(make_pipeline(TfidfVectorizer(), LogisticRegression()), TEXTS, TWO)
    converted = convert(model, rows)
    assert [field.name for field in converted.signature.inputs] == [name]
    assert run(converted, {name: np.array(TEXTS[:9], object)})["label"].tolist() == list(model.predict(TEXTS[:9]))
    assert (converted.columns is None) == (rows is None)


def test_rows_that_are_no_texts_are_refused() -> None:
    model = fit(make_pipeline(TfidfVectorizer(), LogisticRegression()), TEXTS, TWO)
    two = pd.DataFrame({"title": TEXTS, "body": TEXTS})
    for rows, words in [
        ("one text", "one string"),
        ([*TEXTS, None], f"`text` is NoneType in row {len(TEXTS)}"),
        ([1, 2], "`text` is int in row 0"),
        (two, "2 columns of the rows hold strings: title, body"),
        (pd.DataFrame({"n": [1]}), "no column of the rows holds strings"),
        (3, "no list of texts"),
    ]:
        with pytest.raises(InputError, match=words):
            convert(model, rows)
    with pytest.raises(ConfigError, match="there are no rows"):
        convert(model, [])


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (make_pipeline(HashingVectorizer(n_features=64), LogisticRegression()), "keeps no vocabulary"),
        (
            make_pipeline(TfidfVectorizer(tokenizer=str.split, token_pattern=None), LogisticRegression()),
            "the tokenizer of TfidfVectorizer is a function",
        ),
        (make_pipeline(TfidfVectorizer(preprocessor=str.lower), LogisticRegression()), "preprocessor of Tfidf"),
        (make_pipeline(CountVectorizer(analyzer=str.split), LogisticRegression()), "analyzer of CountVectorizer"),
        (make_pipeline(TfidfVectorizer(strip_accents=str.strip), LogisticRegression()), "strip_accents of Tfidf"),
        (make_pipeline(CountVectorizer(dtype=np.int8), LogisticRegression()), "int8, which may overflow"),
        (
            make_pipeline(
                Pipeline([("union", make_union(TfidfVectorizer(), CountVectorizer()))]),
                TfidfTransformer(),
                LogisticRegression(),
            ),
            "a TfidfTransformer behind anything but one CountVectorizer",
        ),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_what_can_not_be_exact_is_refused_with_its_reason(model: Any, reason: str) -> None:
    fit(model, TEXTS, TWO)
    with pytest.raises(ConversionError, match=reason) as caught:
        convert(model, TEXTS)
    assert caught.value.code == "CL-E802"
    assert "Python class" in (caught.value.hint or "")


def passengers() -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "age": RANDOM.integers(1, 90, len(TEXTS)),
            "title": TEXTS,
            "port": RANDOM.choice(["S", "C", None], len(TEXTS)),
            "fare": RANDOM.normal(size=len(TEXTS)),
            "body": TEXTS[::-1],
            "unused": 1.0,
        }
    )
    frame.loc[::7, "fare"] = np.nan
    return frame


@pytest.mark.parametrize(
    "last", [LogisticRegression(max_iter=500), RandomForestClassifier(5)], ids=["linear", "trees"]
)
def test_text_stands_beside_other_columns(last: Any) -> None:
    frame = passengers()
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="?"), OneHotEncoder(handle_unknown="ignore")
    )
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "fare"]),
            ("title", TfidfVectorizer(ngram_range=(1, 2)), "title"),
            ("port", words, ["port"]),
            ("body", make_pipeline(CountVectorizer(), TfidfTransformer()), "body"),
        ]
    )
    model = fit(make_pipeline(columns, last), frame, TWO)
    converted = convert(model, frame)
    assert [field.name for field in converted.signature.inputs] == ["age", "title", "port", "fare", "body"]
    assert converted.unused == ("unused",)
    assert converted.columns is not None
    answers = run(converted, converted.columns)
    np.testing.assert_allclose(answers["probabilities"], model.predict_proba(frame), rtol=1e-4, atol=1e-6)


def test_a_pickle_of_a_text_pipeline_comes_back_as_data(tmp_path: Path) -> None:
    model = fit(make_pipeline(TfidfVectorizer(), LogisticRegression()), TEXTS, TWO)
    joblib.dump(model, tmp_path / "model.joblib")
    converted = convert_pickle(tmp_path / "model.joblib", {"text": TEXTS}, ConvertOptions(), trusted=True)
    answers = run(converted, {"text": np.array(TEXTS[:5], object)})
    assert answers["label"].tolist() == list(model.predict(TEXTS[:5]))


def test_a_locale_or_a_pattern_of_the_caller_is_data_as_well() -> None:
    model = fit(make_pipeline(TfidfVectorizer(token_pattern=r"(?i)[A-ZÀ-Þ]+"), LogisticRegression()), TEXTS, TWO)
    converted = convert(model, TEXTS)
    said = msgspec.json.decode(converted.files["model/terms.json"])
    assert said["parts"][0]["pattern"] == r"(?i)[A-ZÀ-Þ]+"
