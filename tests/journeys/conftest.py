"""Models that the journeys serve, each packed once into a project folder of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import cloche

SENTIMENT = '''
class Sentiment:
    """Says whether a text is glad, by its words; `crash` ends the process as a segmentation fault would."""

    def load(self):
        self.glad = {"good", "lovely", "fine"}

    def predict(self, text: list[str]) -> dict[str, list[str]]:
        import os, signal, time
        if any("wait" in one for one in text):
            time.sleep(1.5)
        if any("crash" in one for one in text):
            os.kill(os.getpid(), signal.SIGKILL)
        if any("raise" in one for one in text):
            raise ValueError("a text that this model can't read")
        return {"label": ["glad" if self.glad & set(one.split()) else "sad" for one in text]}
'''


def shop_rows(count: int, seed: int = 0) -> tuple[pd.DataFrame, Any]:
    """Customers with strings, numbers and missing values, and whether they left."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 90, count),
            "income": np.where(rng.random(count) < 0.1, np.nan, rng.lognormal(10, 1, count)),
            "plan": rng.choice(np.array(["free", "pro", "team", np.nan], object), count),
            "mails": rng.integers(0, 2, count).astype(bool),
        }
    )
    odds = (frame["age"] < 40).to_numpy() + (frame["plan"] == "free").to_numpy() + rng.random(count)
    return frame, np.where(odds > 1.4, "left", "stayed")


def shop_model(frame: pd.DataFrame, truth: Any) -> Pipeline:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer([("n", numbers, ["age", "income"]), ("w", words, ["plan"])], remainder="drop")
    return make_pipeline(columns, GradientBoostingClassifier(random_state=0)).fit(frame, truth)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with `churn:1`, a pipeline over strings, numbers and missing values."""
    folder = tmp_path_factory.mktemp("shop")
    rows, truth = shop_rows(800)
    model = shop_model(rows[:500], truth[:500])
    cloche.pack(model, rows[500:], truth[500:], name="churn", directory=folder)
    return folder


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with `mood:1`, a Python class."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "mood.py").write_text(SENTIMENT)
    rows = pd.DataFrame({"text": ["a good day", "rain again", "lovely soup", "nothing"] * 20})
    truth = ["glad", "sad", "glad", "sad"] * 20
    with contextlib.chdir(folder):
        cloche.pack(f"{folder / 'mood.py'}:Sentiment", rows, truth, name="mood", directory=folder)
    return folder


@pytest.fixture
def customer() -> Iterator[dict[str, Any]]:
    yield {"age": 41, "income": 52_000.0, "plan": "pro", "mails": True}
