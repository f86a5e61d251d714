"""The first load of a version, in a process that is thrown away: `python -m cloche.app.proof FD`.

FD gives a ProofTask as JSON; what went wrong comes as one line on stdout, and nothing where all went well.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from cloche.app.desired import DeploymentConfig
from cloche.app.versions import load
from cloche.app.wish import python_command
from cloche.core.errors import ClocheError
from cloche.core.member import pass_json, read_json

#: It steps back for what serves.
_NICE = 10
_MOST_WORDS = 2_000


class ProofTask(msgspec.Struct, frozen=True, kw_only=True):
    """A ProofTask is a version to be loaded."""

    version: DeploymentConfig
    trusted: tuple[str, ...]
    timeout_s: float


class ProcessProof:
    """A ProcessProof is a first load that goes on in a process of its own; see `control.rollouts.Proof`."""

    def __init__(self, task: ProofTask, folder: Path) -> None:
        self._ends = time.monotonic() + task.timeout_s
        self._timeout_s = task.timeout_s
        self._ref = task.version.ref
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        descriptor = pass_json(msgspec.to_builtins(task), folder)
        try:
            self._process = subprocess.Popen(
                [*python_command("cloche.app.proof"), str(descriptor)],
                stdin=subprocess.DEVNULL, stdout=self._words, pass_fds=(descriptor,),
            )  # fmt: skip
        finally:
            os.close(descriptor)

    def outcome(self) -> str | None:
        status = self._process.poll()
        if status is None:
            if time.monotonic() < self._ends:
                return None
            return f"{self._ref} did not load within {self._timeout_s:g} s"
        if status == 0:
            return ""
        self._words.seek(0)
        said = self._words.read(_MOST_WORDS).decode(errors="replace").strip()
        how = f"killed by signal {-status}" if status < 0 else f"exit code {status}"
        return said or f"the process that loaded {self._ref} first ended without a word ({how})"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._words.close()


def main(arguments: list[str]) -> int:
    os.nice(_NICE)
    answers = os.dup(1)
    os.dup2(2, 1)  # what a model prints is no answer of ours
    task = msgspec.convert(read_json(int(arguments[0])), ProofTask)
    try:
        load(task.version, task.trusted, task.timeout_s).runtime.close()
    except ClocheError as error:
        os.write(answers, f"{task.version.ref} can't be loaded: {error.message}".encode()[:_MOST_WORDS])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
