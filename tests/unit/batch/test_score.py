"""A source through a model: in order, in chunks, with every bad row named or set aside."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from cloche.batch import score as score_module
from cloche.batch.score import Score, score
from cloche.batch.sources import Sources
from cloche.core.errors import InputError
from cloche.core.signature import Columns, Field, Signature
from cloche.engine.validate import Validator

SIGNATURE = Signature(
    inputs=(Field(name="x", datatype="FP64", shape=(-1,)),),
    outputs=(Field(name="value", datatype="FP64", shape=(-1,)),),
)


class Kept:
    """A sink in memory."""

    def __init__(self) -> None:
        self.tables: list[Mapping[str, Any]] = []

    def write(self, table: Mapping[str, Any]) -> None:
        self.tables.append(table)

    def close(self) -> None: ...

    def column(self, name: str) -> list[Any]:
        return [value for table in self.tables for value in table[name]]


def double(columns: Columns) -> dict[str, Any]:
    Validator(SIGNATURE, "flag").check(columns)
    return {"value": columns["x"] * 2}


def run(text: str, sink: Kept, rejects: Kept | None = None) -> Score:
    with Sources(None, io.BytesIO(text.encode())) as source:
        return score(source, SIGNATURE, double, sink, rejects, progress=lambda done: None)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_module, "FEWEST", 10)
    monkeypatch.setattr(score_module, "MOST", 40)


def test_every_row_is_answered_in_order_with_what_is_carried_over() -> None:
    sink = Kept()
    done = run("id,x\n" + "".join(f"r{n},{n}\n" for n in range(100)), sink)
    assert (done.rows, done.rejected) == (100, 0)
    assert sink.column("value") == [2.0 * n for n in range(100)]
    assert sink.column("id") == [f"r{n}" for n in range(100)]
    assert len(sink.tables) > 3


def test_bad_rows_are_set_aside_as_they_came_with_their_number_and_reason() -> None:
    sink, rejects = Kept(), Kept()
    rows = ["abc" if n == 3 else "inf" if n in (25, 26) else "" if n == 60 else str(n) for n in range(1, 101)]
    done = run("x\n" + "".join(f'"{row}"\n' for row in rows), sink, rejects)
    assert (done.rows, done.rejected) == (100, 4)
    assert rejects.column("row") == [3, 25, 26, 60]
    assert rejects.column("x") == ["abc", "inf", "inf", ""]
    assert rejects.column("problem") == [
        "`x` is 'abc'", "`x` is infinite", "`x` is infinite", "`x` is null or NaN",
    ]  # fmt: skip
    assert sink.column("value") == [2.0 * n for n in range(1, 101) if n not in (3, 25, 26, 60)]


def test_without_a_place_for_them_the_first_bad_rows_end_it() -> None:
    rows = "".join("abc\n" if n in (35, 36) else f"{n}\n" for n in range(1, 101))
    with pytest.raises(InputError, match=r"row 35: `x` is 'abc' \(and 1 more\)") as caught:
        run("x\n" + rows, Kept())
    assert [detail["row"] for detail in caught.value.details] == [35, 36]
    assert "--rejects" in str(caught.value.hint)


def test_more_bad_rows_than_one_answer_lists_are_all_found() -> None:
    sink, rejects = Kept(), Kept()
    done = run("x\n" + "inf\n" * 90 + "1\n", sink, rejects)
    assert (done.rejected, sink.column("value")) == (90, [2.0])


def test_an_output_hides_a_carried_column_of_its_name() -> None:
    sink = Kept()
    done = run("value,x\n7,1\n", sink)
    assert (done.hidden, np.asarray(sink.column("value")).tolist()) == ({"value"}, [2.0])


def test_a_source_without_rows_is_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        run("x\n", Kept())
