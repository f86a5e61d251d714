"""The examples that take a minute: each shows what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_good_version_goes_out_and_a_bad_one_comes_back(tmp_path: Path, free_port: int) -> None:
    folder = shutil.copytree(EXAMPLES / "rollout", tmp_path / "rollout", ignore=shutil.ignore_patterns(".cloche"))
    done = subprocess.run(
        [sys.executable, folder / "run.py"],
        env=os.environ | {"PORT": str(free_port)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "returns:3 harms: " in done.stdout
    assert "The model failed (CL-E900)" in done.stdout
