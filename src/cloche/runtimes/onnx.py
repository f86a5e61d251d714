"""The ONNX runtime: one session of ONNX Runtime in this process, on the processor or a GPU."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from cloche.core.aside import in_front
from cloche.core.errors import MissingExtraError, ModelError
from cloche.core.machine import usable_cores
from cloche.core.memory import give_back_memory
from cloche.core.signature import Array, Columns, Field, Signature
from cloche.runtimes.base import Runtime, RuntimePlace, RuntimeSpec
from cloche.runtimes.files import Files
from cloche.runtimes.steps import SteppedRuntime, load_step

#: ONNX Runtime's words for a tensor's type -> the signature's.
DATATYPES: Mapping[str, str] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}

_STACK_TYPES: Mapping[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
}

#: What ONNX Runtime raises: its classes have no common parent but Exception, and each release adds some.
ORT_ERRORS: tuple[type[Exception], ...] = (
    *(value for value in vars(_state).values() if isinstance(value, type) and issubclass(value, Exception)),
    RuntimeError,
    ValueError,
)


#: What ONNX Runtime computes with on a device; the numbers are those of full float32, as on the processor.
_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_PROVIDERS: Mapping[str, list[Any]] = {"cpu": [_CPU], "cuda": [(_CUDA, {"use_tf32": "0"}), _CPU]}


def check_device(device: str) -> None:
    """Raises MissingExtraError where the ONNX Runtime that is installed can't compute on the device."""
    if device == "cuda" and _CUDA not in ort.get_available_providers():
        found = ", ".join(name.removesuffix("ExecutionProvider") for name in ort.get_available_providers())
        raise MissingExtraError(
            f'device = "cuda" needs an ONNX Runtime with CUDA; the one that is installed has {found}',
            code="CL-E701",
            hint='pip install "cloche[gpu]" && pip install --force-reinstall --no-deps onnxruntime-gpu '
            "(it fills the folder of the other one, so it must come last)",
        )


def open_session(model: bytes | str, threads: int, device: str = "cpu") -> ort.InferenceSession:
    """A session over a model, its bytes or its path, on `threads` threads that sleep while there is nothing to do.

    Raises ModelError, and MissingExtraError where the device can't be used.
    """
    check_device(device)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Spinning threads would eat the core that the other workers need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Errors are raised; what ONNX Runtime prints of them would come beside them.
    options.log_severity_level = 4
    try:
        session = in_front(partial(ort.InferenceSession, model, options, providers=_PROVIDERS[device]))
    except ORT_ERRORS as error:
        told = first_line(error)
        raise ModelError(
            f"ONNX Runtime can't load the model: {told.replace(model, 'it') if isinstance(model, str) else told}",
            hint="check the file with onnx.checker, and the version of ONNX Runtime",
        ) from error
    if device == "cuda" and session.get_providers()[0] != _CUDA:
        # It falls back to the processor without a word.
        raise MissingExtraError(
            'device = "cuda", and ONNX Runtime can\'t use CUDA here',
            code="CL-E701",
            hint="look at nvidia-smi; CUDA and cuDNN come by  pip install onnxruntime-gpu[cuda,cudnn]",
        )
    return session


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:400]


