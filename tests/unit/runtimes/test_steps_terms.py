"""The step that counts terms gives scikit-learn's own numbers, to the last digit."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from cloche.bundle.converters._terms import read_terms
from cloche.bundle.converters._texts import HARD
from cloche.core.errors import ModelError
from cloche.runtimes.base import StepSpec
from cloche.runtimes.steps_terms import TermsFile, TermsStep

TEXTS = [
    *HARD,
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "Ein Überraschungsei — für 3,50 €! Straße und STRASSE, naïve façade.",
    "to be or not to be that is the question to be",
    "dot.separated.words under_scored 42 0042 x y z",
] * 2

VECTORIZERS = [
    TfidfVectorizer(),
    TfidfVectorizer(ngram_range=(1, 3), sublinear_tf=True, min_df=2),
    TfidfVectorizer(lowercase=False, norm="l1", smooth_idf=False),
    TfidfVectorizer(strip_accents="unicode", stop_words="english", use_idf=False),
    TfidfVectorizer(strip_accents="ascii", norm=None, binary=True, ngram_range=(2, 2)),
    TfidfVectorizer(stop_words=["t", "q"], token_pattern=r"(?u)(\w)\w*"),
    TfidfVectorizer(analyzer="char", ngram_range=(1, 4)),
    TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), strip_accents="unicode"),
    TfidfVectorizer(vocabulary=["dog", "fox", "be", "never in them"]),
    CountVectorizer(ngram_range=(1, 2), max_features=20),
    CountVectorizer(binary=True, token_pattern=r"[^\s,]+"),
]


def name_of(vectorizer: Any) -> str:
    changed = {k: v for k, v in vectorizer.get_params().items() if v != type(vectorizer)().get_params()[k]}
    return f"{type(vectorizer).__name__}({changed})"[:60]


def step_of(vectorizer: Any, **file: Any) -> TermsStep:
    parts, _ = read_terms([vectorizer], "text")
    return TermsStep(TermsFile(parts=tuple(parts), datatype="FP64", **file), "terms", None)


def run(step: TermsStep, texts: list[str]) -> Any:
    chunks = [tensors["terms"] for _, tensors in step.run({"text": np.array(texts, object)})]
    return np.concatenate(chunks)


@pytest.mark.parametrize("vectorizer", VECTORIZERS, ids=name_of)
def test_it_gives_the_vectorisers_own_numbers(vectorizer: Any) -> None:
    # not fit_transform's, which adds in another order
    wanted = vectorizer.fit(TEXTS).transform(TEXTS).toarray()
    assert np.array_equal(run(step_of(vectorizer), TEXTS), wanted)


FITTED = [(vectorizer.fit(TEXTS), step_of(vectorizer)) for vectorizer in VECTORIZERS]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), min_size=1, max_size=3))
def test_it_does_so_for_any_text(texts: list[str]) -> None:
    for vectorizer, step in FITTED:
        assert np.array_equal(run(step, texts), vectorizer.transform(texts).toarray()), vectorizer


def test_weights_give_the_product_and_cost_no_features() -> None:
    vectorizer = TfidfVectorizer()
    features = vectorizer.fit_transform(TEXTS).toarray()
    weights = np.random.default_rng(0).normal(size=(features.shape[1], 3))
    parts, _ = read_terms([vectorizer], "text")
    step = TermsStep(TermsFile(parts=tuple(parts), datatype="FP64"), "terms", weights)
    np.testing.assert_allclose(run(step, TEXTS), features @ weights, rtol=1e-12, atol=1e-15)


def test_only_the_features_that_are_kept_are_given() -> None:
    vectorizer = TfidfVectorizer()
    features = vectorizer.fit(TEXTS).transform(TEXTS).toarray()
    assert np.array_equal(run(step_of(vectorizer, kept=(5, 1, 2)), TEXTS), features[:, [5, 1, 2]])


def test_many_rows_come_in_chunks_and_none_in_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloche.runtimes.steps_terms._MOST_NUMBERS", 200)
    vectorizer = CountVectorizer()
    features = vectorizer.fit_transform(TEXTS).toarray()
    step = step_of(vectorizer)
    chunks = list(step.run({"text": np.array(TEXTS, object)}))
    assert len(chunks) > 3
    assert np.array_equal(np.concatenate([tensors["terms"] for _, tensors in chunks]), features)
    (_, nothing), *more = step.run({"text": np.array([], object)})
    assert nothing["terms"].shape == (0, features.shape[1]) and not more


def file_of(**changes: Any) -> bytes:
    parts, _ = read_terms([CountVectorizer().fit(["a text"])], "text")
    parts = [msgspec.structs.replace(parts[0], **changes)]
    return msgspec.json.encode(TermsFile(parts=tuple(parts), datatype="FP64"))


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


@pytest.mark.parametrize(
    ("terms", "weights"),
    [
        (b"{", None),
        (file_of(pattern="("), None),
        (file_of(idf=(1.0, 2.0)), None),
        (file_of(), npy(np.zeros((5, 2)))),
        (file_of(), npy(np.array([{}], object))),
    ],
    ids=["no JSON", "no pattern", "another number of idf", "another number of weights", "a pickle"],
)
def test_data_that_do_not_fit_are_refused(terms: bytes, weights: bytes | None) -> None:
    files = {"model/terms.json": terms} | ({} if weights is None else {"model/weights.npy": weights})
    others = () if weights is None else ("model/weights.npy",)
    spec = StepSpec(kind="terms", entry="model/terms.json", files=others, inputs=("text",), outputs=("terms",))
    with pytest.raises(ModelError):
        TermsStep.load(spec, files.__getitem__)
