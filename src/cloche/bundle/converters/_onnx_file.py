"""The heavy half of the ONNX converter: reads a file, refuses what is unsafe, and tells its signature."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, ModelProto, TensorProto

from cloche.bundle.converters import _graph
from cloche.bundle.converters.base import Converted
from cloche.bundle.measure import rows_a_call
from cloche.bundle.rows import draw_rows, require_rows, to_columns
from cloche.core.errors import ConversionError, InputError, ModelError, NotFoundError
from cloche.core.signature import Array, Columns, Field, Signature, take_rows
from cloche.runtimes.base import RuntimeSpec
from cloche.runtimes.onnx import DATATYPES, ORT_ERRORS, OnnxRuntime, fill_strings, first_line, open_session

MODEL_FILE = "model/model.onnx"
MAX_BYTES = 2_000_000_000

#: Operators of these come with ONNX Runtime; any other would need a library of somebody's.
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})

#: Names that converters give the outputs of classifiers and regressors.
_LABELS = frozenset({"label", "output_label"})
_PROBABILITIES = frozenset({"probabilities", "output_probability"})
_VALUES = frozenset({"value", "variable"})

#: Upper and lower case of all of Unicode; plain C knows ASCII only.
_LOCALE = "C.UTF-8"

_DRAWN = 3


def convert(path: Path, rows: object | None) -> Converted:
    model, size = read(path)
    return msgspec.structs.replace(convert_model(model, rows), original_bytes=size)


def convert_model(model: ModelProto, rows: object | None) -> Converted:
    """The graph as a bundle takes it, its signature found by running some rows; what it came from is not known.

    Raises ConversionError (CL-E803), InputError.
    """
    check(model)
    framework = f"{model.producer_name} {model.producer_version}".strip() or "ONNX"
    classes = _unzip(model)
    nodes = len(model.graph.node)
    inputs = tuple(_input_fields(model))
    _graph.prune(model)
    _set_locale(model)
    _graph.strip(model)
    names = _output_names(model)
    classes = classes or _class_labels(model)
    _graph.rename_outputs(model, names)
    data = model.SerializeToString(deterministic=True)
    signature, columns = _try_out(data, inputs, names, classes, rows)
    kinds = {"label": "classification", "value": "regression"}
    return Converted(
        framework=framework,
        description=f"ONNX graph of {nodes} nodes",
        task=kinds.get(names[0], "other"),
        signature=signature,
        runtime=RuntimeSpec(kind="onnx", entry=MODEL_FILE),
        files={MODEL_FILE: data},
        columns=columns,
        reference=None,
    )


def _refuse(message: str, hint: str) -> ConversionError:
    return ConversionError(message, code="CL-E803", hint=hint)


def read(path: Path) -> tuple[ModelProto, int]:
    """The model with its external data inside, and the bytes of both."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}", code="CL-E303", hint="check the path") from None
    except OSError as error:
        raise _refuse(f"{path.name} can't be read: {error.strerror}", "check the path") from None
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise _refuse(f"{path.name} is not an ONNX file", "export the model again") from None
    size = len(data)
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            size += _bring_in(tensor, path.parent)
            if size > MAX_BYTES:
                raise _refuse(f"{path.name} and its data are above 2 GB", "models of that size are not packed")
    return model, size


