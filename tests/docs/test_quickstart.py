"""`make run`, as a newcomer sees it: in a terminal, until Ctrl-C."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pexpect

ROOT = Path(__file__).resolve().parents[2]


def test_the_quickstart_says_that_the_port_is_taken_before_it_trains() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [sys.executable, ROOT / "examples/quickstart/run.py"],
            env=os.environ | {"PORT": str(taken.getsockname()[1])},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 5
    assert "is taken" in done.stdout
    assert "training" not in done.stdout


def test_the_quickstart_serves_answers_prints_one_curl_line_and_stops_on_ctrl_c(
    tmp_path: Path, free_port: int
) -> None:
    script = tmp_path / "quickstart" / "run.py"
    script.parent.mkdir()
    script.write_text((ROOT / "examples/quickstart/run.py").read_text())  # its data goes beside it
    environment = os.environ | {"PORT": str(free_port)}
    terminal = pexpect.spawn(
        sys.executable, [str(script)], env=environment, encoding="utf-8", timeout=120, dimensions=(50, 2_000)
    )
    try:
        terminal.expect(r"serving    tumour:1 at [^\r\n]+")
        terminal.expect(r"answered   (malignant|benign) [^\r\n]+")
        assert len(terminal.after) < 80
        terminal.expect(r"\ncurl [^\r\n]+")
        line = terminal.after.strip()
        said = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
        assert msgspec.json.decode(said)["prediction"]["label"] in {"malignant", "benign"}
        assert shlex.split(line)[0] == "curl"
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
        assert "\ncurl " not in terminal.before  # one such line, not two
        terminal.close()
        assert terminal.exitstatus == 0
    finally:
        terminal.close(force=True)
