"""Every test of this room runs in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloche.testing import toy_onnx


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def toy(folder: Path) -> Path:
    """An ONNX file that answers `value` = twice the sum of `x` [-1, 3]."""
    return toy_onnx(folder / "toy.onnx")
