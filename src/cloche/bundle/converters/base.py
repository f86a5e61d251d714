"""What a converter is: it turns one framework's model into files that a runtime can load."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import msgspec

from cloche.core.errors import ConfigError
from cloche.core.extras import load_extra
from cloche.core.plugins import plugins
from cloche.core.signature import Columns, Signature
from cloche.runtimes.base import RuntimeSpec

GROUP = "cloche.converters"

#: Packages whose estimators are scikit-learn's as well.
BOOSTERS = frozenset({"catboost", "lightgbm", "xgboost"})

#: So many of the given rows prove a conversion.
PROOF_ROWS = 2_000


class Converted(msgspec.Struct, kw_only=True):
    """A Converted is a model that is ready to be packed, and what is needed to prove it."""

    #: "scikit-learn 1.9.1".
    framework: str
    #: "GradientBoostingClassifier", "Pipeline(ColumnTransformer, LogisticRegression)".
    description: str
    #: "classification", "regression" or "other".
    task: str
    #: Names, types, shapes and classes; facts of the data are added by `bundle.pack`.
    signature: Signature
    runtime: RuntimeSpec
    #: Bundle path -> bytes: "model/model.onnx", "code/sentiment.py".
    files: dict[str, bytes]
    #: All rows that were given, as the bundle takes them; None without rows.
    columns: Columns | None
    #: What the original answered on the first PROOF_ROWS of them; None where the file is its own original.
    reference: Columns | None
    requirements: tuple[str, ...] = ()
    #: Where it comes from, as its folder says: {"mlflow run": "8a1c..."}.
    origin: dict[str, str] = {}
    #: Names of given columns that the model does not take.
    unused: tuple[str, ...] = ()
    #: The size before: of the model as a pickle, or of the file.
    original_bytes: int = 0
    #: Median seconds of one row in the original.
    original_row_s: float | None = None


class ConvertOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A ConvertOptions is what the caller of `pack` may say about a conversion."""

    #: Files that travel with a Python class; None: the file that defines it.
    code: tuple[str, ...] | None = None
    requirements: tuple[str, ...] = ()
    #: What a Hugging Face folder is for: "text-classification", "embeddings"; None: as the folder says.
    task: str | None = None
    #: Whether the caller trusts a pickle inside the model's folder.
    trust_pickle: bool = False
    #: |answer - reference| <= atol + rtol * |reference|.
    rtol: float = 1e-4
    atol: float = 1e-6


class Converter(Protocol):
    """A Converter is what an entry point of `cloche.converters` names, made without arguments."""

    name: str

    def accepts(self, model: object) -> bool:
        """Whether this object or Path is its kind of model; imports no framework to find out."""
        ...

    def convert(self, model: object, rows: object | None, options: ConvertOptions) -> Converted:
        """The model converted, and proven on the rows where there is an original to compare with.

        Raises ConversionError, MissingExtraError.
        """
        ...


def find_converter(model: object) -> Converter:
    """The first converter, by name, that accepts the model. Raises ConfigError when none does."""
    for point in plugins(GROUP).values():
        converter: Converter = point.load()()
        if converter.accepts(model):
            return converter
    what = (
        f"the file {model}"
        if isinstance(model, Path)
        else f"a {type(model).__module__}.{type(model).__qualname__}"
    )
    raise ConfigError(
        f"no converter knows {what}",
        code="CL-E205",
        hint="pack a fitted scikit-learn model, an .onnx file or a Python class with `load` and `predict`",
    )


def is_from(model: object, package: str) -> bool:
    """Whether an object's class or one of its parents comes from this package; imports nothing to find out.

    A booster's estimators build on scikit-learn's, and are the booster's all the same.
    """
    if isinstance(model, type):
        return False
    roots = {parent.__module__.partition(".")[0] for parent in type(model).__mro__}
    return package in roots and not (package == "sklearn" and roots & BOOSTERS)


def load_heavy(module: str, what: str, extra: str) -> Any:
    """The half of a converter that imports its framework, which takes seconds: loaded on first use, by name.

    Raises MissingExtraError where a package is missing.
    """
    return load_extra(module, f"packing {what}", extra)