def _bring_in(tensor: TensorProto, folder: Path) -> int:
    """Replaces a reference to a file beside the model by its bytes. Raises ConversionError for other places."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = PurePosixPath(entries.get("location", ""))
    if len(location.parts) != 1 or location.name in ("", "..") or "\\" in str(location):
        raise _refuse(
            f"tensor {tensor.name!r} keeps its data in {str(location)!r}, which is not a file beside the model",
            "save the model with its data in one file: onnx.save(onnx.load(path), path)",
        )
    file = folder / location.name
    try:
        found = file.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise _refuse(f"{file.name} is not a regular file", "copy the data itself beside the model")
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", found.st_size - offset))
        if offset < 0 or length < 0 or offset + length > found.st_size:
            raise _refuse(f"{file.name} ends before the data of {tensor.name!r}", "export the model again")
        with file.open("rb") as opened:
            opened.seek(offset)
            tensor.raw_data = opened.read(length)
    except (OSError, ValueError) as error:
        raise _refuse(
            f"the data of tensor {tensor.name!r} can't be read: {error}", "put it beside the model"
        ) from None
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT
    return length


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in _graph.graphs(model):
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    yield attribute.t
                yield from attribute.tensors


def check(model: ModelProto) -> None:
    """Raises ConversionError (CL-E803) for what ONNX Runtime alone can't or shouldn't run."""
    own = {function.domain for function in model.functions}
    strange = {node.domain for graph in _graph.graphs(model) for node in graph.node} - DOMAINS - own
    if strange:
        raise _refuse(
            f"the graph uses operators of {', '.join(sorted(strange))}, which need a library of their own",
            "export it with standard operators, or pack a Python class",
        )
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise _refuse(f"onnx.checker: {first_line(error)}", "export the model again") from None
    if not model.graph.output:
        raise _refuse("the graph has no outputs", "export the model again")


def _input_fields(model: ModelProto) -> Iterator[Field]:
    constants = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in constants]
    if not given:
        raise _refuse("the graph has no inputs", "export it with its inputs")
    # An input with a default is a constant: nobody sends it.
    del model.graph.input[:]
    model.graph.input.extend(given)
    types = {element: name for name, element in _graph.ELEMENT_TYPES.items()}
    for value in given:
        tensor = value.type.tensor_type
        if value.type.WhichOneof("value") != "tensor_type" or tensor.elem_type not in types:
            raise _refuse(
                f"input {value.name!r} is not a tensor that can be served", "export it with plain tensors"
            )
        dims = [each.dim_value if each.HasField("dim_value") else -1 for each in tensor.shape.dim]
        if not dims or dims[0] != -1:
            raise _refuse(
                f"the first axis of input {value.name!r} is {'missing' if not dims else f'fixed at {dims[0]}'}",
                "export it with a dynamic first axis (rows), such as dynamic_axes={'x': {0: 'n'}}",
            )
        shape = (-1,) if dims == [-1, 1] else tuple(dims)
        yield Field(name=value.name, datatype=types[tensor.elem_type], shape=shape)


def _unzip(model: ModelProto) -> tuple[str, ...] | None:
    """Takes ZipMaps (a list of dicts a row) off the outputs; the classes that one knew."""
    classes: tuple[str, ...] | None = None
    makers = {output: node for node in model.graph.node for output in node.output}
    for value in model.graph.output:
        maker = makers.get(value.name)
        if maker is not None and maker.op_type == "ZipMap":
            classes = _labels_of(maker)
            value.CopyFrom(onnx.helper.make_tensor_value_info(maker.input[0], TensorProto.FLOAT, ["n", None]))
    if classes is not None:
        _name_unzipped(model)
    for value in model.graph.output:
        if value.type.WhichOneof("value") not in ("tensor_type", None):
            raise _refuse(
                f"output {value.name!r} is a {value.type.WhichOneof('value')}, not a tensor",
                "export it with tensors; for skl2onnx: options={'zipmap': False}",
            )
    return classes


def _name_unzipped(model: ModelProto) -> None:
    """After ZipMap the second output is `probabilities`, whatever the inner name was."""
    if len(model.graph.output) == 2 and model.graph.output[0].name in _LABELS:
        _graph.rename_outputs(model, [model.graph.output[0].name, "probabilities"])


def _labels_of(node: Any) -> tuple[str, ...] | None:
    for attribute in node.attribute:
        if attribute.name in ("classlabels_int64s", "classlabels_ints") and attribute.ints:
            return tuple(str(each) for each in attribute.ints)
        if attribute.name == "classlabels_strings" and attribute.strings:
            return tuple(each.decode() for each in attribute.strings)
    return None


def _class_labels(model: ModelProto) -> tuple[str, ...] | None:
    """The classes that the graph's one classifier names."""
    found = [labels for node in model.graph.node if "Classifier" in node.op_type and (labels := _labels_of(node))]
    return found[0] if len(found) == 1 else None


def _output_names(model: ModelProto) -> list[str]:
    """Our names where the outputs are those of a classifier or a regressor, else the graph's."""
    names = [value.name for value in model.graph.output]
    taken = {value.name for value in model.graph.input}
    if names and names[0] in _LABELS and len(names) <= 2 and (len(names) == 1 or names[1] in _PROBABILITIES):
        wanted = ["label", "probabilities"][: len(names)]
    elif len(names) == 1 and names[0] in _VALUES:
        wanted = ["value"]
    else:
        return names
    return names if taken & set(wanted) else wanted


