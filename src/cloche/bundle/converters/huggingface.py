"""Hugging Face folders of text classifiers and encoders, as a tokenizer and ONNX."""

from __future__ import annotations

from pathlib import Path

from cloche.bundle.converters.base import Converted, ConvertOptions, load_heavy

_TELLING = ("tokenizer.json", "tokenizer_config.json", "modules.json")


class HuggingFaceConverter:
    """A HuggingFaceConverter takes a saved folder: its weights, or an ONNX file, beside its tokenizer."""

    name = "huggingface"

    def accepts(self, model: object) -> bool:
        return isinstance(model, Path) and any((model / name).is_file() for name in _TELLING)

    def convert(self, model: object, rows: object | None, options: ConvertOptions) -> Converted:
        """The folder's model with its tokenizer, pooling, labels and softmax, and its own answers to the rows.

        Raises ConversionError (CL-E802, CL-E803), ConfigError, InputError, MissingExtraError.
        """
        heavy = load_heavy("cloche.bundle.converters._huggingface", "a Hugging Face folder", "huggingface")
        converted: Converted = heavy.convert(model, rows, options)
        return converted
