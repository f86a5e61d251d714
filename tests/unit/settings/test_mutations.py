"""Whatever happens to a good cloche.toml, it is refused with line and key, or it works."""

from __future__ import annotations

import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

import jsonschema
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from cloche.core.errors import ConfigError
from cloche.settings import Settings, json_schema, load_settings
from cloche.settings.kinds import MAX_WORKERS

SCHEMA = jsonschema.Draft7Validator(json_schema())
GOOD = """\
version = 1

[project]
name = "shop"
data = "./.cloche"
database = "postgresql://shop@db.example.com/shop"

[serve]  # how
host = "127.0.0.1"
port = 8080
workers = "cores"
allow_code = false
load_timeout = "5m"
lame_duck = "1s"
max_body = "64MB"

[online.fraud]
model = "fraud@champion"
deadline = "250ms"
on_invalid = "reject"
cache = { size = "64MB", ttl = "10m" }

[online.fraud.access]
keys = true
limits = { default = "100/s", mobile = "20/s" }
"""

_values = st.one_of(
    st.sampled_from(
        [
            "true",
            "false",
            "0",
            "1",
            "-1",
            "48",
            "65536",
            "1e400",
            "nan",
            "inf",
            "-0.0",
            "9223372036854775808",
            "0x1f",
            "1_000",
            "''",
            "'x'",
            "'8080'",
            "'cores'",
            "'1s'",
            "'0s'",
            "'1e3s'",
            "'64MB'",
            "'100/s'",
            "'0/s'",
            "'reject'",
            "'fraud:1'",
            "'fraud@'",
            "{ min = 1, max = 4 }",
            "{ min = 4, max = 'cores' }",
            "{ max = 0 }",
            "'./m.onnx'",
            "'env:NOT_SET'",
            "'file:nowhere'",
            "'file:/dev/null'",
            "'env:'",
            "'~'",
            "'\\u0000'",
            "'''a\nb'''",
            '"""\n[serve]\nport=1"""',
            "[]",
            "[1]",
            "{}",
            "{ size = 1 }",
            "{ x = { y = 1 } }",
            "[[1]]",
            "[{ a = 1 }]",
            "1979-05-27T07:32:00Z",
            "07:32:00",
            "1979-05-27",
            "!",
            "",
        ]
    ),
    st.text(max_size=8).map(lambda text: "'" + text.replace("'", "").replace("\n", "").replace("\r", "") + "'"),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
)
_noise = st.one_of(
    st.sampled_from(
        [
            "[serve]",
            "[[serve]]",
            "[a.b]",
            "#",
            '"',
            "'''",
            "=",
            "\r\n",
            "\0",
            "é",
            "[online.churn]\n",
            "{",
            "]",
            ".",
        ]
    ),
    st.text(max_size=4),
)


@st.composite
def _mutated(draw: st.DrawFn) -> str:
    lines = GOOD.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        what = draw(st.sampled_from(["drop", "repeat", "swap", "value", "letter", "noise", "unquote"]))
        event(what)
        line = lines[at]
        if what == "drop" and len(lines) > 1:
            del lines[at]
        elif what == "repeat":
            lines.insert(draw(st.integers(0, len(lines))), line)
        elif what == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        elif what == "value" and "=" in line:
            lines[at] = f"{line.partition('=')[0]}= {draw(_values)}"
        elif what == "letter" and line:
            place = draw(st.integers(0, len(line) - 1))
            letter = draw(st.sampled_from(["", "x", "_", "-", " ", line[place] * 2, line[place].swapcase()]))
            lines[at] = line[:place] + letter + line[place + 1 :]
        elif what == "unquote":
            lines[at] = line.replace('"', "")
        else:
            place = draw(st.integers(0, len(line)))
            lines[at] = line[:place] + draw(_noise) + line[place:]
    return "\n".join(lines)


@settings(max_examples=300)
@given(_mutated())
@example(GOOD)
@example("")
def test_a_changed_file_is_refused_with_line_and_key_or_works(text: str) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder, "cloche.toml")
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            found = load_settings(directory=Path(folder), environ={})
        except ConfigError as error:
            event("refused")
            _names_every_mistake(error, text)
        else:
            event("works")
            _is_sound(found, text, Path(folder))


def _names_every_mistake(error: ConfigError, text: str) -> None:
    assert error.render().startswith(f"error[{error.code}]: ")
    rows = text.split("\n")
    details = error.details or [{"where": error.where, "key": None}]
    for detail in details:
        line = int(str(detail["where"]).partition("cloche.toml:")[2].split()[0])
        assert 1 <= line <= len(rows) + 1
        if detail["key"] is None:
            assert not _is_toml(text)
        else:
            # The key itself, or the table that it should stand in.
            assert any(part in rows[line - 1] for part in _spellings(str(detail["key"])))
            assert detail["hint"]


def _spellings(key: str) -> list[str]:
    """The parts of a key as they may be written: bare, or (odd letters) in quotes of some kind."""
    return [part for part in key.split(".") if part] or ['"', "'"]


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text.encode().decode())
    except (ValueError, RecursionError):
        return False
    return True


def _is_sound(found: Settings, text: str, folder: Path) -> None:
    said = tomllib.loads(text)
    SCHEMA.validate(said)  # what Cloche takes, an editor takes
    assert found.data.is_absolute()
    assert found.database.startswith(("sqlite:////", "postgresql://"))
    assert 0 <= found.serve.port <= 65535
    assert 1 <= found.serve.least_workers <= found.serve.workers <= MAX_WORKERS
    assert 1000 <= found.serve.max_body <= 2 * 10**9
    assert found.serve.allow_code is said.get("serve", {}).get("allow_code", False)
    assert {one.name for one in found.online} == set(said.get("online", {}))
    for one in found.online:
        assert 0.001 <= one.deadline_s <= 3600
        assert (one.cache is not None) == ("cache" in said["online"][one.name])
        assert all(limit.count > 0 for limit in one.access.limits.values())
    assert [entry.name for entry in folder.iterdir()] == ["cloche.toml"]
