"""The process that imports TensorFlow: `python -m …_tensorflow_child FOLDER` does the task in the folder."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import msgspec
import onnx
import tensorflow as tf
import tf2onnx

from cloche.bundle.converters import _classes, _graph, _network
from cloche.bundle.converters._onnx_file import MODEL_FILE, convert_model
from cloche.bundle.converters._tensorflow import Task, load_columns, save_columns
from cloche.bundle.converters.base import Converted, ConvertOptions
from cloche.bundle.parity import compare
from cloche.bundle.pickle_wire import Answer, Failure, encode
from cloche.bundle.rows import ARRAY_INPUT, draw_rows
from cloche.core.errors import ClocheError, ConversionError, InputError
from cloche.core.signature import Columns
from cloche.runtimes.base import RuntimePlace, load_runtime
from cloche.runtimes.files import Held
from cloche.runtimes.onnx import first_line

#: What Keras, TensorFlow and tf2onnx raise for what they can't do; tf.errors.OpError is an Exception.
CANNOT = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    tf.errors.OpError,
)
OPSET = 18
_SERVING = "serving_default"
_DRAWN = 64

#: Keras numbers the inputs that nobody named, on and on: the next model would have other names.
_NUMBERED = re.compile(r"(keras_tensor|input_layer|input)(_\d+)?")


def main(folder: Path) -> None:
    task = msgspec.msgpack.decode((folder / "task").read_bytes(), type=Task)
    try:
        rows = None if task.names is None else load_columns(folder / "rows.npz", list(task.names))
        converted = convert(Path(task.path), rows, task.options)
    except ClocheError as error:
        answer = Answer(failure=Failure.of(error))
    else:
        if converted.columns is not None:
            save_columns(folder / "columns.npz", converted.columns)
            save_columns(folder / "reference.npz", converted.reference or {})
        answer = Answer(converted=msgspec.structs.replace(converted, columns=None, reference=None))
    (folder / "answer").write_bytes(encode(answer))


def convert(path: Path, rows: Columns | None, options: ConvertOptions) -> Converted:
    """The saved model as ONNX, with its own answers to the rows, or proven on rows that are drawn."""
    if path.is_dir():
        return _convert(path, rows, options)
    with tempfile.TemporaryDirectory(prefix="cloche-") as folder:
        model = _load_keras(path)
        model.export(folder, format="tf_saved_model", verbose=False)
        converted = _convert(Path(folder), rows, options)
    return msgspec.structs.replace(
        converted,
        framework=f"Keras {keras.__version__}",
        description=f"{type(model).__name__} of {model.count_params():,} parameters",
    )


def _load_keras(path: Path) -> Any:
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except CANNOT as error:
        raise ConversionError(
            f"Keras can't load {path.name}: {first_line(error)}",
            code="CL-E802",
            hint="where it needs classes or functions of yours, load it yourself and call cloche.pack(model, ...)",
        ) from error


def _convert(folder: Path, rows: Columns | None, options: ConvertOptions) -> Converted:
    serving, loaded = _serving(folder)
    specs: dict[str, Any] = serving.structured_input_signature[1]
    names, outputs = list(specs), list(serving.structured_outputs)
    is_classes = _classes.check_task(options)
    given = None if rows is None else _network.by_name(rows, names, keep=False)
    if given is not None and len(given) < len(names):
        lacking = ", ".join(name for name in names if name not in given)
        raise InputError(f"the rows lack {lacking}", code="CL-E104", hint=f"its inputs are {', '.join(names)}")
    _check_specs(specs)
    model = _to_onnx(serving, specs, outputs)
    plain = _plain(names)
    wanted = ["output"] if outputs == ["output_0"] else outputs
    _graph.rename(model, plain, wanted)
    converted = convert_model(model, None if given is None else dict(zip(plain, given.values(), strict=True)))

    def answer(columns: Columns) -> Columns:
        feed = {name: tf.constant(column) for name, column in zip(names, columns.values(), strict=True)}
        found = serving(**feed)
        return {mine: found[name].numpy() for mine, name in zip(wanted, outputs, strict=True)}

    drawn = converted.columns or draw_rows(converted.signature, _DRAWN)
    try:
        reference = _network.ask(answer, drawn, rtol=options.rtol, atol=options.atol)
    except CANNOT as error:
        raise InputError(
            f"the model itself fails on these rows: {first_line(error)}",
            code="CL-E105",
            hint="give rows that its signature takes, any number of them at a time",
        ) from error
    if is_classes:
        graph = onnx.load_from_string(converted.files[MODEL_FILE])
        reference = _classes.classify(graph, reference)
        converted = _classes.with_classes(convert_model(graph, converted.columns))
    if rows is None:
        _prove(converted, drawn, reference, options)
    del loaded
    return msgspec.structs.replace(
        converted,
        framework=f"TensorFlow {tf.__version__}",
        description=f"SavedModel of {len(names)} input{'s' * (len(names) != 1)}",
        reference=None if rows is None else reference,
        original_row_s=_network.time_one_row(answer, drawn),
    )


def _serving(folder: Path) -> tuple[Any, Any]:
    """The function that serves, and the model that must live as long."""
    try:
        loaded = tf.saved_model.load(str(folder))
    except CANNOT as error:
        raise ConversionError(f"TensorFlow can't load it: {first_line(error)}", code="CL-E802") from error
    signatures = dict(loaded.signatures)
    if _SERVING not in signatures:
        found = ", ".join(sorted(signatures)) or "none"
        raise ConversionError(
            f"it has no signature {_SERVING!r}; it has {found}",
            code="CL-E802",
            hint=f"save it with tf.saved_model.save(model, folder, signatures={{{_SERVING!r}: function}})",
        )
    return signatures[_SERVING], loaded


def _check_specs(specs: dict[str, Any]) -> None:
    """Raises ConversionError for inputs that no bundle of tensors has."""
    for name, spec in specs.items():
        if spec.dtype == tf.string:
            raise ConversionError(
                f"input {name!r} is text, which tf2onnx does not convert exactly",
                code="CL-E802",
                hint="pack the part after the text steps, or a Python class",
            )
        if spec.shape.rank is None or spec.shape.rank == 0 or spec.shape[0] is not None:
            raise ConversionError(
                f"input {name!r} has the shape {spec.shape}: its first axis is not open",
                code="CL-E802",
                hint="export it for any number of rows: tf.TensorSpec([None, ...])",
            )


def _to_onnx(serving: Any, specs: dict[str, Any], outputs: list[str]) -> onnx.ModelProto:
    names = list(specs)
    # By position: names are given afterwards, when all that is in the graph is known.
    function = tf.function(
        lambda *tensors: _in_order(serving(**dict(zip(names, tensors, strict=True))), outputs), autograph=False
    )
    signature = [tf.TensorSpec(spec.shape, spec.dtype, name=f"in_{i}") for i, spec in enumerate(specs.values())]
    try:
        model, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    except CANNOT as error:
        raise ConversionError(
            f"tf2onnx can't convert it: {first_line(error)}",
            code="CL-E802",
            hint="pack a Python class with `load` and `predict` instead",
        ) from error
    if len(model.graph.input) != len(specs) or len(model.graph.output) != len(outputs):
        raise ConversionError("tf2onnx left out an input or an output", code="CL-E802")
    return model


def _in_order(answers: dict[str, Any], outputs: list[str]) -> list[Any]:
    return [answers[name] for name in outputs]


def _plain(names: list[str]) -> list[str]:
    if not all(_NUMBERED.fullmatch(name) for name in names):
        return names
    return [ARRAY_INPUT] if len(names) == 1 else [f"{ARRAY_INPUT}_{place}" for place in range(len(names))]


def _prove(converted: Converted, drawn: Columns, reference: Columns, options: ConvertOptions) -> None:
    runtime = load_runtime(
        converted.runtime, converted.signature, Held(converted.files), RuntimePlace(digest="0" * 64)
    )
    compare(reference, runtime.run(drawn), rtol=options.rtol, atol=options.atol)
    runtime.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
