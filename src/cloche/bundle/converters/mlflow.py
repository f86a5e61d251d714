"""MLflow's model folders: the flavour inside is unwrapped and goes to its own converter; MLflow is not needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cloche.bundle.converters.base import Converted, ConvertOptions, find_converter
from cloche.bundle.pickles import convert_pickle
from cloche.core.errors import ConfigError, ConversionError
from cloche.core.extras import load_extra
from cloche.core.words import listed

MLMODEL = "MLmodel"

#: What skops does not trust by itself, and is nothing but data.
_HARMLESS = frozenset(
    {
        "collections.OrderedDict",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "lightgbm.sklearn.LGBMRegressor",
    }
)

Flavour = dict[str, Any]
Unwrap = Callable[[Path, Flavour, object | None, ConvertOptions], Converted]


class MlflowConverter:
    """An MlflowConverter takes the path of a folder with an MLmodel file."""

    name = "mlflow"

    def accepts(self, model: object) -> bool:
        return isinstance(model, Path) and (model / MLMODEL).is_file()

    def convert(self, model: object, rows: object | None, options: ConvertOptions) -> Converted:
        """The model of the first flavour that is known here; without rows, the saved input example is taken.

        Raises ConversionError (CL-E802) where no flavour is, RefusedError for a pickle that is not trusted, and
        what the flavour's converter raises.
        """
        assert isinstance(model, Path)
        said = _read(model)
        flavours = said.get("flavors") or {}
        name = next((name for name in _FLAVOURS if name in flavours), None)
        if name is None:
            raise _unknown(model, flavours)
        if rows is None:
            rows = _example(model, said.get("saved_input_example_info") or {})
        converted = _FLAVOURS[name](model, flavours[name], rows, options)
        converted.origin = _origin(said)
        return converted


def _read(folder: Path) -> dict[str, Any]:
    yaml = load_extra("yaml", "packing an MLflow model", "mlflow")
    try:
        said = yaml.safe_load((folder / MLMODEL).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        words = f"{folder / MLMODEL} can't be read: {str(error).splitlines()[0]}"
        raise ConfigError(words, code="CL-E206", hint="log the model again") from None
    if not isinstance(said, dict) or not isinstance(said.get("flavors") or {}, dict):
        raise ConfigError(f"{folder / MLMODEL} names no flavours", code="CL-E206", hint="log the model again")
    return said


def _origin(said: dict[str, Any]) -> dict[str, str]:
    """What is kept of the MLmodel file: run, model, version, time, and the signature as it stands there."""
    keys = {"run_id": "run", "model_id": "model", "mlflow_version": "version", "utc_time_created": "created"}
    found = {f"mlflow {name}": str(said[key]) for key, name in keys.items() if said.get(key)}
    if said.get("signature"):
        found["mlflow signature"] = msgspec.json.encode(said["signature"]).decode()
    return found


def _example(folder: Path, info: dict[str, Any]) -> object | None:
    """The saved input example as rows; None where there is none that is a table or an array."""
    path = info.get("artifact_path")
    if not isinstance(path, str):
        return None
    example = msgspec.json.decode(_inside(folder, path).read_bytes())
    if isinstance(example, dict) and "columns" in example:
        names, data = example["columns"], example["data"]
        return {str(name): [row[place] for row in data] for place, name in enumerate(names)}
    if isinstance(example, dict) and isinstance(example.get("inputs"), list):
        return np.array(example["inputs"])
    return None


def _inside(folder: Path, name: object) -> Path:
    """A file or folder that the MLmodel file names. Raises ConversionError for one outside, or not there."""
    path = folder / str(name)
    if not path.resolve().is_relative_to(folder.resolve()) or not path.exists():
        raise ConversionError(f"{MLMODEL} names {name}, which is not in the folder", code="CL-E802")
    return path


def _unknown(folder: Path, flavours: dict[str, Any]) -> ConversionError:
    names = [name for name in flavours if name != "python_function"] or ["python_function"]
    hint = f"mlflow.{names[0]}.load_model" if names[0] != "python_function" else "mlflow.pyfunc.load_model"
    return ConversionError(
        f"no flavour of {folder.name} is known here: {', '.join(names)}",
        code="CL-E802",
        hint=f"load it yourself ({hint}) and call cloche.pack(model), or pack a Python class that loads it",
    )


def _sklearn(folder: Path, flavour: Flavour, rows: object | None, options: ConvertOptions) -> Converted:
    return _object(_inside(folder, flavour.get("pickled_model")), rows, options)


def _object(path: Path, rows: object | None, options: ConvertOptions) -> Converted:
    """A model that was written as an object: by skops, which is read type by type, or as a pickle."""
    if path.suffix != ".skops":
        return convert_pickle(path, rows, options, trusted=options.trust_pickle)
    skops = load_extra("skops.io", "packing a model that MLflow saved by skops", "mlflow")
    if strange := set(skops.get_untrusted_types(file=path)) - _HARMLESS:
        raise ConversionError(
            f"{path.name} holds {listed(sorted(strange))}, which may run code when it is read",
            code="CL-E802",
            hint="load it yourself where you trust it (mlflow's load_model) and call cloche.pack(model)",
        )
    model = skops.load(path, trusted=sorted(_HARMLESS))
    return find_converter(model).convert(model, rows, options)


def _file(folder: Path, flavour: Flavour, rows: object | None, options: ConvertOptions) -> Converted:
    """A file or folder that has a converter of its own."""
    path = _inside(folder, flavour.get("data"))
    return find_converter(path).convert(path, rows, options)


def _xgboost(folder: Path, flavour: Flavour, rows: object | None, options: ConvertOptions) -> Converted:
    path = _inside(folder, flavour.get("data"))
    library = load_extra("xgboost", "packing an XGBoost model", "xgboost")
    name = str(flavour.get("model_class", "xgboost.core.Booster")).rpartition(".")[2]
    return _loaded(getattr(library, name, library.Booster)(), path, rows, options)


def _lightgbm(folder: Path, flavour: Flavour, rows: object | None, options: ConvertOptions) -> Converted:
    path = _inside(folder, flavour.get("data"))
    if path.suffix in (".pkl", ".skops"):
        return _object(path, rows, options)
    library = load_extra("lightgbm", "packing a LightGBM model", "lightgbm")
    model = library.Booster(model_file=str(path))
    return find_converter(model).convert(model, rows, options)


def _catboost(folder: Path, flavour: Flavour, rows: object | None, options: ConvertOptions) -> Converted:
    library = load_extra("catboost", "packing a CatBoost model", "catboost")
    kind = getattr(library, str(flavour.get("model_type", "CatBoost")), library.CatBoost)
    return _loaded(kind(), _inside(folder, flavour.get("data")), rows, options)


def _loaded(model: Any, path: Path, rows: object | None, options: ConvertOptions) -> Converted:
    model.load_model(str(path))
    return find_converter(model).convert(model, rows, options)


def _keras(folder: Path, flavour: Flavour, rows: object | None, options: ConvertOptions) -> Converted:
    path = _inside(folder, flavour.get("data"))
    found = next((file for file in (path / "model.keras", path / "model") if file.exists()), path)
    return find_converter(found).convert(found, rows, options)


#: In the order of trust: a file in a safe format before a pickle.
_FLAVOURS: dict[str, Unwrap] = {
    "onnx": _file,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "catboost": _catboost,
    "sentence_transformers": _file,
    "keras": _keras,
    "tensorflow": _keras,
    "sklearn": _sklearn,
}
