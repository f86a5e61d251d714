"""Lineage: the commit of the folder that a bundle is packed from, and whether it had changes."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import numpy as np

from cloche.bundle.lineage import installed_version, trace


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_outside_a_repository_there_is_no_commit(tmp_path: Path) -> None:
    found = trace(tmp_path)
    assert (found.git_commit, found.git_dirty) == (None, None)
    assert found.python == platform.python_version()
    assert found.packages["numpy"] == np.__version__


def test_a_commit_and_changes_after_it_are_told(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert trace(tmp_path).git_commit is None
    (tmp_path / "train.py").write_text("fit()")
    git(tmp_path, "add", "train.py")
    git(tmp_path, "commit", "-qm", "train")
    found = trace(tmp_path)
    assert found.git_commit == git(tmp_path, "rev-parse", "HEAD")
    assert found.git_dirty is False
    (tmp_path / "train.py").write_text("fit(more)")
    assert trace(tmp_path).git_dirty is True


def test_packages_that_are_not_installed_are_not_named(tmp_path: Path) -> None:
    found = trace(tmp_path, extra=["no-such-package-here", "pytest"])
    assert "no-such-package-here" not in found.packages
    assert found.packages["pytest"] == installed_version("pytest")
