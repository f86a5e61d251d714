"""LightGBM models and their text files, as ONNX that decides every split as they do."""

from __future__ import annotations

from pathlib import Path

from cloche.bundle.converters.base import Converted, ConvertOptions, is_from, load_heavy


class LightgbmConverter:
    """A LightgbmConverter takes a fitted LGBMClassifier, LGBMRegressor or LGBMRanker, a Booster, or its file."""

    name = "lightgbm"

    def accepts(self, model: object) -> bool:
        if not isinstance(model, Path):
            return is_from(model, "lightgbm")
        if model.suffix != ".txt" or not model.is_file():
            return False
        with model.open("rb") as file:
            return file.read(16).splitlines()[:1] == [b"tree"]

    def convert(self, model: object, rows: object | None, options: ConvertOptions) -> Converted:
        heavy = load_heavy("cloche.bundle.converters._lightgbm", "a LightGBM model", "lightgbm")
        converted: Converted = heavy.convert(model, rows, options)
        return converted
