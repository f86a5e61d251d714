"""Every converter keeps the promises of `cloche.bundle.converters.base`."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest
from tests.conformance import models
from tests.conformance.checks import check_converter

from cloche.bundle.converters.base import GROUP, find_converter
from cloche.core.errors import ConfigError


@pytest.mark.parametrize(
    "make", [models.classifier, models.regressor, models.pipeline], ids=lambda make: make.__name__
)
def test_sklearn_keeps_the_promises(make) -> None:
    model, rows = make()
    check_converter(find_converter(model), model, rows)


@pytest.mark.parametrize(
    "make",
    [
        models.xgboost_classifier,
        models.xgboost_regressor,
        models.lightgbm_classifier,
        models.lightgbm_regressor,
        models.boosted_pipeline,
    ],
    ids=lambda make: make.__name__,
)
def test_boosters_keep_the_promises(make) -> None:
    model, rows = make()
    check_converter(find_converter(model), model, rows)


def test_onnx_keeps_the_promises(tmp_path: Path) -> None:
    path, rows = models.onnx_file(tmp_path)
    check_converter(find_converter(path), path, rows)


def test_python_keeps_the_promises(tmp_path: Path) -> None:
    (tmp_path / "adder.py").write_text(models.PYTHON_CLASS)
    model = f"{tmp_path / 'adder.py'}:Adder"
    found = next(point for point in entry_points(group=GROUP) if point.name == "python").load()()
    target: object = model if found.accepts(model) else Path(model)
    check_converter(found, target, {"a": [1.0, 2.0, 3.5], "b": [0.5, -1.0, 2.0]})


def test_what_no_converter_knows_is_refused_with_what_can_be_packed() -> None:
    with pytest.raises(ConfigError, match=r"no converter knows a builtins\.dict") as caught:
        find_converter({})
    assert caught.value.code == "CL-E205"
    assert "scikit-learn" in (caught.value.hint or "")
