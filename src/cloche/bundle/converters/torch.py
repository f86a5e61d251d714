"""PyTorch modules, as ONNX that is proven to answer as they do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cloche.bundle.converters.base import Converted, ConvertOptions, load_heavy
from cloche.core.errors import ConversionError

_FILES = frozenset({".pt", ".pth", ".pt2", ".ckpt"})


class TorchConverter:
    """A TorchConverter takes an `nn.Module`, or a program of `torch.export.export`."""

    name = "torch"

    def accepts(self, model: object) -> bool:
        """Whether it is PyTorch's; weights and files are as well, to be told what to give instead."""
        if isinstance(model, Path):
            return model.suffix in _FILES
        return _is_module(model) or _is_program(model) or _is_weights(model)

    def convert(self, model: object, rows: object | None, options: ConvertOptions) -> Converted:
        """The module exported in eval mode, and its own answers to the rows.

        Raises ConversionError (CL-E802), InputError, MissingExtraError.
        """
        if isinstance(model, Path):
            raise _refuse_file(model)
        if _is_weights(model):
            raise _refuse(
                "these are weights without the module that they belong to",
                "make the module, call module.load_state_dict(weights), and pack the module",
            )
        heavy = load_heavy("cloche.bundle.converters._torch", "a PyTorch module", "torch")
        converted: Converted = heavy.convert(model, rows, options)
        return converted


def _is_module(model: object) -> bool:
    parents = type(model).__mro__
    return any(each.__module__ == "torch.nn.modules.module" and each.__name__ == "Module" for each in parents)


def _is_program(model: object) -> bool:
    return type(model).__module__ == "torch.export.exported_program"


def _is_weights(model: object) -> bool:
    return isinstance(model, Mapping) and any(type(each).__module__ == "torch" for each in model.values())


def _refuse(message: str, hint: str) -> ConversionError:
    return ConversionError(message, code="CL-E802", hint=hint)


def _refuse_file(path: Path) -> ConversionError:
    if path.suffix == ".pt2":
        return _refuse(
            f"{path.name} may hold pickles, which are not read here",
            f"where you trust it: cloche.pack(torch.export.load({path.name!r}), X, name=...)",
        )
    return _refuse(
        f"{path.name} is TorchScript, a pickle or weights alone, and an nn.Module is wanted",
        "make the module in Python, load its weights (torch.load(..., weights_only=True)), and call "
        "cloche.pack(module, X, name=...)",
    )
