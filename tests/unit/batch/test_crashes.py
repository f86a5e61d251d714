"""A run that is killed anywhere and resumed leaves what an undisturbed one does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.unit.batch.crashing import in_another_process, predicted
from tests.unit.batch.running import new_sink, pinned, plan, read_sink, rows, run, write_source

from cloche.batch.pipeline import depth

COUNT, CHUNK, KILLS = 20_000, 500, 8


def checksum(sink: str) -> str:
    """Of all rows, but for the time at which each was predicted."""
    found = read_sink(sink)
    del found["predicted_at"]
    return hashlib.sha256(repr(found).encode()).hexdigest()


@pytest.mark.parametrize("kind", ["parquet", "sqlite", "postgresql"])
def test_a_run_that_is_killed_at_random_leaves_what_an_undisturbed_one_does(
    kind: str, tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    source = write_source("parquet", tmp_path, rows(COUNT))
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()
    calm, killed = (
        pinned(plan(source, new_sink(kind, tmp_path / name, postgresql), chunk=CHUNK))
        for name in ("calm", "killed")
    )
    run(calm)
    log = tmp_path / "log"

    what = f"{msgspec.json.encode(killed)!r}, Path({str(log)!r})"
    kills = in_another_process(f"kill_at_random({what}, kills={KILLS}, within_s=0.15, slowly=0.03)")

    assert kills >= 3
    found = read_sink(killed.sink)
    assert sorted(found["id"]) == list(range(COUNT))
    assert checksum(killed.sink) == checksum(calm.sink)
    assert COUNT <= predicted(log) <= COUNT + kills * depth() * CHUNK


@pytest.mark.parametrize("kind", ["parquet", pytest.param("csv", marks=pytest.mark.heavy), "folder"])
def test_a_kill_at_any_step_to_the_disk_loses_and_doubles_nothing(kind: str, tmp_path: Path) -> None:
    assert in_another_process(f"kill_at_every_step(Path({str(tmp_path)!r}), {kind!r})") > 15
