"""The heavy half of the PyTorch converter: exports a module by torch.onnx and asks it for its own answers."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from cloche.core.errors import ConversionError
from cloche.runtimes.onnx import first_line

#: What torch.export and its exporter raise for code that they can't follow.
CANNOT = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def export(
    module: Any,
    args: tuple[Any, ...],
    input_names: list[str],
    output_names: list[str],
    dynamic: Mapping[str, Mapping[int, str]],
) -> bytes:
    """The bytes of an ONNX file of a module, as it answers in eval mode; the module is left as it was.

    `args` are example tensors in the order of `forward`, with two rows or more: an axis of one is taken for
    fixed. `dynamic` names the axes of an input that may have any size: {"x": {0: "rows"}}. Raises
    ConversionError (CL-E802).
    """
    shapes = tuple(dict(dynamic.get(name, {})) for name in input_names)
    with warnings.catch_warnings(), evaluating(module), torch.no_grad():
        # About the exporter's own inner affairs.
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                module,
                args,
                dynamo=True,
                input_names=input_names,
                output_names=output_names,
                dynamic_shapes=shapes,
                verbose=False,
            )
        except CANNOT as error:
            raise ConversionError(
                f"torch.onnx can't export {type(module).__name__}: {first_line(error)}",
                code="CL-E802",
                hint="see what torch.export.export(model, args) says, or pack a Python class",
            ) from error
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    return data


@contextlib.contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """The module in eval mode for a while; each part of it is then as it was."""
    training = [part for part in module.modules() if part.training] if isinstance(module, torch.nn.Module) else []
    if training:
        module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
