"""PyTorch, Keras and TensorFlow, each in an environment of its own: pytest there runs what is in frameworks/."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

TOP = Path(__file__).parents[2]


@pytest.mark.parametrize(("name", "file"), [("torch", "torch_models.py"), ("tensorflow", "keras_models.py")])
def test_a_framework(name: str, file: str, environment: Callable[[str], str]) -> None:
    python = environment(name)
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "-e", str(TOP)]
    subprocess.run(pip, check=True, timeout=300)
    options = ["--noconftest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(TOP), "-q"]
    done = subprocess.run(
        [python, "-m", "pytest", *options, "--import-mode=importlib", str(TOP / "tests/heavy/frameworks" / file)],
        cwd=TOP,
        env=os.environ | {"PYTHONPATH": str(TOP), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
