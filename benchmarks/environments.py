"""Environments of their own for software that must not meet Cloche's: built once from a hashed lock, then reused.

Packages of a NAME.pip beside NAME.txt are pinned there and not hashed: their wheels differ by machine.

As a program it prints the interpreter's path, so that tests can ask for one without importing this file:

    python benchmarks/environments.py requirements/heavy/tritonclient.txt
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
ROOT_VARIABLE = "BENCH_ENVIRONMENTS"


class EnvironmentFailedError(Exception):
    """An environment could not be built; the message is the last line the installer said."""


def root() -> Path:
    """Where environments lie: the folder named by BENCH_ENVIRONMENTS, else `.bench/environments`."""
    return Path(os.environ.get(ROOT_VARIABLE) or TOP / ".bench" / "environments")


def build(lock: Path, *, python: str = sys.executable, timeout_s: float = 900) -> Path:
    """Build the environment that `lock` describes, or find it built, and return its interpreter.

    An environment is rebuilt when the lock's bytes or the interpreter's version change.
    Raises EnvironmentFailedError when it can't be installed.
    """
    folder = root() / f"{lock.resolve().parent.name}-{lock.stem}"
    version = _said([python, "-c", "import sys; print(sys.version)"], timeout_s=30)
    unlocked = lock.with_suffix(".pip")
    pinned = unlocked.read_text().split() if unlocked.is_file() else []
    stamp = hashlib.sha256(lock.read_bytes() + " ".join([version, *pinned]).encode()).hexdigest()
    mark = folder / "built-from"
    inside = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two test processes may ask at once
        if mark.is_file() and mark.read_text() == stamp:
            return inside
        shutil.rmtree(folder, ignore_errors=True)
        _said([python, "-m", "venv", str(folder)], timeout_s=timeout_s)
        command = [str(inside), "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:"]
        _said([*command, "-r", str(lock)], timeout_s=timeout_s)
        if pinned:
            _said([str(inside), "-m", "pip", "install", "--quiet", *pinned], timeout_s=timeout_s)
        mark.write_text(stamp)
    return inside


def _said(command: list[str], *, timeout_s: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFailedError(str(error)) from error
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise EnvironmentFailedError(lines[-1] if lines else f"{command[0]} ended with {done.returncode}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lock", type=Path)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    try:
        print(build(options.lock, python=options.python))
    except EnvironmentFailedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
