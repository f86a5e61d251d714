"""What was written lies at a path, and nothing can change it any more."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from cloche.core.sealed import sealed

BYTES = b"weights" * 1000


def fill(file: BinaryIO) -> None:
    file.write(BYTES)


def fail(file: BinaryIO) -> None:
    fill(file)
    raise RuntimeError("they are others")


def test_the_copy_is_there_as_long_as_the_context_lasts() -> None:
    with sealed(fill) as path:
        assert Path(path).read_bytes() == BYTES
    assert not Path(path).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux seals")
def test_nobody_can_change_it() -> None:
    with sealed(fill) as path:
        with pytest.raises(PermissionError):
            os.truncate(path, 3)
        with Path(path).open("r+b", buffering=0) as file, pytest.raises(PermissionError):
            file.write(b"other")


def test_without_seals_it_is_a_file_that_only_its_user_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with sealed(fill) as path:
        assert Path(path).read_bytes() == BYTES
        assert Path(path).stat().st_mode & 0o077 == 0
    assert not Path(path).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what is open")
def test_what_fails_is_told_and_leaves_nothing_open() -> None:
    before = len([*Path("/proc/self/fd").iterdir()])
    with pytest.raises(RuntimeError), sealed(fail):
        pass
    assert len([*Path("/proc/self/fd").iterdir()]) == before
