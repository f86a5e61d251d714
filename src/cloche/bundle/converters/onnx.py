"""ONNX files, checked and without what training left behind."""

from __future__ import annotations

from pathlib import Path

from cloche.bundle.converters.base import Converted, ConvertOptions, load_heavy


class OnnxConverter:
    """An OnnxConverter takes the path of an .onnx file."""

    name = "onnx"

    def accepts(self, model: object) -> bool:
        return isinstance(model, Path) and model.suffix == ".onnx"

    def convert(self, model: object, rows: object | None, options: ConvertOptions) -> Converted:
        """The file as a bundle takes it; it is its own original, so nothing is compared.

        Raises ConversionError (CL-E803), InputError, NotFoundError, MissingExtraError.
        """
        heavy = load_heavy("cloche.bundle.converters._onnx_file", "an ONNX file", "onnx")
        converted: Converted = heavy.convert(model, rows)
        return converted
