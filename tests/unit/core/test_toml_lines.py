"""Lines of TOML keys: found wherever a key may stand."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.core.toml_lines import find_lines

EVERY_FORM = '''\
# [not.a.table]
version = 1

[serve]  # a comment with key = "value"
port = 8080
"quoted key" = "a # no comment"
'single' = 'C:\\no\\escape'
long = """
[not.a.table]
key = 1 \\
""quoted"" \\"""
"""
literal = \'\'\'
[nor.this] = 2\'\'\'
dotted . name.'x.y' = 2026-11-24T22:00:00Z
list = [
  1, "]", # ]
  { inner = 1 }, [2, [3]],
]
empty = []
none = {}

  [ online . fraud ]
  cache = { size = "64MB", ttl = "10m", deep = { er = true } }
  after = -1.5e3
[[alert]]
rule = "one"
[[alert]]
rule = "two"
'''


def test_every_form_of_a_key_is_found() -> None:
    assert find_lines(EVERY_FORM) == {
        ("version",): 2,
        ("serve",): 4,
        ("serve", "port"): 5,
        ("serve", "quoted key"): 6,
        ("serve", "single"): 7,
        ("serve", "long"): 8,
        ("serve", "literal"): 13,
        ("serve", "dotted"): 15,
        ("serve", "dotted", "name"): 15,
        ("serve", "dotted", "name", "x.y"): 15,
        ("serve", "list"): 16,
        ("serve", "empty"): 20,
        ("serve", "none"): 21,
        ("online",): 23,
        ("online", "fraud"): 23,
        ("online", "fraud", "cache"): 24,
        ("online", "fraud", "cache", "size"): 24,
        ("online", "fraud", "cache", "ttl"): 24,
        ("online", "fraud", "cache", "deep"): 24,
        ("online", "fraud", "cache", "deep", "er"): 24,
        ("online", "fraud", "after"): 25,
        ("alert",): 26,
        ("alert", "rule"): 27,
    }


def test_windows_line_ends_count_once() -> None:
    assert find_lines("a = 1\r\n\r\n[b]\r\nc = 'x'\r\n") == {("a",): 1, ("b",): 3, ("b", "c"): 4}


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment"])
def test_a_text_without_keys_has_no_lines(text: str) -> None:
    assert find_lines(text) == {}


_keys = st.one_of(
    st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True),
    st.text(st.characters(codec="ascii", categories=["L", "P"]), max_size=5),
)
_scalars = st.one_of(
    st.integers(-9, 9),
    st.booleans(),
    st.sampled_from(["x", "", "a = 1", "[t]", "#", '"', "'", "}", "]", ",", "\\", "\n[x]\ny = 1\n", '"""', "'''"]),
)
_tables = st.recursive(
    st.dictionaries(_keys, _scalars, max_size=4),
    lambda inner: st.dictionaries(
        _keys, st.one_of(_scalars, inner, st.lists(st.one_of(_scalars, inner), max_size=3)), max_size=4
    ),
    max_leaves=12,
)


def _string(text: str) -> str:
    escaped = "".join(f"\\u{ord(c):04x}" if c in '"\\' or ord(c) < 32 else c for c in text)
    return f'"{escaped}"'


def _inline(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        if "\n" in value and '"' not in value and "\\" not in value:
            return f'"""\n{value}"""'
        return _string(value)
    if isinstance(value, list):
        return "[\n" + "".join(f"  {_inline(item)},  # ] }}\n" for item in value) + "]"
    return "{ " + ", ".join(f"{_string(k)} = {_inline(v)}" for k, v in value.items()) + " }"


def _write(table: dict[str, Any], path: tuple[str, ...] = ()) -> tuple[str, list[tuple[str, ...]]]:
    """A TOML text of the value, and every path in it that has a line."""
    text, paths, inner = "", [], []
    if path:
        text += f"[{'.'.join(map(_string, path))}]  # [x]\n"
        paths.append(path)
    for position, (key, value) in enumerate(table.items()):
        if isinstance(value, dict) and position % 2:
            inner.append((key, value))
            continue
        text += f"{_string(key)} = {_inline(value)}\n\n"
        paths.extend(_paths(value, (*path, key)))
    for key, value in inner:
        more, those = _write(value, (*path, key))
        text, paths = text + more, paths + those
    return text, paths


def _paths(value: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    inner = value.items() if isinstance(value, dict) else ()
    return [path, *(found for key, item in inner for found in _paths(item, (*path, key)))]


@given(_tables)
def test_every_key_of_any_text_is_found_on_a_line_that_shows_it(table: dict[str, Any]) -> None:
    text, paths = _write(table)
    assert tomllib.loads(text) == table
    lines, rows = find_lines(text), text.split("\n")
    assert set(lines) == set(paths)
    assert all(_string(path[-1]) in rows[line - 1] for path, line in lines.items())
