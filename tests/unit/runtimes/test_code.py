"""A bundle's code lies in a private folder while it runs, and its class is imported from there."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.core.errors import ConfigError
from cloche.runtimes.code import CodeFolder, import_class, inner_path, split_entry


@pytest.fixture(autouse=True)
def _own_import_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_the_folder_is_this_users_alone_and_gone_afterwards() -> None:
    with CodeFolder({"code/a.py": b"1", "code/sub/b.txt": b"2"}) as code:
        path = code.path
        assert path.stat().st_mode & 0o777 == 0o700
        assert (path / "a.py").read_bytes() == b"1"
        assert (path / "sub" / "b.txt").read_bytes() == b"2"
    assert not path.exists()
    code.close()


@pytest.mark.parametrize(
    "name", ["model/a.py", "code", "/code/a.py", "code/../a.py", "code/sub/../../../a.py", "code/.lock"]
)
def test_a_file_of_another_place_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        CodeFolder({name: b""})


def test_the_folder_of_a_killed_process_is_removed_by_the_next_and_that_of_a_live_one_is_not(
    tmp_path: Path,
) -> None:
    program = (
        "import os, signal, sys, tempfile\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "from cloche.runtimes.code import CodeFolder\n"
        "print(CodeFolder({'code/a.py': b''}).path, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    left = Path(killed.stdout.strip())
    assert (left / "a.py").exists()

    with CodeFolder({}) as first, CodeFolder({}):
        assert not left.exists()
        assert first.path.exists()


def test_a_class_is_imported_with_the_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("WORD = 'beside'")
    (tmp_path / "model_one.py").write_text("from beside_it import WORD\nclass Model:\n  word = WORD\n")

    assert import_class(tmp_path, "model_one.py:Model").word == "beside"  # type: ignore[attr-defined]


def test_a_class_in_a_package_finds_its_siblings(tmp_path: Path) -> None:
    package = tmp_path / "packed_models" / "deep"
    package.mkdir(parents=True)
    (tmp_path / "packed_models" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "words.py").write_text("WORD = 'sibling'")
    (package / "model.py").write_text("from .words import WORD\nclass Model:\n  word = WORD\n")

    assert import_class(tmp_path, "packed_models/deep/model.py:Model").word == "sibling"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["json.py", "my-model.py", "numpy.py"])
def test_a_file_may_be_called_as_a_module_that_is_loaded_already(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass Model:\n  word: str = 'mine'\n"
    )

    assert import_class(tmp_path, f"{name}:Model")().word == "mine"


def test_a_file_that_fails_to_import_leaves_no_half_of_itself(tmp_path: Path) -> None:
    (tmp_path / "half_way.py").write_text("x = 1\nraise RuntimeError('no')\n")

    with pytest.raises(RuntimeError, match="no"):
        import_class(tmp_path, "half_way.py:Model")
    assert "half_way" not in sys.modules


def test_a_name_that_is_no_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no_class.py").write_text("Model = 3\n")

    with pytest.raises(ConfigError, match=r"no_class\.py holds no class 'Model'"):
        import_class(tmp_path, "no_class.py:Model")


@pytest.mark.parametrize("entry", ["model.py", "model:Model", "model.py:", "model.py:a.b", "model.py:os.system()"])
def test_an_entry_is_a_file_and_a_class(entry: str) -> None:
    with pytest.raises(ConfigError):
        split_entry(entry)


def test_the_inner_path_is_what_comes_after_code() -> None:
    assert inner_path("code/a/b.py") == "a/b.py"
