"""`[batch.X]`: what a nightly run is described by, and every mistake in it named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloche.batch.schedule import Schedule
from cloche.core.errors import ConfigError
from cloche.settings import Batch, load_settings, tell_settings
from cloche.settings.carry import from_json, to_json

LEAST = '[batch.nightly]\nmodel = "fraud@champion"\nsource = "rows/*.parquet"\nsink = "scores.parquet"\n'


def load(folder: Path, text: str, environ: dict[str, str] | None = None) -> Any:
    (folder / "cloche.toml").write_text(text)
    return load_settings(directory=folder, environ=environ or {})


def test_the_rest_has_a_default_and_paths_start_at_the_file(tmp_path: Path) -> None:
    (batch,) = load(tmp_path, LEAST).batch
    assert batch == Batch(
        name="nightly",
        model="fraud@champion",
        source=f"{tmp_path}/rows/*.parquet",
        sink=f"{tmp_path}/scores.parquet",
        key=None,
        keep=None,
        schedule=None,
        chunk=10_000,
        deadline_s=None,
        rejects=None,
        fail_above=0.0,
        at_least_once=False,
    )


def test_all_of_it_can_be_said(tmp_path: Path) -> None:
    (batch,) = load(
        tmp_path,
        LEAST
        + """key = "id"
keep = ["plan"]
schedule = "0 2 * * *"
timezone = "Europe/Berlin"
catch_up = "none"
chunk = 500
deadline = "5h"
rejects = { to = "bad.csv" }
at_least_once = true
""",
    ).batch
    assert batch.schedule == Schedule(cron="0 2 * * *", timezone="Europe/Berlin", catch_up="none")
    assert (batch.key, batch.keep, batch.chunk, batch.deadline_s) == ("id", ("plan",), 500, 18_000.0)
    assert (batch.rejects, batch.fail_above, batch.at_least_once) == (tmp_path / "bad.csv", 0.01, True)


@pytest.mark.parametrize(
    ("written", "held"),
    [
        ("env:SCORES", "env:SCORES"),
        ("file:secrets/db", "file:{}/secrets/db"),
        ("sqlite:///shop.db?table=scores", "sqlite:///{}/shop.db?table=scores"),
        ("sqlite:////data/shop.db?query=SELECT 1", "sqlite:////data/shop.db?query=SELECT 1"),
        ("postgresql://a@db/shop?table=scores", "postgresql://a@db/shop?table=scores"),
        ("scores/", "{}/scores/"),
    ],
)
def test_what_points_to_a_place_is_kept_for_who_runs_it(tmp_path: Path, written: str, held: str) -> None:
    (batch,) = load(tmp_path, LEAST.replace("scores.parquet", written)).batch
    assert batch.sink == held.format(tmp_path)


@pytest.mark.parametrize(
    ("line", "said", "hint"),
    [
        ('schedule = "0 2 * *"', "4 fields", "0 2 * * *"),
        ('schedule = "61 2 * * *"', "the minute", "0 2 * * *"),
        ('schedule = "* * * * * *"', "6 fields", "0 2 * * *"),
        ('timezone = "Europe/Berlin"', "without a schedule", "schedule ="),
        ('catch_up = "all"', "without a schedule", "schedule ="),
        ('schedule = "0 2 * * *"\ntimezone = "Berlin"', "not a time zone", "Europe/Berlin"),
        ('schedule = "0 2 * * *"\ncatch_up = "some"', "is not a policy", "latest, all or none"),
        ("chunk = 0", "from 1 to 1000000", "1 to"),
        ('rejects = { fail_above = "1%" }', "the file is missing", "to ="),
        ('rejects = { to = "r.csv", fail_above = "101%" }', "is not a share", "%"),
        ('sheduled = "0 2 * * *"', "no such setting", "schedule"),
        ("keep = []", "is not a list of names", "each once"),
    ],
)
def test_a_mistake_is_named_with_what_to_write(tmp_path: Path, line: str, said: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, LEAST + line)
    assert said in caught.value.message
    assert hint in str(caught.value.hint)
    assert "cloche.toml:" in str(caught.value.where)


@pytest.mark.parametrize("key", ["model", "source", "sink"])
def test_what_must_be_there_is_missed(tmp_path: Path, key: str) -> None:
    text = "".join(f"{line}\n" for line in LEAST.splitlines() if not line.startswith(key))
    with pytest.raises(ConfigError, match=f"batch.nightly.{key}: the {key} is missing"):
        load(tmp_path, text)


@pytest.mark.parametrize("wrong", ["s3://bucket/rows.csv", "mysql://me:secret@db/shop", ""])
def test_a_place_that_is_none_is_refused_without_being_repeated(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, LEAST.replace("rows/*.parquet", wrong))
    assert "secret" not in caught.value.render()


def test_a_model_file_is_no_version(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a reference") as caught:
        load(tmp_path, LEAST.replace("fraud@champion", "./fraud.onnx"))
    assert "cloche pack" in str(caught.value.hint)


def test_a_name_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name of a batch run"):
        load(tmp_path, LEAST.replace("nightly", "Nightly"))


def test_a_password_is_shown_nowhere(tmp_path: Path) -> None:
    text = LEAST.replace("scores.parquet", "postgresql://me:secret@db/shop?table=scores")
    settings = load(tmp_path, text)
    assert "secret" not in repr(settings.batch)
    told = {one.key: one.value for one in tell_settings(directory=tmp_path, environ={})}
    assert told["batch.nightly.sink"] == "postgresql://me:***@db/shop?table=scores"
    assert told["batch.nightly.chunk"] == 10_000


def test_it_reaches_another_process_whole(tmp_path: Path) -> None:
    settings = load(tmp_path, LEAST + 'schedule = "0 2 * * *"\nrejects = { to = "r.csv" }\n')
    assert from_json(msgspec.json.decode(msgspec.json.encode(to_json(settings)))).batch == settings.batch
