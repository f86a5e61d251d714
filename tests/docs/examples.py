"""Runs the examples of one document, in order and for real, in the current folder: `examples.py DOCUMENT PORT`.

- ```` ```python ```` runs (with `>>>`, what is printed must be what stands there);
- ```` ```console ```` gives each command, from a line that begins with `$ `, to bash as it stands, and its output
  must be the lines below it, where `…` stands for anything; `cloche up` runs beside the rest;
- a block with `title="FILE"` is written to that file and not run.

8080, which readers see, is PORT here. Other blocks (`text`, `json`, `sh`, ...) are not run.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from doctest import ELLIPSIS
from pathlib import Path
from typing import Any

from sybil import Document, Example, Region
from sybil.evaluators.doctest import DocTestEvaluator
from sybil.parsers.abstract.doctest import DocTestStringParser

FENCE = re.compile(r"^```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')
#: Longer than any example takes on a slow machine.
_PATIENCE_S = 90.0


class Shell:
    """A Shell runs a document's console blocks; what serves in the background ends with `close`."""

    def __init__(self, port: str) -> None:
        self.port = port
        self._servers: list[Server] = []

    def run_block(self, example: Example) -> None:
        for command, expected in steps(example.parsed.replace("8080", self.port)):
            if re.match(r"cloche up\b", command) and "error[" not in expected:
                server = Server(command)
                self._servers.append(server)
                server.wait_for(expected)
                continue
            done = subprocess.run(
                ["bash", "-c", command], capture_output=True, text=True, timeout=_PATIENCE_S, check=False
            )
            output = done.stdout + done.stderr
            where = f"{example.path}:{example.line}: $ {command}"
            if expected and not matches(expected, output):
                raise AssertionError(f"{where}\n--- said\n{output}\n--- expected\n{expected}")
            if done.returncode and "error[" not in expected:
                raise AssertionError(f"{where}\nexit code {done.returncode}\n{output}")

    def close(self) -> None:
        for server in self._servers:
            server.stop()


class Server:
    """A Server is a `cloche up` that runs beside the other examples."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.output = ""
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, expected: str) -> None:
        until = time.monotonic() + _PATIENCE_S
        while not matches(f"…{expected}…", self.output):
            if self._process.poll() is not None or time.monotonic() > until:
                self._reader.join(1)
                raise AssertionError(f"$ {self.command}\n--- said\n{self.output}\n--- expected\n{expected}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            code = self._process.wait(_PATIENCE_S)
            assert code == 130, f"$ {self.command}\nended with {code}\n{self.output}"

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output += line


def steps(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block with the output that stands below it."""
    command, expected = "", ""
    for line in block.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, expected
            command, expected = line[2:], ""
        elif command and _goes_on(command):
            command = f"{command}\n{line}"
        else:
            expected += f"{line}\n"
    if command:
        yield command, expected


def _goes_on(command: str) -> bool:
    """Whether a shell would wait for more: a backslash at the end, or a quote that is still open."""
    try:
        shlex.split(command)
    except ValueError:
        return True
    return False


def matches(expected: str, output: str) -> bool:
    """Whether the output is what was expected: `…` is anything, and any run of blanks is one blank."""
    pieces = [re.escape(" ".join(piece.split())) for piece in expected.split("…")]
    return re.fullmatch(r"\s*" + ".*".join(pieces) + r"\s*", " ".join(output.split()), re.DOTALL) is not None


def parse(text: str) -> Iterator[tuple[int, int, str, str, str]]:
    """Start, end, language, title (or "") and body of each fenced block."""
    for fence in FENCE.finditer(text):
        title = _TITLE.search(fence["info"])
        yield fence.start("body"), fence.end("body"), fence["language"], title[1] if title else "", fence["body"]


def regions(document: Document, shell: Shell) -> Iterator[Region]:
    doctests = DocTestStringParser(DocTestEvaluator(ELLIPSIS))
    for start, end, language, title, body in parse(document.text):
        if title:
            yield Region(start, end, (title, body.replace("8080", shell.port)), _write_file)
        elif language == "console":
            yield Region(start, end, body, shell.run_block)
        elif language == "python" and ">>> " in body:
            for found in doctests(body.replace("8080", shell.port).replace("…", "..."), document.path):
                yield Region(start + found.start, start + found.end, found.parsed, found.evaluator)
        elif language == "python":
            yield Region(start, end, body.replace("8080", shell.port), _run_python)


def _write_file(example: Example) -> None:
    name, body = example.parsed
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(body)


def _run_python(example: Example) -> None:
    source = "\n" * example.line + example.parsed
    exec(compile(source, example.path, "exec", dont_inherit=True), example.namespace)


def main(path: str, port: str) -> None:
    """Run every example of the document at `path`; the first that fails raises."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["CLOCHE_SERVE__PORT"] = port
    sys.path.insert(0, "")
    shell = Shell(port)
    document = Document.parse(path, lambda text: regions(text, shell))
    namespace: dict[str, Any] = document.namespace
    namespace["__name__"] = "__main__"
    with contextlib.closing(shell):
        for example in document.examples():
            failed = example.evaluate()
            if failed:
                raise AssertionError(f"{path}:{example.line}\n{failed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
