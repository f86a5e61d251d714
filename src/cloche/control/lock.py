"""One supervisor a runtime folder: a lock that the kernel lets go when its holder dies, and a note about it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from cloche.core.errors import ConflictError


def hold(runtime: Path) -> int:
    """Take the lock for as long as the returned descriptor is open; ConflictError CL-E501 when it is held."""
    descriptor = os.open(runtime / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        note = read_note(runtime)
        pid = note.get("pid")
        raise ConflictError(
            f"{describe(note)} is running already" + (f" (process {pid})" if pid else ""),
            code="CL-E501",
            where=str(runtime),
            hint="stop it with Ctrl-C where it runs"
            + (f" or with `kill {pid}`" if pid else "")
            + ", or use another data folder (CLOCHE_DATA, -C)",
        ) from None
    return descriptor


def check_free(runtime: Path) -> None:
    """Raise ConflictError CL-E501 when a supervisor lives on this folder."""
    os.close(hold(runtime))


def write_note(runtime: Path, note: dict[str, Any]) -> None:
    """Say in `supervisor.json` what runs: {"pid", "model", "addresses", "started", "digest"}."""
    path = runtime / "supervisor.json"
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(note) + "\n")
    fresh.replace(path)


def read_note(runtime: Path) -> dict[str, Any]:
    """What `supervisor.json` says; empty where there is none."""
    with contextlib.suppress(OSError, ValueError):
        note = json.loads((runtime / "supervisor.json").read_text())
        if isinstance(note, dict):
            return note
    return {}


def describe(note: dict[str, Any]) -> str:
    """`fraud:3 at http://127.0.0.1:8080`, as far as the note knows."""
    words = str(note.get("model") or "Cloche")
    addresses = note.get("addresses")
    return f"{words} at {addresses[0]}" if addresses else words