class OnnxRuntime:
    """An OnnxRuntime answers from a session; inputs and outputs match the signature's by position."""

    in_process = True

    def __init__(self, session: ort.InferenceSession, signature: Signature, stacked: tuple[str, ...] = ()) -> None:
        nodes_in, nodes_out = session.get_inputs(), session.get_outputs()
        #: Columns that stand side by side in an input of this name and type.
        self._stacked = stacked
        if stacked:
            self._stack_name, self._stack_type = nodes_in[0].name, _STACK_TYPES[nodes_in[0].type]
            nodes_in = nodes_in[1:]
        inputs = tuple(field for field in signature.inputs if field.name not in stacked)
        _check_fields("input", inputs, nodes_in)
        _check_fields("output", signature.outputs, nodes_out)
        self._run = session.run
        #: (column, name in the graph, the graph wants [n, 1], strings)
        self._inputs = [
            (field.name, node.name, len(node.shape) == len(field.shape) + 1, field.datatype == "BYTES")
            for field, node in zip(inputs, nodes_in, strict=True)
        ]
        self._output_names = [node.name for node in nodes_out]
        #: (column, number of axes, sizes after the first where every one is known)
        self._outputs = [
            (field.name, len(field.shape), None if -1 in field.shape[1:] else field.shape[1:])
            for field in signature.outputs
        ]

    @classmethod
    def load(cls, spec: RuntimeSpec, signature: Signature, files: Files, place: RuntimePlace) -> Runtime:
        """The session over the bundle's model, behind its step where it has one.

        Raises ModelError where something does not load or does not fit, MissingExtraError.
        """
        # the machine that packed it may have had more cores, and threads that take turns on one only lose time
        threads = min(spec.bulk_threads if place.bulk else spec.threads, usable_cores())
        # first: what is missing is told before a large graph is opened
        step = None if spec.step is None else load_step(spec.step, files.read)
        with files.source(spec.entry) as source:
            session = open_session(source, threads, place.device)
        give_back_memory()
        if step is None or spec.step is None:
            return cls(session, signature, spec.stacked)
        inner = cls(session, _behind(spec, session, signature), spec.stacked)
        return SteppedRuntime(step, spec.step, inner, signature)

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        feed: dict[str, Array] = {}
        if self._stacked:
            column = self._stack(columns)
            feed[self._stack_name] = column
        for name, graph_name, column_vector, strings in self._inputs:
            column = columns[name]
            if strings:
                column = fill_strings(column)
            feed[graph_name] = column.reshape(-1, 1) if column_vector else column
        rows = column.shape[0]
        try:
            values = self._run(self._output_names, feed)
        except ORT_ERRORS as error:
            raise ModelError(f"ONNX Runtime failed: {first_line(error)}") from error
        answers: Columns = {}
        for output, value in zip(self._outputs, values, strict=True):
            answers[output[0]] = _fit_output(output, value, rows)
        return answers

    def _stack(self, columns: Columns) -> Array:
        joined: Array = np.concatenate([columns[name] for name in self._stacked], dtype=self._stack_type)
        return np.ascontiguousarray(joined.reshape(len(self._stacked), -1).T)

    def close(self) -> None:
        self._run = _closed


def _behind(spec: RuntimeSpec, session: ort.InferenceSession, signature: Signature) -> Signature:
    """The signature of the graph behind a step: what the step makes, by name, and the other columns in order."""
    assert spec.step is not None
    step, stacked = spec.step, spec.stacked
    others = iter([field for field in signature.inputs if field.name not in (*step.inputs, *stacked)])
    fields = [field for field in signature.inputs if field.name in stacked]
    for node in session.get_inputs()[1 if stacked else 0 :]:
        made = node.name in step.outputs
        field = None if made else next(others, None)
        datatype = DATATYPES.get(node.type, "")
        fields.append(field or Field(name=node.name, datatype=datatype, shape=(-1,) * len(node.shape)))
    return Signature(inputs=tuple(fields), outputs=signature.outputs)


def _fit_output(output: tuple[str, int, tuple[int, ...] | None], value: Array, rows: int) -> Array:
    name, axes, sizes = output
    if value.ndim != axes and sizes is not None and value.size == rows * math.prod(sizes):
        value = value.reshape(rows, *sizes)
    if value.ndim != axes or value.shape[0] != rows:
        raise ModelError(
            f"output {name!r} has the shape {list(value.shape)} for {rows} rows",
            code="CL-E901",
            hint="the first axis of every output must be rows",
        )
    return value


def _closed(*_: object) -> Any:
    raise ModelError("the model was closed")


def fill_strings(column: Array) -> Array:
    """The strings with "" where one is missing: ONNX has no missing string."""
    if None not in column.ravel().tolist():
        return column
    filled = column.copy()
    filled[column == np.array(None)] = ""
    return filled


def _check_fields(what: str, fields: tuple[Field, ...], nodes: list[Any]) -> None:
    if len(fields) != len(nodes):
        raise ModelError(f"the signature has {len(fields)} {what}s, the graph {len(nodes)}")
    for field, node in zip(fields, nodes, strict=True):
        if DATATYPES.get(node.type) != field.datatype:
            raise ModelError(
                f"{what} {field.name!r} is {field.datatype} in the signature and {node.type} in the graph"
            )
