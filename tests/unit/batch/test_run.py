"""A run reads any source, writes any sink, and leaves each row once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.unit.batch.running import (
    SIGNATURE,
    execute,
    new_sink,
    pinned,
    plan,
    predict,
    read_sink,
    rows,
    run,
    write_source,
)

from cloche.batch.plan import Progress
from cloche.batch.run import run_batch
from cloche.core.errors import BusyError, ClocheError, ConfigError, ConflictError, RefusedError

COUNT = 450
SOURCES = ("parquet", "csv", "csv.gz", "jsonl", "jsonl.gz", "glob", "sqlite", "postgresql")
SINKS = ("parquet", "csv", "jsonl", "folder", "sqlite", "postgresql")
#: Each kind of source and each kind of sink.
PAIRS = [*((source, "parquet") for source in SOURCES), *(("parquet", sink) for sink in SINKS[1:])]


@pytest.mark.parametrize(("source", "sink"), PAIRS)
def test_each_row_of_a_source_is_answered_once_in_a_sink(
    source: str, sink: str, tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    table = rows(COUNT)
    wanted = pinned(plan(write_source(source, tmp_path, table, postgresql), new_sink(sink, tmp_path, postgresql)))
    told: list[Progress] = []

    done = run(wanted, told=told)

    assert (done.end, done.rows, done.rejected) == ("completed", COUNT, 0)
    assert told[-1].rows == COUNT
    found = read_sink(wanted.sink)
    assert [int(key) for key in found["id"]] == table["id"]
    assert found["note"] == table["note"]
    expected = [number % 7 / 7 if number % 2 == 0 else 0 for number in range(COUNT)]
    assert [float(one) for one in found["probabilities.yes"]] == pytest.approx(expected)
    assert found["label"] == ["yes" if one > 0.5 else "no" for one in expected]
    assert set(found["model_version"]) == {"toy:3"}
    assert set(found["run_id"]) == {wanted.run}
    assert len(set(found["predicted_at"])) >= 4
    assert run(wanted).rows == COUNT  # a run that is finished has nothing left to do
    assert [int(key) for key in read_sink(wanted.sink)["id"]] == table["id"]


def test_files_go_into_each_database_of_each_source(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    wanted = plan(
        write_source("postgresql", tmp_path, rows(COUNT), postgresql), new_sink("postgresql", tmp_path, postgresql)
    )
    assert run(wanted).rows == COUNT
    assert read_sink(wanted.sink)["id"] == list(range(COUNT))


@pytest.mark.parametrize("sink", ["sqlite", "postgresql"])
def test_a_later_run_replaces_the_row_of_a_key_and_adds_others(
    sink: str, tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    place = new_sink(sink, tmp_path, postgresql)
    run(plan(write_source("parquet", tmp_path, rows(200)), place))
    later = rows(200, start=150)
    later["note"][10:12] = ["", "new"]
    later["id"][11] = later["id"][10]  # the last row of a key stays

    run(msgspec.structs.replace(plan(write_source("parquet", tmp_path, later), place), run="run_ba9876543210"))

    found = read_sink(place)
    assert found["id"] == list(range(350))
    assert found["note"][160] == "new"
    assert found["run_id"][149:151] == ["run_0123456789ab", "run_ba9876543210"]


@pytest.mark.parametrize("sink", ["sqlite", "postgresql"])
def test_rows_go_into_a_table_that_is_there_by_its_types(
    sink: str, tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    place = new_sink(sink, tmp_path, postgresql)
    stamps = "model_version text, run_id text, predicted_at text, more integer DEFAULT 5"
    execute(
        place,
        'CREATE TABLE scores (note varchar(40), id integer UNIQUE, label text, "probabilities.yes" numeric, '
        f'"probabilities.no" double precision, {stamps})',
    )
    wanted = plan(write_source("parquet", tmp_path, rows(COUNT)), place)
    assert run(wanted).end == "completed"
    found = read_sink(place)
    assert (found["id"], set(found["more"])) == (list(range(COUNT)), {5})
    assert [float(one) for one in found["probabilities.yes"]][4] == pytest.approx(4 / 7)


@pytest.mark.parametrize("sink", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    ("columns", "message"),
    [("id integer PRIMARY KEY, label text", "has no column 'note'"), ("", "nothing makes 'id' unique")],
)
def test_a_table_that_rows_do_not_fit_is_refused(
    sink: str, columns: str, message: str, tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    place = new_sink(sink, tmp_path, postgresql)
    every = (
        'id integer, note text, label text, "probabilities.no" real, "probabilities.yes" real, '
        "model_version text, run_id text, predicted_at text"
    )
    execute(place, f"CREATE TABLE scores ({columns or every})")
    with pytest.raises(ConfigError, match=message) as caught:
        run(plan(write_source("parquet", tmp_path, rows(5)), place))
    assert caught.value.code == "CL-E210"


@pytest.mark.parametrize("kind", ["parquet", "sqlite", "postgresql"])
def test_a_source_that_changed_since_the_run_began_is_not_read_on(
    kind: str, tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    source = write_source(kind, tmp_path, rows(COUNT), postgresql)
    wanted = pinned(plan(source, new_sink("csv", tmp_path)))
    stopped = run(wanted, is_stopped=iter([False, True]).__next__)
    assert (stopped.end, stopped.rows) == ("cancelled", 100)
    if kind == "parquet":
        write_source(kind, tmp_path, rows(COUNT, start=1))
    else:
        execute(source, "DELETE FROM orders WHERE id > 400")
    with pytest.raises(ConflictError) as caught:
        run(wanted)
    assert caught.value.code == "CL-E509"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_rows_that_come_to_a_table_after_the_start_are_left_to_the_next_run(
    kind: str, tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    source = write_source(kind, tmp_path, rows(COUNT), postgresql)
    wanted = pinned(plan(source, new_sink("parquet", tmp_path)))
    run(wanted, is_stopped=iter([False, True]).__next__)
    execute(source, "INSERT INTO orders VALUES (9999, 1, 'k1', true, 'late')")
    told: list[Progress] = []
    assert run(wanted, told=told).rows == COUNT
    assert (told[0].rows, told[0].resumed, told[-1].total) == (100, 100, COUNT)
    assert read_sink(wanted.sink)["id"] == list(range(COUNT))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_rows_of_one_key_are_never_parted(kind: str, tmp_path: Path, postgresql: Callable[[], str]) -> None:
    source = write_source(kind, tmp_path, rows(30), postgresql)
    if kind == "sqlite":
        execute(source, "CREATE TABLE twice (id, x REAL, kind, sure BOOLEAN, note)")
        execute(source, "INSERT INTO twice SELECT * FROM orders")
        source = source.replace("table=orders", "table=twice")
    execute(source, f"UPDATE {'twice' if kind == 'sqlite' else 'orders'} SET id = 8 WHERE id IN (9, 10, 11)")
    wanted = plan(source, new_sink("jsonl", tmp_path), chunk=10)
    assert run(wanted).rows == 30
    assert sorted(read_sink(wanted.sink)["note"]) == sorted(rows(30)["note"])
    with pytest.raises(ConfigError, match="more than 3 rows"):
        run(msgspec.structs.replace(wanted, chunk=3, run="run_2"))


@pytest.mark.parametrize("sink", ["csv", "parquet", "sqlite", "postgresql"])
def test_bad_rows_are_set_aside_with_their_reasons(
    sink: str, tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    table = rows(COUNT)
    table["x"][7] = "much"
    table["x"][320] = table["id"][321] = None
    wanted = plan(
        write_source("jsonl", tmp_path, table), new_sink(sink, tmp_path, postgresql),
        rejects=str(tmp_path / "bad.csv"), fail_above=0.01,
    )  # fmt: skip
    done = run(wanted)
    assert (done.end, done.rows, done.rejected) == ("completed with rejects", COUNT, 3)
    bad = read_sink(str(wanted.rejects))
    assert (bad["row"], bad["id"]) == ([8, 321, 322], [7, 320, None])
    assert bad["problem"] == ["`x` is 'much'", "`x` is null or NaN", "the key `id` is missing"]
    assert [int(key) for key in read_sink(wanted.sink)["id"]] == [
        n for n in range(COUNT) if n not in (7, 320, 321)
    ]


def test_more_bad_rows_than_are_allowed_fail_the_run_and_can_be_looked_at(tmp_path: Path) -> None:
    table = rows(200)
    table["x"][150:160] = [float("inf")] * 10
    wanted = plan(
        write_source("parquet", tmp_path, table), new_sink("parquet", tmp_path),
        rejects=str(tmp_path / "bad.jsonl"), fail_above=0.04,
    )  # fmt: skip
    done = run(wanted)
    assert (done.end, done.why) == ("failed", "10 of 200 rows were rejected (5.00%), above 4.00%")
    assert read_sink(str(wanted.rejects))["row"] == list(range(151, 161))
    assert not Path(wanted.sink).exists()
    assert run(msgspec.structs.replace(wanted, fail_above=0.1)).end == "completed with rejects"
    assert len(read_sink(wanted.sink)["id"]) == 190


def test_without_a_place_for_them_the_first_bad_rows_end_the_run_and_what_is_safe_stays(tmp_path: Path) -> None:
    table = rows(300)
    table["x"][250] = "much"
    wanted = plan(write_source("jsonl", tmp_path, table), new_sink("sqlite", tmp_path))
    done = run(wanted)
    assert (done.end, done.rows) == ("failed", 200)
    assert done.why.startswith("row 251: `x` is 'much'")
    assert read_sink(wanted.sink)["id"] == list(range(200))


def test_only_what_is_kept_is_carried_over(tmp_path: Path) -> None:
    wanted = plan(write_source("csv", tmp_path, rows(20)), new_sink("parquet", tmp_path), keep=("kind",))
    run(wanted)
    assert [*read_sink(wanted.sink)][:3] == ["id", "kind", "label"]
    with pytest.raises(ConfigError, match="no column 'price'"):
        run(msgspec.structs.replace(wanted, keep=("price",), run="run_2"))


def test_a_role_without_the_right_to_a_ledger_is_refused_or_told_so(
    tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    place = new_sink("postgresql", tmp_path, postgresql)
    source = write_source("parquet", tmp_path, rows(50))
    columns = 'id bigint, note text, label text, "probabilities.no" real, "probabilities.yes" real'
    execute(place, f"CREATE TABLE scores ({columns}, model_version text, run_id text, predicted_at timestamptz)")
    execute(place, "DROP ROLE IF EXISTS weak")
    execute(place, "CREATE ROLE weak LOGIN")
    execute(place, "GRANT SELECT, INSERT ON scores TO weak")
    weak = plan(source, place.replace("cloche@", "weak@"), key=None)
    try:
        with pytest.raises(RefusedError, match="cloche_chunks") as caught:
            run(weak)
        assert caught.value.code == "CL-E416"
        assert run(msgspec.structs.replace(weak, at_least_once=True)).end == "completed"
        assert read_sink(place)["id"] == list(range(50))
    finally:
        execute(place, "DROP OWNED BY weak")
        execute(place, "DROP ROLE weak")


@pytest.mark.parametrize("sink", ["parquet", "sqlite", "postgresql"])
def test_two_processes_are_not_at_one_run(sink: str, tmp_path: Path, postgresql: Callable[[], str]) -> None:
    wanted = plan(write_source("parquet", tmp_path, rows(300)), new_sink(sink, tmp_path, postgresql))
    other: list[bool] = []

    def meddle() -> bool:
        if not other:
            other.append(True)
            run(wanted)
        return False

    with pytest.raises(ConflictError) as caught:
        run(wanted, is_stopped=meddle)
    assert caught.value.code == "CL-E510"


@pytest.mark.parametrize(
    ("source", "sink", "code"),
    [
        ("nothing.parquet", "out.csv", "CL-E303"),
        ("no-*.csv", "out.csv", "CL-E303"),
        ("sqlite:///nothing.db?table=a", "out.csv", "CL-E303"),
        ("sqlite:///nothing.db", "out.csv", "CL-E209"),
        ("s3://bucket/a.parquet", "out.csv", "CL-E209"),
        ("in.csv", "out.txt", "CL-E206"),
        ("in.csv", "no/out.csv", "CL-E303"),
        ("in.csv", "sqlite:///out.db?query=SELECT 1", "CL-E209"),
        ("in.csv", "postgresql://cloche@127.0.0.1:1/none?table=a", "CL-E608"),
    ],
)
def test_a_place_that_is_not_there_or_none_is_told_with_what_to_do(
    source: str, sink: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_source("csv", tmp_path, rows(3))
    with pytest.raises(ClocheError) as caught:
        run(plan(source, sink))
    assert caught.value.code == code
    assert caught.value.hint


def test_a_table_needs_a_key_that_each_row_has(tmp_path: Path) -> None:
    source = write_source("sqlite", tmp_path, rows(3))
    with pytest.raises(ConfigError, match="read by a key"):
        run(plan(source, str(tmp_path / "out.csv"), key=None))
    execute(source, "CREATE TABLE loose AS SELECT NULL AS id, x FROM orders")
    with pytest.raises(ConfigError, match="have no key"):
        run(plan(source.replace("orders", "loose"), str(tmp_path / "out.csv")))


def test_addresses_are_looked_up_and_passwords_are_not_told(tmp_path: Path) -> None:
    source = write_source("csv", tmp_path, rows(3))
    sink = new_sink("csv", tmp_path)
    found = run_batch(
        plan("env:ORDERS", "file:sink.txt"), SIGNATURE, predict,
        look_up={"env:ORDERS": source, "file:sink.txt": sink}.__getitem__,
        tell=lambda progress: None, is_stopped=lambda: False,
    )  # fmt: skip
    assert (found.rows, read_sink(sink)["id"]) == (3, [0, 1, 2])
    with pytest.raises(BusyError) as caught:
        run(plan(source, "postgresql://me:secret@127.0.0.1:1/none?table=a"))
    assert "secret" not in caught.value.render()
