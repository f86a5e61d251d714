"""A step before the graph: columns of text become the tensors that a session takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeAlias

import numpy as np

from cloche.core.errors import ConfigError, ModelError
from cloche.core.signature import Array, Columns, Signature, count_rows
from cloche.runtimes.base import Runtime, StepSpec
from cloche.runtimes.steps_terms import TermsStep
from cloche.runtimes.steps_tokenizer import TokenizerStep

#: Which rows a chunk holds: a slice, or their places.
Places: TypeAlias = slice | Array


class Step(Protocol):
    """A Step makes tensors out of text."""

    def run(self, columns: Columns) -> Iterator[tuple[Places, Columns]]:
        """The tensors of all rows, so many at a time as the graph should get; at least one chunk."""
        ...


def load_step(spec: StepSpec, read: Callable[[str], bytes]) -> Step:
    """The step that `spec.kind` names. Raises ConfigError for another kind, MissingExtraError, ModelError."""
    if spec.kind == "terms":
        return TermsStep.load(spec, read)
    if spec.kind == "tokenizer":
        return TokenizerStep.load(spec, read)
    raise ConfigError(
        f"no step is called {spec.kind!r}; there are terms, tokenizer",
        code="CL-E205",
        hint="use the Cloche that packed it, or a newer one",
    )


class SteppedRuntime:
    """A SteppedRuntime lets a step make some of the inputs of the runtime inside."""

    in_process = True

    def __init__(self, step: Step, spec: StepSpec, inner: Runtime, signature: Signature) -> None:
        self._step = step
        self._inner: Runtime | None = inner
        #: Columns that go to the graph as they are.
        self._others = [field.name for field in signature.inputs if field.name not in spec.inputs]

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        inner = self._inner
        if inner is None:
            raise ModelError("the model was closed")
        answers: list[tuple[Places, Columns]] = []
        for places, tensors in self._step.run(columns):
            for name in self._others:
                tensors[name] = columns[name][places]
            answers.append((places, inner.run(tensors, timeout_s)))
        return answers[0][1] if len(answers) == 1 else _join(answers, count_rows(columns))

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()
            self._inner = None


def _join(answers: list[tuple[Places, Columns]], rows: int) -> Columns:
    """Every row's answer in its place."""
    joined: Columns = {}
    for name, first in answers[0][1].items():
        column = joined[name] = np.empty((rows, *first.shape[1:]), first.dtype)
        for places, outputs in answers:
            column[places] = outputs[name]
    return joined
