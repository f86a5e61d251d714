"""`cloche config`: what is set, where that was said, and what a key means."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
from tests.unit.cli.conftest import Cloche

FILE = """
[project]
database = "postgresql://shop:hidden@db.example.com/shop"
[serve]
port = 9000
[online.fraud]
model = "fraud@champion"
access = { keys = true, limits = { mobile = "5/s" } }
[online.churn]
model = "churn"
deadline = "80ms"
"""


@pytest.fixture
def described(cloche: Cloche) -> Cloche:
    Path("cloche.toml").write_text(FILE)
    return cloche


def test_what_is_set_is_shown_with_its_place(described: Cloche) -> None:
    lines = described("config", "show").out.splitlines()
    assert lines[0].split() == ["KEY", "VALUE", "FROM"]
    rows = {line.split()[0]: line.split(None, 1)[1].rsplit("  ", 1) for line in lines[1:]}
    assert "cloche.toml:5" in described("config", "show").out
    assert rows["serve.host"][0].strip() == '"127.0.0.1"'
    assert rows["online.churn.deadline"][0].split()[0] == '"80ms"'
    assert rows["online.fraud.access.limits.mobile"][0].split()[0] == '"5/s"'
    assert next(key for key in rows if key.startswith("online.")).startswith("online.fraud.")
    assert "online.fraud.cache.ttl" not in rows


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("", ["workers"]),
        ("workers = 3", ["workers"]),
        ("workers = { max = 3 }", ["workers.min", "workers.max"]),
    ],
)
def test_a_number_of_workers_is_shown_or_its_bounds(cloche: Cloche, written: str, shown: list[str]) -> None:
    Path("cloche.toml").write_text(f"[serve]\n{written}\n")
    rows = [line.split()[0] for line in cloche("config", "show").out.splitlines()]
    assert [row for row in rows if row.startswith("serve.workers")] == [f"serve.{name}" for name in shown]


def test_passwords_are_never_shown(described: Cloche) -> None:
    for arguments in (["show"], ["show", "--json"], ["explain", "project.database"]):
        said = described("config", *arguments)
        assert "hidden" not in said.out + said.err
        assert "shop:***@db.example.com" in said.out


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://shop:hid@den@db.example.com/shop",
        "postgresql://shop:hid/den@db.example.com/shop",
        "postgresql://:hidden@db.example.com/shop",
        "postgresql+psycopg://db.example.com/shop?user=shop&password=hidden&sslmode=require",
        "postgresql://db.example.com/shop?sslpassword=hidden",
    ],
)
def test_no_part_of_a_password_is_shown_wherever_it_stands(cloche: Cloche, url: str) -> None:
    Path("cloche.toml").write_text(f'[project]\ndatabase = "{url}"\n')
    said = cloche("config", "explain", "project.database").out
    assert "hid" not in said
    assert "den" not in said
    assert "***" in said
    assert "db.example.com/shop" in said


def test_as_json_values_keep_their_types(described: Cloche) -> None:
    items = {item["key"]: item for item in described("config", "show", "--json").json["items"]}
    assert items["serve.port"]["value"] == 9000
    assert items["serve.port"]["default"] == 8080
    assert items["serve.allow_code"]["source"] == "default"
    assert items["online.fraud.access.keys"]["value"] is True


def test_a_key_is_explained_whether_it_is_set_or_not(described: Cloche) -> None:
    said = described("config", "explain", "online.churn.deadline").out
    assert "How long a caller waits" in said
    assert '"80ms", from cloche.toml:' in said
    assert "here     the default" in described("config", "explain", "online.fraud.deadline").out
    assert "here     not set" in described("config", "explain", "online.fraud.cache.ttl").out
    assert "here     not set" in described("config", "explain", "online.other.deadline").out


def test_what_is_no_key_is_said_with_the_nearest(described: Cloche) -> None:
    result = described("config", "explain", "online.churn.dedline")
    assert result.code == 2
    assert "CL-E202" in result.err
    assert "did you mean online.churn.deadline?" in result.err


def test_a_file_that_is_wrong_is_told_with_all_that_is_wrong(described: Cloche) -> None:
    Path("cloche.toml").write_text("[serve]\nport = 'x'\nprot = 1\n")
    for command in (["show"], ["explain", "serve.port"]):
        result = described("config", *command)
        assert result.code == 2
        assert "2 settings are wrong" in result.err


def test_the_schema_is_one_that_editors_read(cloche: Cloche) -> None:
    schema = cloche("config", "schema", "--json").json["schema"]
    jsonschema.Draft7Validator.check_schema(schema)
    assert '"title": "cloche.toml"' in cloche("config", "schema").out
