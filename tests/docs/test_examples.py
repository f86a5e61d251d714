"""Every example in README, docs and docstrings is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sybil.document import PythonDocStringDocument
from sybil.parsers.rest import DocTestParser
from tests.docs.examples import matches, parse, steps

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if path.name not in {"CHANGELOG.md"}
)
#: Their examples need a framework: tests/heavy/test_frameworks.py runs them in an environment that has it.
ELSEWHERE = frozenset({"huggingface.md", "keras.md", "mlflow.md", "pytorch.md"})
#: What a test can't run: it needs a network, or a clone of its own.
_NOT_RUN = re.compile(r"(pip|uv|git|make|cd|source|python3? -m venv) ")


def _language_of(path: Path) -> set[str]:
    return {language for _, _, language, title, _ in parse(path.read_text()) if not title}


@pytest.mark.parametrize(
    "document",
    [path for path in DOCUMENTS if _language_of(path) & {"python", "console"} and path.name not in ELSEWHERE],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_the_examples_of_a_document_run(document: Path, tmp_path: Path, free_port: int) -> None:
    # A short path: sockets of `cloche up` lie in it.
    with tempfile.TemporaryDirectory(prefix="cl-") as runtime:
        done = subprocess.run(
            [sys.executable, ROOT / "tests/docs/examples.py", document, str(free_port)],
            cwd=tmp_path,
            env=os.environ | {"XDG_RUNTIME_DIR": runtime},
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_block_that_is_not_run_holds_only_what_can_not_be(document: Path) -> None:
    for _, _, language, title, body in parse(document.read_text()):
        assert language not in {"bash", "shell", "py", "pycon"}, "write console, sh or python"
        if language == "sh" and not title:
            for line in body.splitlines():
                assert not line or line.startswith(("#", " ")) or _NOT_RUN.match(line), line


@pytest.mark.parametrize(
    "module",
    [path for path in sorted(ROOT.glob("src/**/*.py")) if ">>> " in path.read_text()],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_the_examples_of_docstrings_run(module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = PythonDocStringDocument.parse(str(module), DocTestParser())
    for example in document.examples():
        assert not example.evaluate()


def test_a_console_block_is_commands_and_what_they_say() -> None:
    block = "$ one \\\n    two\nsaid\nmore\n$ three\n"
    assert list(steps(block)) == [("one \\\n    two", "said\nmore\n"), ("three", "")]


def test_what_a_shell_reads_between_quotes_is_not_mended() -> None:
    block = '$ printf %s \'{"a": 1, \\\n  "b": 2}\'\nsaid\n'
    [(command, _)] = steps(block)
    said = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
    assert said == '{"a": 1, \\\n  "b": 2}'  # which is not JSON, as a reader would find out


@pytest.mark.parametrize(
    ("expected", "output", "fits"),
    [
        ("a b", "a    b\n", True),  # blanks don't count
        ("a … c", "a anything c", True),
        ("a\n…\nc\n", "a\nb\nb\nc\n", True),
        ("a", "a b", False),
        ("a . c", "a b c", False),  # no pattern but the ellipsis
    ],
)
def test_the_ellipsis_stands_for_anything(expected: str, output: str, fits: bool) -> None:
    assert matches(expected, output) is fits
