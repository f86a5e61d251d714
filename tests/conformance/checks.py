"""What every converter and every runtime must do; each check says which promise is broken."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from cloche.bundle.converters.base import PROOF_ROWS, Converted, Converter, ConvertOptions
from cloche.bundle.parity import compare
from cloche.core.errors import ModelError
from cloche.core.signature import NUMPY_TYPES, Columns, Signature, count_rows, take_rows
from cloche.runtimes.base import Runtime, RuntimePlace, load_runtime
from cloche.runtimes.files import Held


def check_converter(converter: Converter, model: object, rows: object) -> Converted:
    """Accepts its model and nothing else, and gives a Converted that a runtime answers exactly from."""
    assert converter.accepts(model)
    assert not converter.accepts(object()), "accepts anything"
    assert not converter.accepts({"a": 1})

    converted = converter.convert(model, rows, ConvertOptions())

    assert converted.framework and converted.description
    assert converted.task in {"classification", "regression", "other"}
    assert converted.runtime.entry.partition(":")[0] in converted.files
    assert all(name.startswith(("model/", "code/")) for name in converted.files)
    assert converted.columns is not None
    check_columns(converted.signature, converted.columns)
    with _loaded(converted) as runtime:
        answers = runtime.run(take_rows(converted.columns, 0, PROOF_ROWS))
        if converted.reference is not None:
            assert count_rows(converted.reference) == min(PROOF_ROWS, count_rows(converted.columns))
            compare(converted.reference, answers, rtol=1e-4, atol=1e-6)
        check_runtime(runtime, converted.signature, take_rows(converted.columns, 0, 8))
    again = converter.convert(model, rows, ConvertOptions())
    assert again.files == converted.files, "the same model gives other bytes the second time"
    assert msgspec.msgpack.encode(again.signature) == msgspec.msgpack.encode(converted.signature)
    return converted


def check_columns(signature: Signature, columns: Columns) -> None:
    """The columns are the signature's inputs, in order, of its types and shapes."""
    assert list(columns) == [field.name for field in signature.inputs]
    for field in signature.inputs:
        column = columns[field.name]
        assert column.dtype == NUMPY_TYPES[field.datatype], field.name
        assert column.ndim == len(field.shape), field.name


def check_runtime(runtime: Runtime, signature: Signature, columns: Columns) -> None:
    """Answers each row by itself as among others, in the signature's types and shapes, and ends for good."""
    rows = count_rows(columns)
    assert isinstance(runtime.in_process, bool)
    together = runtime.run(columns)
    assert list(together) == [field.name for field in signature.outputs]
    for field in signature.outputs:
        answer = together[field.name]
        assert answer.dtype == NUMPY_TYPES[field.datatype], field.name
        assert answer.shape[0] == rows
        assert answer.ndim == len(field.shape), field.name
        assert all(want in (-1, got) for want, got in zip(field.shape[1:], answer.shape[1:], strict=True))
        if field.datatype == "BYTES":
            assert all(isinstance(value, str) for value in answer.ravel())
    for row in range(rows):
        alone = runtime.run(take_rows(columns, row, row + 1))
        for name, answer in alone.items():
            if answer.dtype.kind == "f":
                np.testing.assert_allclose(answer[0], together[name][row], rtol=1e-5, atol=1e-7)
            else:
                assert np.array_equal(answer[0], together[name][row])
    before = {name: column.copy() for name, column in columns.items()}
    runtime.run(columns)
    assert all(np.array_equal(before[n], columns[n], equal_nan=columns[n].dtype.kind == "f") for n in columns)


def check_closing(load: Callable[[], Runtime], columns: Columns) -> None:
    """After close there are no answers, and closing again does no harm."""
    runtime = load()
    try:
        runtime.run(columns)
    finally:
        runtime.close()
        runtime.close()
    with pytest.raises(ModelError):
        runtime.run(columns)


class _loaded:  # noqa: N801 - reads as a verb
    def __init__(self, converted: Converted) -> None:
        files = converted.files
        place = RuntimePlace(digest="0" * 64)
        self._runtime = load_runtime(converted.runtime, converted.signature, Held(files), place)

    def __enter__(self) -> Runtime:
        return self._runtime

    def __exit__(self, *_: object) -> None:
        self._runtime.close()
