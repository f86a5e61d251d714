"""TensorFlow's SavedModel folders, as ONNX that is proven to answer as they do."""

from __future__ import annotations

from pathlib import Path

from cloche.bundle.converters._tensorflow import check_packages, convert_saved
from cloche.bundle.converters.base import Converted, ConvertOptions


class SavedModelConverter:
    """A SavedModelConverter takes the path of a folder with a saved_model.pb."""

    name = "savedmodel"

    def accepts(self, model: object) -> bool:
        return isinstance(model, Path) and (model / "saved_model.pb").is_file()

    def convert(self, model: object, rows: object | None, options: ConvertOptions) -> Converted:
        """Its signature `serving_default`, converted by a process of its own.

        Raises ConversionError (CL-E802), InputError, MissingExtraError.
        """
        assert isinstance(model, Path)
        check_packages()
        return convert_saved(model, rows, options)
