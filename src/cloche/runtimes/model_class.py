"""A user's model class: what its `predict` takes, and how columns become its arguments."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from cloche.core.errors import ConfigError, ModelError
from cloche.core.signature import Array, Columns, Signature, count_rows
from cloche.runtimes.answers import read_answer, to_outputs

EXAMPLE = """class Sentiment:
          def load(self): self.words = ...
          def predict(self, text: list[str]) -> list[float]: ..."""


class Parameter(msgspec.Struct, frozen=True):
    """A Parameter is one argument of `predict`."""

    name: str
    #: Its annotation, resolved; None where there is none.
    annotation: Any
    #: It has no default.
    required: bool

    @property
    def as_list(self) -> bool:
        """Whether it is handed over as a Python list and not as a numpy array."""
        return (typing.get_origin(self.annotation) or self.annotation) in (list, Sequence)

    @property
    def takes_none(self) -> bool:
        """Whether it is a list, of lists maybe, of values that may be None."""
        value = self.annotation
        while arguments := typing.get_args(value):
            if type(None) in arguments:
                return True
            value = unwrap(arguments[0])
        return False

    def value_of(self, column: Array) -> Any:
        """The column as `predict` is given it."""
        if not self.as_list:
            return column
        if self.takes_none and column.dtype.kind == "f" and np.isnan(column).any():
            return np.where(np.isnan(column), None, column).tolist()  # type: ignore[call-overload]
        return column.tolist()


def unwrap(annotation: Any) -> Any:
    """What an alias made by `type` stands for (numpy's NDArray is one in its later versions)."""
    while hasattr(alias := typing.get_origin(annotation) or annotation, "__value__"):
        arguments = typing.get_args(annotation)
        annotation = alias.__value__[arguments] if arguments else alias.__value__
    return annotation


class Call(msgspec.Struct, frozen=True):
    """A Call is how `predict` of a class is called."""

    parameters: tuple[Parameter, ...]
    #: The annotation of what it returns, resolved; None where there is none.
    returns: Any


def read_class(model: type) -> Call:
    """How the class's `predict` is called.

    Raises ConfigError when it is no class with `load(self)` and `predict(self, ...)`, or its annotations
    name things that are not there.
    """
    name = model.__name__
    for verb in ("load", "predict"):
        method = inspect.getattr_static(model, verb, None)
        if method is None:
            raise _bad(f"{name} has no `{verb}`")
        if isinstance(method, (staticmethod, classmethod)):
            raise _bad(f"`{verb}` of {name} is a {type(method).__name__}")
        if not inspect.isfunction(method):
            raise _bad(f"`{verb}` of {name} is no method")
        if inspect.iscoroutinefunction(method) or inspect.isgeneratorfunction(method):
            raise _bad(f"`{verb}` of {name} is async or a generator")
    _check_load(model)
    try:
        hints = typing.get_type_hints(model.predict)  # type: ignore[attr-defined]
    except (NameError, TypeError, AttributeError) as error:
        raise _bad(f"the annotations of {name}.predict can't be read: {error}") from error
    parameters = []
    for parameter in _arguments(model.predict, f"{name}.predict"):  # type: ignore[attr-defined]
        if parameter.kind is parameter.VAR_POSITIONAL or parameter.kind is parameter.VAR_KEYWORD:
            raise _bad(f"{name}.predict takes `{parameter}`, which names no column")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise _bad(f"{name}.predict takes `{parameter.name}` by position only")
        required = parameter.default is parameter.empty
        parameters.append(Parameter(parameter.name, unwrap(hints.get(parameter.name)), required))
    if not parameters:
        raise _bad(f"{name}.predict takes no columns")
    return Call(tuple(parameters), unwrap(hints.get("return")))


def _check_load(model: type) -> None:
    for parameter in _arguments(model.load, f"{model.__name__}.load"):  # type: ignore[attr-defined]
        if parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise _bad(f"{model.__name__}.load needs `{parameter.name}`; it is called without arguments")


def _arguments(method: Any, where: str) -> list[inspect.Parameter]:
    """The parameters after `self`."""
    found = list(inspect.signature(method).parameters.values())
    if not found or found[0].kind not in (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.POSITIONAL_ONLY,
    ):
        raise _bad(f"{where} has no `self`")
    return found[1:]


def _bad(message: str) -> ConfigError:
    return ConfigError(message, hint=f"a model class looks like this:\n      {EXAMPLE}")


class ModelClass:
    """A ModelClass is one object of a user's class, made and loaded, that answers columns with columns."""

    def __init__(self, model: type) -> None:
        """Makes and loads it; whatever its code raises comes through."""
        self.call = read_class(model)
        self.name = model.__name__
        self._parameters = {parameter.name: parameter for parameter in self.call.parameters}
        self._model = model()
        self._model.load()

    def answer(self, columns: Columns) -> Columns:
        """What `predict` answers, as columns of the types that it came in.

        Raises ModelError when that is no column or has another number of rows; whatever `predict` raises
        comes through.
        """
        rows = count_rows(columns)
        arguments = {name: self._parameters[name].value_of(column) for name, column in columns.items()}
        answer = read_answer(self._model.predict(**arguments))
        for name, column in answer.items():
            if len(column) != rows:
                raise ModelError(
                    f"{self.name}.predict got {rows} rows and gave {len(column)} in {name!r}", code="CL-E901"
                )
        return answer

    def run(self, columns: Columns, signature: Signature) -> Columns:
        """The outputs of the signature, in its order and types. Raises as `answer` does."""
        return to_outputs(self.answer(columns), signature)
