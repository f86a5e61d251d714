"""The supervisor's words: never waited for, JSON unless a person reads."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from cloche.control.log import Log, emit


def test_what_is_emitted_arrives_whole_and_in_order() -> None:
    reader, writer = os.pipe()
    text = "".join(f"{number}\n" for number in range(5_000))
    assert emit(writer, text, wait_s=0.1)
    os.close(writer)
    with os.fdopen(reader) as file:
        assert file.read() == text


def test_a_reader_that_does_not_read_is_not_waited_for() -> None:
    reader, writer = os.pipe()
    began = time.monotonic()
    assert not emit(writer, "x" * 1_000_000)
    assert time.monotonic() - began < 2
    os.close(reader)
    assert not emit(writer, "to nobody")
    os.close(writer)


def test_a_pipe_gets_json_lines(capfd: pytest.CaptureFixture[str]) -> None:
    Log(colour=True).say("died", "worker 1 died\nso it was", level="warning", pid=4711)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    found = json.loads(lines[0])
    assert found["action"] == "died"
    assert found["message"] == "worker 1 died\nso it was"
    assert (found["level"], found["pid"], found["logger"]) == ("warning", 4711, "cloche.supervisor")
    written = datetime.fromisoformat(found["time"])
    assert abs((datetime.now(UTC) - written).total_seconds()) < 5


@pytest.mark.parametrize(
    ("call", "coloured"),
    [
        ("say('died', 'it died', level='warning')", b"\x1b[33mit died\x1b[0m\r\n"),
        ("say('adopted', 'took over 2 processes', count=2)", b"took over 2 processes\r\n"),
        ("complain('error[CL-E503]: taken')", b"\x1b[1;31merror[CL-E503]\x1b[0m: taken\r\n"),
    ],
)
def test_a_terminal_gets_plain_words_coloured_where_that_is_wished(call: str, coloured: bytes) -> None:
    plain = coloured.replace(b"\x1b[33m", b"").replace(b"\x1b[1;31m", b"").replace(b"\x1b[0m", b"")
    for colour, expected in ((True, coloured), (False, plain)):
        ours, theirs = pty.openpty()
        program = f"from cloche.control.log import Log; Log(colour={colour}).{call}"
        subprocess.run([sys.executable, "-c", program], stderr=theirs, check=True)
        os.close(theirs)
        assert os.read(ours, 4096) == expected
        os.close(ours)
