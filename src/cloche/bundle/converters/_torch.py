"""The heavy half of the PyTorch converter: exports a module by torch.onnx and asks it for its own answers."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import onnx
import onnxscript  # noqa: F401 - what the exporter needs: its lack is told before, not in the middle
import torch

from cloche.bundle.converters import _classes, _network
from cloche.bundle.converters._onnx_file import MAX_BYTES, convert_model
from cloche.bundle.converters.base import Converted, ConvertOptions
from cloche.bundle.measure import repeat_rows
from cloche.core.errors import ConversionError, InputError
from cloche.core.signature import Columns
from cloche.runtimes.onnx import first_line

#: What torch.export and its exporter raise for code that they can't follow.
CANNOT = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

#: An axis of one is taken for fixed.
_EXAMPLES = 2

#: PyTorch's loggers write on their own; the exporter's notes are about its inner affairs.
_log = logging.getLogger("torch")


def convert(model: Any, rows: object | None, options: ConvertOptions) -> Converted:
    """The module or exported program as ONNX, with its own answers to the rows. Raises ConversionError."""
    if isinstance(model, torch.jit.ScriptModule):
        raise _refuse("TorchScript can't be exported", "pack the nn.Module that it was made from")
    program = isinstance(model, torch.export.ExportedProgram)
    module = model.module() if program else model
    size, is_classes = _size(module), _classes.check_task(options)
    names = list(model.graph_signature.user_inputs) if program else _parameters(module)
    columns = _network.to_tensors(rows, names, _floats(module))
    with _undisturbed(model):
        reference = _network.ask(lambda few: _answer(module, few), columns, rtol=options.rtol, atol=options.atol)
        row_s = _network.time_one_row(lambda few: _answer(module, few), columns)
    data = export(
        model,
        _examples(module, columns),
        list(columns),
        list(reference),
        {name: {0: "rows"} for name in columns},
    )
    graph = onnx.load_from_string(data)
    _check_rows_open(graph, type(model).__name__, program=program)
    if is_classes:
        reference = _classes.classify(graph, reference)
    converted = convert_model(graph, columns)
    if is_classes:
        converted = _classes.with_classes(converted)
    return msgspec.structs.replace(
        converted,
        framework=f"PyTorch {torch.__version__}",
        description=_describe(module, model),
        reference=reference,
        original_bytes=size,
        original_row_s=row_s,
    )


def export(
    module: Any,
    args: tuple[Any, ...],
    input_names: list[str],
    output_names: list[str],
    dynamic: Mapping[str, Mapping[int, str]],
) -> bytes:
    """The bytes of an ONNX file of a module, as it answers in eval mode; the module is left as it was.

    `args` are example tensors in the order of `forward`, with two rows or more: an axis of one is taken for
    fixed. `dynamic` names the axes of an input that may have any size: {"x": {0: "rows"}}; an exported program
    has its own already. Raises ConversionError (CL-E802).
    """
    shapes = tuple(dict(dynamic.get(name, {})) for name in input_names)
    with _undisturbed(module):
        try:
            program = torch.onnx.export(
                module,
                args,
                dynamo=True,
                input_names=input_names,
                output_names=output_names,
                dynamic_shapes=None if isinstance(module, torch.export.ExportedProgram) else shapes,
                verbose=False,
            )
        except CANNOT as error:
            raise _no_export(module, error) from error
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    return data


@contextlib.contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """Eval mode, without gradients, warnings and prints, for a while; each part of a module is then as it was."""
    training = [part for part in model.modules() if part.training] if isinstance(model, torch.nn.Module) else []
    if training:
        model.eval()
    level = _log.level
    _log.setLevel(logging.ERROR)
    nowhere = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            torch.no_grad(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        _log.setLevel(level)
        for part in training:
            part.training = True


def _refuse(message: str, hint: str) -> ConversionError:
    return ConversionError(message, code="CL-E802", hint=hint)


def _fixed_rows(name: str, *, program: bool = False) -> ConversionError:
    return _refuse(
        f"{name} works for one number of rows only",
        "export it with dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)"
        if program
        else "leave the rows open: write -1, or x.shape[0], where view, reshape and expand want their number",
    )


def _check_rows_open(graph: Any, name: str, *, program: bool) -> None:
    for value in graph.graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) and dims[0].HasField("dim_value"):
            raise _fixed_rows(name, program=program)


def _no_export(module: Any, error: BaseException) -> ConversionError:
    """What stands at the root of an exporter's error, in words that say what to do."""
    while error.__cause__ is not None:
        error = error.__cause__
    said, name = str(error), type(module).__name__
    if "static shape" in said and "shape[0]" in said:
        return _fixed_rows(name)
    if "data-dependent" in said:
        return _refuse(
            f"what {name} does depends on values: {said.splitlines()[0]}",
            "choose by torch.where or torch.cond instead of `if`, or pack a Python class",
        )
    return _refuse(
        f"torch.onnx can't export {name}: {said.strip().partition(chr(10))[0]}",
        "see what torch.export.export(module, args) says, or pack a Python class",
    )


