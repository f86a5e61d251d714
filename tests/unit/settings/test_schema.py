"""The schema for editors takes what Cloche takes, and sees what is plainly wrong."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.unit.settings.test_mutations import GOOD

from cloche.core.errors import ConfigError
from cloche.settings import json_schema, load_settings
from cloche.settings.key import Key
from cloche.settings.keys import KEYS

LOOK_UP = """
[online.fraud.features]
source = "env:FEATURES"
table = "customers"
key = "id"
columns = ["age", "income"]
[batch.fraud]
model = "fraud@champion"
source = "rows/*.parquet"
sink = "env:SCORES"
keep = ["age"]
schedule = "0 2 * * *"
rejects = { to = "rejects.csv" }
[serve.tls]
cert = "cert.pem"
key = "key.pem"
"""
VALIDATOR = jsonschema.Draft7Validator(json_schema())
WHOLE: dict[str, Any] = tomllib.loads(GOOD + LOOK_UP)


def test_it_is_a_schema_and_takes_a_good_file() -> None:
    jsonschema.Draft7Validator.check_schema(VALIDATOR.schema)
    VALIDATOR.validate(WHOLE)
    VALIDATOR.validate({})


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_each_key_is_there_with_its_meaning_and_a_default_that_it_takes(key: Key) -> None:
    found: Any = VALIDATOR.schema
    for name in key.place:
        inside = found.get("properties", {})
        found = inside[name] if name in inside else next(iter(found["patternProperties"].values()))
    assert found["description"] == key.meaning
    if key.default is not None:
        jsonschema.Draft7Validator(found).validate(key.default)
        assert found["default"] == key.default


@pytest.mark.parametrize("key", [key for key in KEYS if key.needed], ids=lambda key: key.path)
def test_what_is_missing_is_missed_by_both(key: Key, tmp_path: Path) -> None:
    less = copy.deepcopy(WHOLE)
    table: Any = less
    for name in key.place[:-1]:
        table = table["fraud" if name == "*" else name]
    del table[key.place[-1]]
    assert not VALIDATOR.is_valid(less)
    (tmp_path / "cloche.toml").write_text(_toml(less))
    with pytest.raises(ConfigError, match=r"missing|belong together"):
        load_settings(directory=tmp_path, environ={"FEATURES": "sqlite:///f.db"})


@pytest.mark.parametrize(
    "wrong",
    [
        "surprise = 1",
        "version = 2",
        "[serve]\nport = '8080'",
        "[serve]\nprot = 8080",
        "[serve]\nworkers = 'many'",
        "[serve]\nworkers = { min = 0 }",
        "[serve]\nworkers = { max = 'many' }",
        "[serve]\nworkers = { most = 4 }",
        "[online.fraud]\nmodel = ''",
        "[online.fraud]\nmodel = 'fraud'\ndeadline = '1 fortnight'",
        "[online.fraud]\nmodel = 'fraud'\non_invalid = 'maybe'",
        "[online.Fraud]\nmodel = 'fraud'",
        "[online.fraud]\nmodel = 'fraud'\naccess = { limits = { default = 'often' } }",
        "[project]\ndatabase = 'mysql://shop'",
        "[batch.b]\nmodel = 'm'\nsource = 'a.csv'",
        "[batch.b]\nmodel = 'm'\nsource = 'a.csv'\nsink = 'b.csv'\nschedule = '0 2'",
        "[batch.b]\nmodel = 'm'\nsource = 'a.csv'\nsink = 'b.csv'\nchunk = 0",
        "[batch.b]\nmodel = 'm'\nsource = 'a.csv'\nsink = 'b.csv'\ncatch_up = 'some'",
    ],
)
def test_what_is_plainly_wrong_is_refused_by_both(wrong: str, tmp_path: Path) -> None:
    assert not VALIDATOR.is_valid(tomllib.loads(wrong))
    (tmp_path / "cloche.toml").write_text(wrong)
    with pytest.raises(ConfigError):
        load_settings(directory=tmp_path, environ={})


def _toml(tree: dict[str, Any]) -> str:
    """The tree as inline tables, which is all that these trees need."""

    def inline(value: Any) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{name} = {inline(inner)}" for name, inner in value.items()) + " }"
        if isinstance(value, list):
            return "[" + ", ".join(inline(inner) for inner in value) + "]"
        return str(value).lower() if isinstance(value, bool) else repr(value)

    return "\n".join(f"{name} = {inline(value)}" for name, value in tree.items())
