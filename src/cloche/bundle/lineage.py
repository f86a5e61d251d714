"""Where a bundle comes from: the commit, the versions, the machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cloche.bundle.manifest import Lineage

#: Packages whose version may decide what a model answers, where they are installed.
_TELLING = (
    "catboost",
    "lightgbm",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "polars",
    "scikit-learn",
    "scipy",
    "skl2onnx",
    "torch",
    "xgboost",
)
_GIT_TIMEOUT_S = 5.0
#: A repository may name a program that git would start to look for changes.
_NO_HOOKS = ("-c", "core.fsmonitor=false")


def trace(folder: Path, extra: Iterable[str] = ()) -> Lineage:
    """The lineage of what is packed now from `folder`; `extra` are further packages to name."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no") if commit else None
    return Lineage(
        cloche=installed_version("cloche") or "unknown",
        python=platform.python_version(),
        platform=f"{sys.platform} {platform.machine()}",
        packages={name: found for name in sorted({*_TELLING, *extra}) if (found := installed_version(name))},
        git_commit=commit,
        git_dirty=None if changes is None else bool(changes),
    )


def installed_version(package: str) -> str | None:
    """The version that is installed here; None when it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *words: str) -> str | None:
    """What git prints; None where there is no git, no repository or no answer in time."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *_NO_HOOKS, *words],
            capture_output=True,
            check=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
