"""A project: its key is the first that it trusts, and looking at it writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloche.app.project import open_project
from cloche.core.errors import ConfigError, NotFoundError
from cloche.testing import FakeClock, memory_store


def test_looking_writes_nothing(folder: Path) -> None:
    with open_project(folder, create=False) as project:
        assert project.registry.models() == ()
        assert project.trusted() == frozenset()
        with pytest.raises(NotFoundError):
            project.open("fraud")
    assert list(folder.iterdir()) == []


def test_its_own_key_is_trusted_from_its_first_use(folder: Path) -> None:
    with open_project(folder) as project:
        assert project.trusted() == frozenset()
        key = project.signer.public_key
        assert project.trust.public_keys() == (key,)
    with open_project(folder) as project:
        assert project.signer.public_key == key
        assert project.trust.public_keys() == (key,)


def test_a_key_that_was_restored_is_trusted_again(folder: Path) -> None:
    with open_project(folder) as project:
        key = project.signer.public_key
    for file in (folder / ".cloche").glob("state.db*"):
        file.unlink()
    with open_project(folder) as project:
        assert project.signer.public_key == key
        assert project.trusted() == {key}


def test_the_data_variable_moves_the_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOCHE_DATA", str(folder / "elsewhere"))
    with open_project(folder) as project:
        assert project.settings.data == folder / "elsewhere"
        assert project.bundles.root == folder / "elsewhere" / "bundles"


def test_a_data_folder_that_can_t_be_made_is_said_so(folder: Path) -> None:
    (folder / ".cloche").write_text("in the way")
    with pytest.raises(ConfigError, match="can't be made"):
        open_project(folder)


def test_a_fake_clock_moves_only_forward() -> None:
    clock = FakeClock(10.0)
    clock.advance(2.5)
    clock.sleep(0.5)
    assert clock() == 13.0
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)


def test_a_store_in_memory_is_a_store() -> None:
    with memory_store() as store:
        assert store.revision() == 0
