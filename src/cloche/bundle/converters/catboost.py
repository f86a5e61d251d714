"""CatBoost models and their .cbm files, as ONNX that decides every split as they do."""

from __future__ import annotations

from pathlib import Path

from cloche.bundle.converters.base import Converted, ConvertOptions, is_from, load_heavy


class CatboostConverter:
    """A CatboostConverter takes a fitted CatBoostClassifier, CatBoostRegressor or CatBoost, or its file."""

    name = "catboost"

    def accepts(self, model: object) -> bool:
        if not isinstance(model, Path):
            return is_from(model, "catboost")
        if model.suffix != ".cbm" or not model.is_file():
            return False
        with model.open("rb") as file:
            return file.read(4) == b"CBM1"

    def convert(self, model: object, rows: object | None, options: ConvertOptions) -> Converted:
        heavy = load_heavy("cloche.bundle.converters._catboost", "a CatBoost model", "catboost")
        converted: Converted = heavy.convert(model, rows, options)
        return converted
