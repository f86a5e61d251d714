"""Keras models, as ONNX that is proven to answer as they do."""

from __future__ import annotations

import contextlib
import io
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from cloche.bundle.converters._tensorflow import check_packages, convert_saved
from cloche.bundle.converters.base import Converted, ConvertOptions
from cloche.core.errors import ConversionError
from cloche.runtimes.onnx import first_line

_ROOTS = frozenset({"keras", "tf_keras"})

#: What Keras raises for a model that can't be saved, or was never called.
_CANNOT = (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)


class KerasConverter:
    """A KerasConverter takes a `keras.Model` or the path of a .keras file."""

    name = "keras"

    def accepts(self, model: object) -> bool:
        if isinstance(model, Path):
            return model.suffix == ".keras"
        return not isinstance(model, type) and _library(model) is not None

    def convert(self, model: object, rows: object | None, options: ConvertOptions) -> Converted:
        """The model exported for TensorFlow, and converted by a process of its own.

        Raises ConversionError (CL-E802), InputError, MissingExtraError.
        """
        check_packages()
        if isinstance(model, Path):
            return convert_saved(model, rows, options)
        library = import_module(_library(model) or "keras")
        with tempfile.TemporaryDirectory(prefix="cloche-") as folder:
            converted = convert_saved(_save(model, library, Path(folder)), rows, options)
        return msgspec.structs.replace(
            converted, framework=f"Keras {library.__version__}", description=describe(model)
        )


def describe(model: Any) -> str:
    return f"{type(model).__name__} of {model.count_params():,} parameters"


def _library(model: object) -> str | None:
    """ "keras" or "tf_keras", where the model is one of theirs."""
    for parent in type(model).__mro__:
        root = parent.__module__.partition(".")[0]
        if root in _ROOTS and parent.__name__ == "Model":
            return root
    return None


def _save(model: Any, library: Any, folder: Path) -> Path:
    """The model on the disk: its graph where TensorFlow computes it, else a file that TensorFlow can load."""
    is_graph = not hasattr(library, "config") or library.config.backend() == "tensorflow"
    path = folder / ("saved" if is_graph else "model.keras")
    try:
        # It says for whom the graph is and what it is called.
        with contextlib.redirect_stdout(io.StringIO()):
            model.export(str(path)) if is_graph else model.save(str(path))
    except _CANNOT as error:
        raise ConversionError(
            f"Keras can't export {type(model).__name__}: {first_line(error)}",
            code="CL-E802",
            hint="call the model once on a few rows, so that its shapes are known, and pack it then",
        ) from error
    return path
