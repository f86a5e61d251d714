"""XGBoost models and their .json and .ubj files, as ONNX that decides every split as they do."""

from __future__ import annotations

from pathlib import Path

from cloche.bundle.converters.base import Converted, ConvertOptions, is_from, load_heavy

_SUFFIXES = frozenset({".json", ".ubj"})


class XgboostConverter:
    """An XgboostConverter takes a fitted XGBClassifier, XGBRegressor or XGBRanker, a Booster, or its file."""

    name = "xgboost"

    def accepts(self, model: object) -> bool:
        if not isinstance(model, Path):
            return is_from(model, "xgboost")
        if model.suffix not in _SUFFIXES or not model.is_file():
            return False
        with model.open("rb") as file:
            # Either begins with the one key that has the model.
            return b"learner" in file.read(64)

    def convert(self, model: object, rows: object | None, options: ConvertOptions) -> Converted:
        heavy = load_heavy("cloche.bundle.converters._xgboost", "an XGBoost model", "xgboost")
        converted: Converted = heavy.convert(model, rows, options)
        return converted
