"""TensorFlow in a process of its own: it converts a saved model and answers the rows; nothing here imports it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np

from cloche.bundle.converters import _network
from cloche.bundle.converters.base import Converted, ConvertOptions
from cloche.bundle.pickle_wire import Answer, decode_answer
from cloche.core.errors import ConversionError, MissingExtraError
from cloche.core.signature import Columns

_MODULE = "cloche.bundle.converters._tensorflow_child"
_NEEDED = ("tensorflow", "tf2onnx", "onnx")

#: The answers are the processor's, TensorFlow's notes stay away, and Keras computes with TensorFlow.
_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A Task is a saved model to be converted; its rows lie in `rows.npz` beside it, in the order of `names`."""

    path: str
    #: None: no rows were given.
    names: tuple[str, ...] | None
    options: ConvertOptions


def check_packages() -> None:
    """Raises MissingExtraError that names every package that is not there; imports none of them."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise MissingExtraError(
            f"packing a Keras or TensorFlow model needs {' and '.join(missing)}",
            code="CL-E701",
            hint='pip install "cloche[tensorflow]"',
        )


def convert_saved(
    path: Path, rows: object | None, options: ConvertOptions, *, timeout_s: float = 1800.0
) -> Converted:
    """The model of a .keras file or a SavedModel folder, converted and asked by another process.

    Raises ConversionError, also where that process dies or takes longer than `timeout_s`; InputError.
    """
    given = None if rows is None else _network.arrays(rows)
    with tempfile.TemporaryDirectory(prefix="cloche-") as name:
        folder = Path(name)
        names = None if given is None else tuple(given)
        task = Task(path=str(path.resolve()), names=names, options=options)
        (folder / "task").write_bytes(msgspec.msgpack.encode(task))
        save_columns(folder / "rows.npz", given or {})
        _run(folder, path, timeout_s)
        answer = decode_answer((folder / "answer").read_bytes())
        if answer.failure is not None:
            raise answer.failure.error()
        return _received(answer, folder, path)


def _run(folder: Path, path: Path, timeout_s: float) -> None:
    command = [sys.executable, "-P", "-m", _MODULE, str(folder)]
    try:
        done = subprocess.run(
            command,
            env=os.environ | _ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConversionError(f"converting {path.name} took longer than {timeout_s:g} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise ConversionError(
            f"the process that converted {path.name} ended with {done.returncode}: {said[-1][:300]}",
            hint="a process that is killed may have had too little memory",
        )


def _received(answer: Answer, folder: Path, path: Path) -> Converted:
    converted = answer.converted
    assert converted is not None
    names = [field.name for field in converted.signature.outputs]
    inputs = [field.name for field in converted.signature.inputs]
    has_rows = (folder / "columns.npz").exists()
    return msgspec.structs.replace(
        converted,
        columns=load_columns(folder / "columns.npz", inputs) if has_rows else None,
        reference=load_columns(folder / "reference.npz", names) if has_rows else None,
        original_bytes=_size(path),
    )


def save_columns(path: Path, columns: Columns) -> None:
    """Arrays of numbers on the disk, by position."""
    np.savez(path, *columns.values())


def load_columns(path: Path, names: list[str]) -> Columns:
    """What `save_columns` saved, by these names; no pickle is read."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[f"arr_{place}"] for place, name in enumerate(names)}


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
