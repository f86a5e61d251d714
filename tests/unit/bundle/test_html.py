"""A bundle in a notebook: small, whole, its pictures inline, and without anything that runs."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

import cloche


def test_it_shows_quality_cost_and_how_each_column_lies(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a<b>": rng.normal(size=300), "n": rng.integers(0, 9, 300)})
    y = np.where(X["a<b>"] > 0, "yes", "<no>")
    bundle = cloche.pack(LogisticRegression().fit(X, y), X, y, name="small", directory=tmp_path)
    html = bundle._repr_html_()
    assert len(html) < 50_000
    assert not re.search(r"<script|javascript:|\bon\w+=|https?:", html)
    tree = ElementTree.fromstring(html)  # well formed, so no name of a column is markup
    words = [cell.text for cell in tree.iter("th")]
    assert {"accuracy", "one row", "a<b>", "n", "label", "probabilities[<no>]"} <= set(words)
    pictures = {picture.get("aria-label") for picture in tree.iter("svg")}
    assert {"<no>, yes", "0 to 1"} <= {str(words) for words in pictures} or {"yes, <no>"} <= pictures
    for picture in tree.iter("rect"):
        assert 0 <= float(picture.get("width", "nan")) <= 120


def test_a_wide_model_stays_small(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(100, 60))
    y = X[:, 0] > 0
    bundle = cloche.pack(LogisticRegression().fit(X, y), X, y, name="wide", directory=tmp_path)
    html = bundle._repr_html_()
    assert len(html) < 50_000
    assert "and 37 more" in html


def test_a_bundle_that_was_packed_without_rows_shows_what_there_is(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(50, 3))
    model = LogisticRegression().fit(X, X[:, 0] > 0)
    html = cloche.pack(model, name="bare", directory=tmp_path)._repr_html_()
    assert "note" in html
    assert "accuracy" not in html
