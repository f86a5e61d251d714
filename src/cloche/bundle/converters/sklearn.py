"""scikit-learn models, as ONNX that is proven to answer as they do."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from cloche.bundle.converters.base import Converted, ConvertOptions, is_from, load_heavy
from cloche.core.errors import MissingExtraError


class SklearnConverter:
    """A SklearnConverter takes fitted classifiers, regressors and pipelines of them."""

    name = "sklearn"

    def accepts(self, model: object) -> bool:
        return is_from(model, "sklearn")

    def convert(self, model: object, rows: object | None, options: ConvertOptions) -> Converted:
        check_packages()
        check_protobuf()
        half = "_sklearn_text" if _takes_text(model) else "_skl2onnx"
        heavy = load_heavy(f"cloche.bundle.converters.{half}", "a scikit-learn model", "sklearn")
        converted: Converted = heavy.convert(model, rows, options)
        return converted


def _takes_text(model: object) -> bool:
    prepare = load_heavy("cloche.bundle.converters._prepare", "a scikit-learn model", "sklearn")
    return any(type(part).__module__ == "sklearn.feature_extraction.text" for part in prepare.parts(model))


#: One command puts right whatever is missing or too new.
_HINT = 'pip install "cloche[sklearn]"'


def check_packages(needed: tuple[str, ...] = ("skl2onnx", "onnx")) -> None:
    """Raises MissingExtraError that names every package that is not there."""
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"packing a scikit-learn model needs {' and '.join(missing)}", code="CL-E701", hint=_HINT
        )


def check_protobuf(found: str | None = None) -> None:
    """Refuses a protobuf that skl2onnx fails with. Raises MissingExtraError."""
    try:
        found = found or version("protobuf")
    except PackageNotFoundError:
        return
    if int(found.partition(".")[0]) >= 7:
        raise MissingExtraError(f"skl2onnx does not work with protobuf {found}", code="CL-E701", hint=_HINT)