def _parameters(module: Any) -> list[str]:
    """The names that `forward` gives its inputs; those with a default come after the others."""
    found = inspect.signature(module.forward).parameters.values()
    return [each.name for each in found if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]


def _tensors(module: Any) -> Iterator[Any]:
    yield from module.parameters()
    yield from module.buffers()


def _size(module: Any) -> int:
    """Bytes of all weights. Raises ConversionError for what no ONNX file holds."""
    size: int = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(module))
    if size > MAX_BYTES:
        raise _refuse("the weights are above 2 GB", "models of that size are not packed")
    return size


def _floats(module: Any) -> Any:
    """numpy's type for the numbers that the module computes with."""
    kinds = {tensor.dtype for tensor in _tensors(module) if tensor.is_floating_point()}
    if torch.bfloat16 in kinds:
        raise _refuse("the module computes in bfloat16, which no client can send", "pack module.float()")
    found = next((tensor.dtype for tensor in _tensors(module) if tensor.is_floating_point()), torch.float32)
    return torch.empty(0, dtype=found).numpy().dtype


def _examples(module: Any, columns: Columns) -> tuple[Any, ...]:
    device = next((tensor.device for tensor in _tensors(module)), torch.device("cpu"))
    found = repeat_rows(columns, _EXAMPLES)
    return tuple(torch.from_numpy(column).to(device) for column in found.values())


def _answer(module: Any, columns: Columns) -> Columns:
    device = next((tensor.device for tensor in _tensors(module)), torch.device("cpu"))
    try:
        answer = module(*(torch.from_numpy(column).to(device) for column in columns.values()))
    except CANNOT as error:
        if "Guard failed" in str(error) and ".size()[0]" in str(error):
            raise _fixed_rows("the exported program", program=True) from error
        raise InputError(
            f"the module itself fails on these rows: {first_line(error)}",
            code="CL-E105",
            hint="give rows as module(...) takes them, any number of them at a time",
        ) from error
    return {name: tensor.cpu().numpy() for name, tensor in _named(answer).items()}


def _named(answer: Any) -> dict[str, Any]:
    """The tensors of an answer by name: of a dict its keys, else `output`, `output_0`, ..."""
    if isinstance(answer, torch.Tensor):
        found = {"output": answer}
    elif isinstance(answer, Mapping):
        found = {str(name): each for name, each in answer.items() if each is not None}
    elif isinstance(answer, (list, tuple)):
        found = {f"output_{place}": each for place, each in enumerate(answer) if each is not None}
    else:
        found = {"output": answer}
    strange = sorted({type(each).__name__ for each in found.values() if not isinstance(each, torch.Tensor)})
    if strange or not found:
        raise _refuse(
            f"forward returns {' and '.join(strange) or 'nothing'}, and a tensor is wanted",
            "pack a module whose forward returns one tensor, or a tuple or dict of tensors",
        )
    return found


def _describe(module: Any, model: Any) -> str:
    count = sum(tensor.numel() for tensor in module.parameters())
    name = "ExportedProgram" if module is not model else type(module).__name__
    return f"{name} of {count:,} parameters"
