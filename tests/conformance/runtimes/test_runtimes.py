"""Every runtime keeps the promises of `cloche.runtimes.base`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.conformance import models
from tests.conformance.checks import check_closing, check_runtime

from cloche.bundle.converters.base import Converted, ConvertOptions, find_converter
from cloche.core.errors import ConfigError
from cloche.core.signature import Columns, Field, Signature, take_rows
from cloche.runtimes.base import Runtime, RuntimePlace, RuntimeSpec, load_runtime
from cloche.runtimes.files import Held

Loader = tuple[Callable[[], Runtime], Signature, Columns]
PLACE = RuntimePlace(digest="0" * 64)


def loader_of(converted: Converted) -> Loader:
    def load() -> Runtime:
        return load_runtime(converted.runtime, converted.signature, Held(converted.files), PLACE)

    assert converted.columns is not None
    return load, converted.signature, take_rows(converted.columns, 0, 5)


@pytest.fixture(params=["onnx", "python"])
def loader(request: pytest.FixtureRequest, tmp_path: Path) -> Loader:
    if request.param == "onnx":
        model, rows = models.pipeline()
        return loader_of(find_converter(model).convert(model, rows, ConvertOptions()))
    signature = Signature(
        inputs=tuple(Field(name=name, datatype="FP64", shape=(-1,)) for name in "ab"),
        outputs=(Field(name="total", datatype="FP64", shape=(-1,)),),
    )
    spec = RuntimeSpec(kind="python", entry="code/adder.py:Adder")
    code = models.PYTHON_CLASS.encode()
    columns = {"a": np.array([1.0, 2.0]), "b": np.array([0.5, 0.25])}
    return lambda: load_runtime(spec, signature, Held({"code/adder.py": code}), PLACE), signature, columns


def test_answers_as_the_signature_says(loader: Loader) -> None:
    load, signature, columns = loader
    runtime = load()
    try:
        check_runtime(runtime, signature, columns)
    finally:
        runtime.close()


def test_is_closed_for_good(loader: Loader) -> None:
    load, _, columns = loader
    check_closing(load, columns)


def test_a_runtime_that_is_not_there_is_named() -> None:
    spec = RuntimeSpec(kind="abacus", entry="model/model.abc")
    with pytest.raises(ConfigError, match="no runtime is called 'abacus'; there are onnx, python"):
        load_runtime(spec, Signature(inputs=(), outputs=()), Held({}), PLACE)
