"""The process without network that reads a pickle, converts it and answers on its standard output."""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from cloche.bundle.converters.base import find_converter
from cloche.bundle.pickle_wire import Answer, Failure, Question, decode_question, encode, encode_answer
from cloche.core.errors import ClocheError, MissingExtraError


def main() -> None:
    # What the pickle prints must not come between: the answer has the standard output for itself.
    answer_to = os.dup(1)
    os.dup2(2, 1)
    question = decode_question(sys.stdin.buffer.read())
    with os.fdopen(answer_to, "wb") as out:
        out.write(_answer(question))


def _answer(question: Question) -> bytes:
    try:
        model, saved_by = _read(Path(question.path))
        rows = None if question.rows is None else question.rows.columns()
        converted = find_converter(model).convert(model, rows, question.options)
        if saved_by is not None:
            converted.framework += f", saved by {saved_by}"
        return encode_answer(converted)
    except ClocheError as error:
        return encode(Answer(failure=Failure.of(error)))
    except Exception as error:  # noqa: BLE001 - the edge of this process: a pickle may raise anything
        words = f"reading it raised {type(error).__name__}: {error}"
        return encode(Answer(failure=Failure(kind="ConversionError", message=words, code="CL-E800")))


def _read(path: Path) -> tuple[Any, str | None]:
    """The model, and the version of scikit-learn that saved it where that is another than this."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            try:
                load = import_module("joblib").load
            except ImportError:
                model = pickle.loads(path.read_bytes())
            else:
                model = load(path)
        except ModuleNotFoundError as error:
            missing = (error.name or "a module").partition(".")[0]
            raise MissingExtraError(
                f"it was saved with {missing}, which is not installed here",
                code="CL-E701",
                hint=f"install {missing} in the version that saved the file, or pack from Python",
            ) from None
    versions = [getattr(each.message, "original_sklearn_version", None) for each in caught]
    return model, next((version for version in versions if version), None)


if __name__ == "__main__":
    main()
