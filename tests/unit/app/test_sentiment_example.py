"""examples/sentiment: both apps give the classic answer, on a small model of words."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from starlette.testclient import TestClient

import cloche

EXAMPLE = Path(__file__).parents[3] / "examples" / "sentiment"
TEXTS = ["a lovely film", "a lovely, quiet story", "dull and long", "a dull story"] * 10
LABELS = ["positive", "positive", "negative", "negative"] * 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentiment")
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10)).fit(TEXTS, LABELS)
    cloche.pack(model, pd.DataFrame({"text": TEXTS}), np.array(LABELS), name="sentiment", directory=folder)
    return folder


@pytest.fixture(params=["mounted", "loaded"])
def client(request: pytest.FixtureRequest, folder: Path) -> Iterator[TestClient]:
    with contextlib.chdir(folder):
        app = run(EXAMPLE / f"{request.param}.py")
        with TestClient(app) as opened:
            yield opened


def run(path: Path) -> Any:
    spec = util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pydantic looks for it there
    spec.loader.exec_module(module)
    return module.app


def test_a_text_goes_in_and_a_label_with_its_score_comes_out(client: TestClient) -> None:
    for text, label in (("a lovely story", "positive"), ("so dull", "negative")):
        answer = client.post("/classify", json={"text": text})
        assert answer.status_code == 200, answer.text
        assert answer.json()["label"] == label
        assert 0.5 < answer.json()["score"] <= 1.0


def test_what_is_no_text_is_refused(client: TestClient) -> None:
    assert client.post("/classify", json={"text": 4}).status_code == 422
