"""The page on settings is complete and true: each key with its default and its meaning, and nothing else."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from cloche.settings import load_settings
from cloche.settings.key import Key
from cloche.settings.keys import KEYS
from cloche.settings.reader import find_key

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text("utf-8")
_ROW = re.compile(r"^\| `([^`]+)` \| (.+?) \| (.+) \|$", re.MULTILINE)
ROWS = {name: (default, meaning) for name, default, meaning in _ROW.findall(PAGE)}
_BLOCK = re.search(r"```toml title=\"cloche.toml\"\n(.*?)```", PAGE, re.DOTALL)
EXAMPLE = _BLOCK[1] if _BLOCK else ""
#: What can't stand in the same file.
OTHERS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def _as_written(key: Key) -> str:
    return (
        key.path.replace("limits.*", "limits.NAME").replace("online.*", "online.X").replace("batch.*", "batch.X")
    )


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_a_key_is_documented_with_its_default_and_its_meaning(key: Key) -> None:
    default, meaning = ROWS[_as_written(key)]
    assert meaning == key.meaning
    assert default == ("–" if key.default is None else f"`{json.dumps(key.default)}`")


def test_nothing_is_documented_that_cannot_be_set() -> None:
    assert list(ROWS) == [_as_written(key) for key in KEYS]


def test_the_example_works_and_shows_every_key(tmp_path: Path) -> None:
    shown = set()

    def walk(place: tuple[str, ...], value: object) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk((*place, name), inner)
        elif key := find_key(place):
            shown.add(key.path)

    whole = re.sub(r"(?m)^# (\w+ = )", r"\1", EXAMPLE)
    for text in (*OTHERS, whole):
        (tmp_path / "cloche.toml").write_text(text)
        settings = load_settings(directory=tmp_path, environ={})
        walk((), tomllib.loads(text))
    assert settings.online
    assert shown == {key.path for key in KEYS}


def test_the_example_holds_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "cloche.toml").write_text(EXAMPLE)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "cloche.toml").write_text("")
    example = load_settings(directory=tmp_path, environ={})
    empty = load_settings(directory=tmp_path / "empty", environ={})
    assert example.serve == empty.serve
    assert example.data == tmp_path / ".cloche"
