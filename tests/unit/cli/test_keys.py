"""`cloche keys`: made, listed, revoked."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from tests.unit.cli.conftest import Cloche

COMMAND = str(Path(sys.executable).with_name("cloche"))


def test_a_new_key_is_the_only_line_of_the_answer(cloche: Cloche) -> None:
    result = cloche("keys", "create", "mobile")
    assert result.out.startswith("clk_live_")
    assert len(result.out.splitlines()) == 1
    assert "not shown again" in result.err


def test_a_key_is_listed_without_its_secret(cloche: Cloche) -> None:
    text = cloche("keys", "create", "mobile", "--scope", "predict", "--scope", "metrics").out.strip()
    listed = cloche("keys", "ls").out
    header, row = listed.splitlines()
    assert header.split() == ["ID", "NAME", "SCOPES", "STATE", "CREATED", "EXPIRES"]
    assert row.split()[:4] == [text.split("_")[2], "mobile", "predict,metrics", "active"]
    assert row.split()[-1] == "never"
    assert text.split("_")[3] not in listed


def test_the_list_as_json_has_the_same_facts(cloche: Cloche) -> None:
    cloche("keys", "create", "mobile", "--expires", "90d")
    (item,) = cloche("keys", "ls", "--json").json["items"]
    assert (item["name"], item["state"], item["scopes"]) == ("mobile", "active", ["predict"])
    assert item["expires"] > item["created"]


def test_revoking_needs_a_word_where_nobody_can_be_asked(cloche: Cloche) -> None:
    cloche("keys", "create", "mobile")
    refused = cloche("keys", "revoke", "mobile")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert "active" in cloche("keys", "ls").out


@pytest.mark.parametrize("flag", ["--yes", "-y"])
def test_a_revoked_key_says_so(cloche: Cloche, flag: str) -> None:
    cloche("keys", "create", "mobile")
    assert cloche("keys", "revoke", "mobile", flag).code == 0
    assert "revoked" in cloche("keys", "ls").out


def test_a_person_is_asked(cloche: Cloche, tmp_path: Path) -> None:
    cloche("keys", "create", "mobile")
    for answer, code in (("n", 1), ("y", 0)):
        asked = pexpect.spawn(
            COMMAND, ["keys", "revoke", "mobile"], cwd=str(tmp_path), encoding="utf-8", timeout=30
        )
        asked.expect(r"\[y/N\]")
        asked.sendline(answer)
        asked.expect(pexpect.EOF)
        assert "error" not in asked.before
        asked.close()
        assert asked.exitstatus == code


def test_a_second_key_of_the_name_is_a_conflict(cloche: Cloche) -> None:
    cloche("keys", "create", "mobile")
    assert cloche("keys", "create", "mobile").code == 5


def test_an_unknown_key_is_not_there(cloche: Cloche) -> None:
    assert cloche("keys", "revoke", "nobody", "--yes").code == 3


def test_a_wrong_scope_names_the_ones_there_are(cloche: Cloche) -> None:
    result = cloche("keys", "create", "mobile", "--scope", "root")
    assert result.code == 2
    assert "predict" in result.err


def test_quiet_says_the_answer_only(cloche: Cloche) -> None:
    assert cloche("keys", "create", "mobile", "-q").err == ""


def test_errors_are_red_on_a_terminal_and_plain_elsewhere(tmp_path: Path) -> None:
    command = [COMMAND, "models", "show", "nothing"]
    environment = os.environ | {"TERM": "xterm"}
    assert "\x1b[" in _on_a_terminal(command, tmp_path, environment)
    assert "\x1b[" not in _on_a_terminal(command, tmp_path, environment | {"NO_COLOR": "1"})
    assert "\x1b[" not in _on_a_terminal([*command, "--no-color"], tmp_path, environment)
    piped = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "\x1b[" not in piped.stderr
    forced = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment | {"CLICOLOR_FORCE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "\x1b[" in forced.stderr


def _on_a_terminal(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    leader, follower = pty.openpty()
    try:
        subprocess.run(command, cwd=folder, env=environment, stdout=follower, stderr=follower, check=False)
        return os.read(leader, 65536).decode()
    finally:
        os.close(leader)
        os.close(follower)
