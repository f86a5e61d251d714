"""What every test can lean on: an environment of its own, and proof at the end that no process stayed behind."""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

#: Stands in the environment of whatever the tests start, and so tells their processes from all others.
_MARK = "TESTS_OF_CLOCHE"

settings.register_profile("cloche", deadline=None, max_examples=60, print_blob=True)
settings.load_profile("cloche")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a part that is not installed fails the test that needs it, instead of skipping it."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and os.environ.get("MISSING_PARTS_FAIL"):
        reason = report.longrepr[2]
        if "not installed" in reason:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: {reason}"
    return report


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's shell reaches a test."""
    for name in list(os.environ):
        if name.startswith("CLOCHE_") or name in {"NO_COLOR", "CLICOLOR_FORCE", "FORCE_COLOR"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="session", autouse=True)
def _no_process_stays_behind() -> Iterator[None]:
    mark = uuid.uuid4().hex
    os.environ[_MARK] = mark
    yield
    until = time.monotonic() + 10
    while (left := _marked(mark)) and time.monotonic() < until:
        time.sleep(0.1)  # a drained process needs a moment to go
    assert not left, "processes that tests left behind:\n" + "\n".join(left)


def _marked(mark: str) -> list[str]:
    """The command lines of all living processes but this one that carry the mark (Linux)."""
    needle = f"{_MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*") if sys.platform == "linux" else ():
        try:
            if needle in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                words = (folder / "cmdline").read_bytes().split(b"\0")
                found.append(f"{folder.name} {b' '.join(words).decode(errors='replace')[:300]}")
        except OSError:
            continue  # it ended while we looked
    return found


@pytest.fixture
def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
