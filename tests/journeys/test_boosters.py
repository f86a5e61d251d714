"""Boosters are packed, exported, imported and served, and answer what they answered themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from tests.heavy.frameworks.journey import check_journey

import cloche

MODELS = {
    "xgboost": xgboost.XGBRegressor(n_estimators=20, n_jobs=1),
    "lightgbm": lightgbm.LGBMRegressor(n_estimators=20, n_jobs=1, verbose=-1),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_booster_answers_the_same_everywhere(kind: str, tmp_path: Path) -> None:
    rows: Any = np.random.default_rng(0).normal(size=(300, 4))
    amount = np.exp(rows[:, 0] * 0.3 + rows[:, 2] * 0.5)
    model = MODELS[kind].fit(rows[50:], amount[50:])
    bundle = cloche.pack(model, rows[:50], amount[:50], name="amount", directory=tmp_path)
    assert bundle.manifest.quality is not None
    assert bundle.manifest.measured.original_row_s is not None
    check_journey(bundle, tmp_path, {"x": rows[:50]}, model.predict(rows[:50]))
