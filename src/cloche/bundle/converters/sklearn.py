"""scikit-learn models, as ONNX that is proven to answer as they do."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cloche.bundle.converters.base import Converted, ConvertOptions
from cloche.core.errors import MissingExtraError

HINT = 'pip install "cloche[sklearn]"'


class SklearnConverter:
    """A SklearnConverter takes fitted classifiers, regressors and pipelines of them."""

    name = "sklearn"

    def accepts(self, model: object) -> bool:
        """Whether a class of scikit-learn stands among its parents; imports nothing to find out."""
        if isinstance(model, type):
            return False
        return any(parent.__module__.partition(".")[0] == "sklearn" for parent in type(model).__mro__)

    def convert(self, model: object, rows: object | None, options: ConvertOptions) -> Converted:
        check_protobuf()
        # skl2onnx takes seconds to import, so the half that needs it is loaded on first use, by name: the one
        # such place beside entry points.
        try:
            heavy: Any = import_module("cloche.bundle.converters._skl2onnx")
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"packing a scikit-learn model needs {error.name}", code="CL-E701", hint=HINT
            ) from None
        converted: Converted = heavy.convert(model, rows, options)
        return converted


def check_protobuf(found: str | None = None) -> None:
    """Refuses a protobuf that skl2onnx fails with. Raises MissingExtraError."""
    try:
        found = found or version("protobuf")
    except PackageNotFoundError:
        return
    if int(found.partition(".")[0]) >= 7:
        raise MissingExtraError(
            f"skl2onnx does not work with protobuf {found}", code="CL-E701", hint='pip install "protobuf<7"'
        )
