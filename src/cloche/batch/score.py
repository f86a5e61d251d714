"""A whole source through a model, chunk by chunk: memory stays flat, and bad rows are named or set aside."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from cloche.batch.fit import Fitted, fit, kept
from cloche.batch.sinks import Sink
from cloche.batch.sources import Chunk, Source
from cloche.batch.values import chosen
from cloche.core.errors import InputError
from cloche.core.signature import Columns, Signature
from cloche.engine.validate import MOST_PROBLEMS, Problem, refuse

#: Rows that are held at a time: as few as the runtime for many rows wants, more while that is quick.
FEWEST = 512
MOST = 10_000
_QUICK_S = 0.2

#: The answers to columns, a column an output; raises InputError, whose details name rows.
Predict = Callable[[Columns], Mapping[str, Any]]


class Score(msgspec.Struct, kw_only=True):
    """A Score is how far a source has come."""

    rows: int = 0
    rejected: int = 0
    #: Carried columns that were left out, since an output has their name.
    hidden: set[str] = msgspec.field(default_factory=set)


def score(
    source: Source,
    signature: Signature,
    predict: Predict,
    sink: Sink,
    rejects: Sink | None = None,
    *,
    progress: Callable[[Score], None],
) -> Score:
    """Read, predict and write until the source ends; columns that are no inputs are carried over.

    Rows that can't be answered go to `rejects` with their number and what is wrong. Without it the first chunk
    that has any raises InputError, which names them.
    """
    done = Score()
    size = FEWEST
    while (chunk := source.read(size)) is not None:
        began = time.monotonic()
        fitted = fit(chunk, signature, texts=source.kind == "csv")
        found = answer(fitted, chunk, predict)
        if rejects is None and fitted.problems:
            raise refusal(fitted.problems, chunk, source.name)
        if found.rows.size:
            done.hidden |= fitted.carried.keys() & found.outputs.keys()
            sink.write({**of_rows(fitted.carried, found.rows, chunk.rows), **found.outputs})
        if rejects is not None and fitted.problems:
            rejects.write(rejected(chunk, fitted.problems))
        done.rows += chunk.rows
        done.rejected += len(fitted.problems)
        progress(done)
        if time.monotonic() - began < _QUICK_S:
            size = min(2 * size, MOST)
    if not done.rows:
        raise InputError(f"{source.name} has no rows", code="CL-E102", hint="give at least one")
    return done


class Answers(msgspec.Struct, frozen=True):
    """Answers are the outputs, and the rows of the chunk that they are for."""

    outputs: Mapping[str, Any]
    rows: Any


def answer(fitted: Fitted, chunk: Chunk, predict: Predict) -> Answers:
    """The answers to all rows but those with a problem; what `predict` refuses is added to the problems."""
    while True:
        good = np.arange(chunk.rows)
        if fitted.problems:
            good = np.delete(good, list(fitted.problems))
        if not good.size:
            return Answers({}, good)
        try:
            return Answers(predict(kept(fitted.inputs, good) if fitted.problems else fitted.inputs), good)
        except InputError as error:
            found = [msgspec.convert(detail, Problem) for detail in error.details]
            if not any(problem.row is not None for problem in found):
                raise  # of no row: nothing to set aside
            for problem in found:
                if problem.row is not None:
                    row = int(good[problem.row])
                    message = re.sub(rf",? (?:in|of|from) row {problem.row}\b", "", problem.message)
                    moved = msgspec.structs.replace(problem, row=row, message=message)
                    fitted.problems.setdefault(row, []).append(moved)


def refusal(problems: Mapping[int, list[Problem]], chunk: Chunk, name: str) -> InputError:
    """The error for a chunk's problems, by the numbers of the rows in the source of this name."""
    listed = [
        msgspec.structs.replace(
            problem, row=chunk.first + row, message=f"row {chunk.first + row}: {problem.message}"
        )
        for row in sorted(problems)
        for problem in problems[row]
    ]
    error = refuse(listed[:MOST_PROBLEMS], where=name)
    hint = f"{error.hint}; " if error.hint else ""
    more = "".join(f"\n  {problem.message}" for problem in listed[1:4])
    return InputError(
        f"{error.message}{more}",
        code=error.code,
        where=name,
        hint=f"{hint}mend the rows, or set them aside with --rejects FILE (rows count from 1)",
        details=error.details,
    )


def of_rows(carried: Mapping[str, Any], rows: Any, all_rows: int) -> dict[str, Any]:
    """The carried columns of these rows, where they are not all."""
    if rows.size == all_rows:
        return dict(carried)
    return {name: chosen(values, rows) for name, values in carried.items()}


def rejected(chunk: Chunk, problems: Mapping[int, list[Problem]]) -> dict[str, Any]:
    """The rows as they came, so that they can be mended and read again, and what is wrong with each."""
    rows = np.array(sorted(problems), np.intp)
    return of_rows(chunk.columns, rows, -1) | {
        "row": [chunk.first + int(row) for row in rows],
        "problem": ["; ".join(problem.message for problem in problems[row]) for row in rows.tolist()],
    }
