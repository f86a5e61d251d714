"""Heavy frameworks, each in an environment of its own: pytest there runs what is in frameworks/."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

TOP = Path(__file__).parents[2]


@pytest.fixture
def with_cloche(environment: Callable[[str], str]) -> Callable[[str], str]:
    """The interpreter of an environment in which this very Cloche is installed."""

    def install(name: str) -> str:
        python = environment(name)
        pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "-e", str(TOP)]
        subprocess.run(pip, check=True, timeout=300)
        return python

    return install


def run(command: Sequence[str], folder: Path, **variables: str) -> None:
    environ: Mapping[str, str] = os.environ | {"PYTHONPATH": str(TOP), "TF_CPP_MIN_LOG_LEVEL": "3"} | variables
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]


FILES = [
    ("torch", "torch_models.py"),
    ("tensorflow", "keras_models.py"),
    ("catboost", "catboost_models.py"),
    ("huggingface", "huggingface_models.py"),
    ("mlflow-models", "mlflow_models.py"),
]
PAGES = [
    ("torch", "pytorch.md"),
    ("tensorflow", "keras.md"),
    ("huggingface", "huggingface.md"),
    ("mlflow-models", "mlflow.md"),
]


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_framework(name: str, file: str, with_cloche: Callable[[str], str]) -> None:
    options = ["--noconftest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(TOP), "-q"]
    tests = str(TOP / "tests/heavy/frameworks" / file)
    run([with_cloche(name), "-m", "pytest", *options, "--import-mode=importlib", tests], TOP)


@pytest.mark.parametrize(("name", "page"), PAGES)
def test_the_examples_of_its_guide_run(
    name: str, page: str, with_cloche: Callable[[str], str], tmp_path: Path, free_port: int
) -> None:
    document = str(TOP / "docs/guides" / page)
    # A short path: sockets of `cloche up` lie in it.
    with tempfile.TemporaryDirectory(prefix="cl-") as runtime:
        command = [with_cloche(name), str(TOP / "tests/docs/examples.py"), document, str(free_port)]
        run(command, tmp_path, XDG_RUNTIME_DIR=runtime)
