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

from cloche.control.log import emit, say


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
    say("died", "worker 1 died\nso it was", level="warning", pid=4711)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    found = json.loads(lines[0])
    assert found["action"] == "died"
    assert found["message"] == "worker 1 died\nso it was"
    assert (found["level"], found["pid"], found["logger"]) == ("warning", 4711, "cloche.supervisor")
    written = datetime.fromisoformat(found["time"])
    assert abs((datetime.now(UTC) - written).total_seconds()) < 5


def test_a_terminal_gets_plain_words() -> None:
    ours, theirs = pty.openpty()
    program = "from cloche.control.log import say; say('died', 'worker 1 died', pid=4711)"
    subprocess.run([sys.executable, "-c", program], stderr=theirs, check=True)
    os.close(theirs)
    assert os.read(ours, 4096) == b"worker 1 died\r\n"
    os.close(ours)


@pytest.mark.parametrize(
    ("call", "coloured"),
    [
        ("say('died', 'it died', level='warning')", b"\x1b[33mit died\x1b[0m\r\n"),
        ("complain('error[CL-E503]: taken')", b"\x1b[1;31merror[CL-E503]\x1b[0m: taken\r\n"),
    ],
)
def test_warnings_and_errors_are_coloured_unless_asked_not_to(call: str, coloured: bytes) -> None:
    plain = coloured.replace(b"\x1b[33m", b"").replace(b"\x1b[1;31m", b"").replace(b"\x1b[0m", b"")
    for variables, expected in (({"NO_COLOR": ""}, coloured), ({"NO_COLOR": "1"}, plain)):
        ours, theirs = pty.openpty()
        program = f"from cloche.control.log import complain, say; {call}"
        environment = os.environ | {"TERM": "xterm"} | variables
        subprocess.run([sys.executable, "-c", program], stderr=theirs, env=environment, check=True)
        os.close(theirs)
        assert os.read(ours, 4096) == expected
        os.close(ours)