def _try_out(
    data: bytes, inputs: tuple[Field, ...], names: list[str], classes: tuple[str, ...] | None, rows: object | None
) -> tuple[Signature, Columns | None]:
    """The whole signature, found by running some rows, and the rows as columns."""
    partial = Signature(inputs=inputs, outputs=())
    columns = None if rows is None else _given(rows, partial)
    sample = draw_rows(partial, _DRAWN) if columns is None else take_rows(columns, 0, rows_a_call(columns))
    count = len(next(iter(sample.values())))
    try:
        session = open_session(data, 1)
        answers = session.run(None, dict(_feed(session, sample)))
    except ModelError as error:
        raise _locale_missing(error) or _refuse(error.message, "check the file with onnx.checker") from error
    except ORT_ERRORS as error:
        words = "the rows that were drawn" if columns is None else "these rows"
        raise _locale_missing(error) or _refuse(
            f"the model fails on {words}: {first_line(error)}", "give rows that it was made for"
        ) from None
    outputs = []
    for name, node, answer in zip(names, session.get_outputs(), answers, strict=True):
        if node.type not in DATATYPES or not isinstance(answer, np.ndarray):
            raise _refuse(f"output {name!r} is {node.type}, not a tensor", "export it with tensors")
        if answer.ndim == 0 or answer.shape[0] != count:
            raise _refuse(
                f"output {name!r} has the shape {list(answer.shape)} for {count} rows",
                "the first axis of every output must be rows",
            )
        declared = [each if isinstance(each, int) else -1 for each in node.shape or answer.shape]
        outputs.append(_output_field(name, DATATYPES[node.type], declared, answer.shape, classes))
    signature = Signature(inputs=inputs, outputs=tuple(outputs))
    try:
        OnnxRuntime(session, signature).run(sample)
    except ModelError as error:
        raise _refuse(error.message, "export it with one row of output for each row of input") from error
    return signature, columns


def _set_locale(model: ModelProto) -> None:
    """English text steps in a locale that every machine has: the default, en_US, is one that images often lack."""
    for graph in _graph.graphs(model):
        for node in graph.node:
            named = [attribute.s for attribute in node.attribute if attribute.name == "locale"]
            if node.op_type == "StringNormalizer" and all(name.startswith(b"en_") for name in named):
                kept = [attribute for attribute in node.attribute if attribute.name != "locale"]
                del node.attribute[:]
                node.attribute.extend([*kept, onnx.helper.make_attribute("locale", _LOCALE)])


def _locale_missing(error: Exception) -> ConversionError | None:
    """The refusal of a text step in a language that this machine does not have; None for any other error."""
    found = re.search(r"Failed to construct locale with name:\s*([\w.@-]+)", str(error))
    return found and _refuse(
        f"a text step needs the locale {found[1]}, and this machine has none of that name",
        f"install it here and where the model is served, or export it with the locale {_LOCALE}",
    )


def _feed(session: Any, sample: Columns) -> Iterator[tuple[str, Array]]:
    for node, given in zip(session.get_inputs(), sample.values(), strict=True):
        column = fill_strings(given) if given.dtype.kind == "O" else given
        yield node.name, column.reshape(-1, 1) if len(node.shape) == column.ndim + 1 else column


def _output_field(
    name: str, datatype: str, declared: list[int], seen: tuple[int, ...], classes: tuple[str, ...] | None
) -> Field:
    rest = tuple(declared[1:]) if len(declared) == len(seen) else seen[1:]
    if name in ("label", "value") and rest in ((1,), (-1,)) and seen[1:] == (1,):
        rest = ()
    if name == "probabilities" and rest == (-1,):
        rest = seen[1:]
    known = classes if name == "label" or (name == "probabilities" and rest == (len(classes or ()),)) else None
    return Field(name=name, datatype=datatype, shape=(-1, *rest), classes=known)


def _given(rows: object, signature: Signature) -> Columns:
    columns = to_columns(rows, signature)
    require_rows(columns)
    missing = [field.name for field in signature.inputs if field.name not in columns]
    if len(missing) == len(signature.inputs) == 1 and list(columns) == ["x"]:
        columns = {missing[0]: columns["x"]}
        missing = []
    if missing:
        raise InputError(
            f"the rows lack {', '.join(missing)}",
            code="CL-E104",
            hint=f"the model's inputs are {', '.join(field.name for field in signature.inputs)}",
        )
    result = {field.name: columns[field.name] for field in signature.inputs}
    for field in signature.inputs:
        column = result[field.name]
        wanted = tuple(got if want == -1 else want for want, got in zip(field.shape, column.shape, strict=False))
        if column.ndim != len(field.shape) or column.shape != wanted:
            said = f"column {field.name!r} has the shape {list(column.shape)}"
            raise InputError(f"{said}, and the model takes {list(field.shape)}", code="CL-E110")
        if column.dtype != field.numpy_type:
            raise InputError(
                f"column {field.name!r} is {column.dtype}, and the model takes {field.datatype}", code="CL-E105"
            )
    return result
