"""A class with `load` and `predict` takes columns as its annotations say and answers one value a row."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cloche.core.errors import ConfigError, ModelError
from cloche.core.signature import Field, Signature
from cloche.runtimes.model_class import ModelClass, read_class

TEXTS = {"text": np.array(["a", None], dtype=object)}


class Base:
    def load(self) -> None: ...


def test_lists_are_handed_where_lists_are_annotated_and_arrays_elsewhere() -> None:
    class Model(Base):
        def predict(
            self,
            texts: list[str],
            numbers: list[float],
            any_of: Sequence[int],
            older: typing.List[int],  # noqa: UP006 people still write it
            table: list[list[float]],
            array: npt.NDArray[np.float64],
            free,  # type: ignore[no-untyped-def]
        ) -> list[float]:
            self.seen = [texts, numbers, any_of, older, table, array, free]
            return numbers

    model = ModelClass(Model)
    columns: dict[str, Any] = {
        "texts": np.array(["a", None], dtype=object),
        "numbers": np.array([1.5, 2.5]),
        "any_of": np.array([1, 2]),
        "older": np.array([3, 4]),
        "table": np.zeros((2, 2)),
        "array": np.array([5.0, 6.0]),
        "free": np.array([7, 8]),
    }

    assert model.answer(columns)["value"].tolist() == [1.5, 2.5]
    *lists, array, free = model._model.seen
    assert lists == [["a", None], [1.5, 2.5], [1, 2], [3, 4], [[0.0, 0.0], [0.0, 0.0]]]
    assert array is columns["array"]
    assert free is columns["free"]


def test_what_is_missing_is_none_where_the_annotation_knows_none() -> None:
    class Model(Base):
        def predict(
            self,
            known: list[float],
            gaps: list[float | None],
            table: list[list[typing.Optional[float]]],  # noqa: UP045 people still write it
            array: npt.NDArray[np.float64],
        ) -> list[float]:
            self.seen = [known, gaps, table, array]
            return [0.0, 0.0]

    model = ModelClass(Model)
    nan = float("nan")
    model.answer(
        {
            "known": np.array([1.0, nan]),
            "gaps": np.array([nan, 2.0]),
            "table": np.array([[1.0, nan], [3.0, 4.0]]),
            "array": np.array([nan, nan]),
        }
    )

    known, gaps, table, array = model._model.seen
    assert known[0] == 1.0
    assert np.isnan(known[1])
    assert gaps == [None, 2.0]
    assert [type(value) for value in gaps] == [type(None), float]
    assert table == [[1.0, None], [3.0, 4.0]]
    assert np.isnan(array).all()


def test_a_parameter_with_a_default_may_stay_away() -> None:
    class Model(Base):
        def predict(self, text: list[str], scale: float = 2.0) -> list[float]:
            return [scale for _ in text]

    assert [parameter.required for parameter in read_class(Model).parameters] == [True, False]
    assert ModelClass(Model).answer(TEXTS)["value"].tolist() == [2.0, 2.0]


def test_as_many_rows_come_out_as_went_in() -> None:
    class Model(Base):
        def predict(self, text: list[str]) -> list[float]:
            return [1.0]

    with pytest.raises(ModelError, match=r"Model\.predict got 2 rows and gave 1 in 'value'") as caught:
        ModelClass(Model).answer(TEXTS)
    assert caught.value.code == "CL-E901"


def test_run_gives_the_types_of_the_signature() -> None:
    class Model(Base):
        def predict(self, text: list[str]) -> list[int]:
            return [1, 2]

    signature = Signature(inputs=(), outputs=(Field(name="value", datatype="FP32", shape=(-1,)),))

    assert ModelClass(Model).run(TEXTS, signature)["value"].dtype == np.float32


def test_load_is_called_once_before_the_first_rows() -> None:
    class Model:
        loads = 0

        def load(self) -> None:
            Model.loads += 1

        def predict(self, text: list[str]) -> list[int]:
            return [Model.loads for _ in text]

    model = ModelClass(Model)
    model.answer(TEXTS)

    assert model.answer(TEXTS)["value"].tolist() == [1, 1]


def no_load() -> type:
    class Model:
        def predict(self, text: list[str]) -> list[str]:
            return text

    return Model


def no_predict() -> type:
    return Base


def static() -> type:
    class Model(Base):
        @staticmethod
        def predict(text: list[str]) -> list[str]:
            return text

    return Model


def without_self() -> type:
    class Model(Base):
        def predict() -> list[str]:  # type: ignore[misc]
            return []

    return Model


def load_with_argument() -> type:
    class Model:
        def load(self, path: str) -> None: ...

        def predict(self, text: list[str]) -> list[str]:
            return text

    return Model


def star() -> type:
    class Model(Base):
        def predict(self, *columns: list[str]) -> list[str]:
            return columns[0]

    return Model


def by_position() -> type:
    class Model(Base):
        def predict(self, text: list[str], /) -> list[str]:
            return text

    return Model


def no_columns() -> type:
    class Model(Base):
        def predict(self) -> list[str]:
            return []

    return Model


def is_async() -> type:
    class Model(Base):
        async def predict(self, text: list[str]) -> list[str]:
            return text

    return Model


def unknown_name() -> type:
    class Model(Base):
        def predict(self, text: "list[Nowhere]") -> list[str]:  # type: ignore[name-defined]  # noqa: F821, UP037
            return text

    return Model


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_load, "Model has no `load`"),
        (no_predict, "Base has no `predict`"),
        (static, "`predict` of Model is a staticmethod"),
        (without_self, r"Model\.predict has no `self`"),
        (load_with_argument, r"Model\.load needs `path`"),
        (star, "names no column"),
        (by_position, "by position only"),
        (no_columns, "takes no columns"),
        (is_async, "async"),
        (unknown_name, "'Nowhere' is not defined"),
    ],
)
def test_a_class_that_can_not_be_called_is_refused_with_an_example(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read_class(make())
    assert "def predict(self, text: list[str])" in (caught.value.hint or "")
