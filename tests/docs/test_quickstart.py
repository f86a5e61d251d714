"""`make run`, as a newcomer sees it: in a terminal, until Ctrl-C."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pexpect

ROOT = Path(__file__).resolve().parents[2]


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
        terminal.expect(r'answered   \{"label": "(malignant|benign)"')
        terminal.expect(r"\ncurl [^\r\n]+")
        line = terminal.after.strip()
        said = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
        assert msgspec.json.decode(said)["prediction"]["label"] in {"malignant", "benign"}
        assert shlex.split(line)[0] == "curl"
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
        assert "\ncurl " not in terminal.before  # one such line, not two
        terminal.close()
        assert terminal.exitstatus == 130
    finally:
        terminal.close(force=True)
