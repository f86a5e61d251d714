"""SQLite under the store: the module and the journal that don't lose commits."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloche.store import sqlite
from cloche.store.database import Store


@pytest.mark.parametrize(
    ("version", "sound"),
    [
        ((3, 40, 1), False),  # Debian 12
        ((3, 44, 5), False),
        ((3, 44, 6), True),  # the fix, carried back
        ((3, 45, 0), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),  # the fix, carried back
        ((3, 51, 0), False),
        ((3, 51, 2), False),
        ((3, 51, 3), True),  # the fix
        ((3, 53, 4), True),
        ((4, 0, 0), True),
    ],
)
def test_the_versions_without_the_wal_reset_bug_are_known(version: tuple[int, ...], sound: bool) -> None:
    assert sqlite.has_wal_fix(version) is sound


@pytest.mark.parametrize(
    ("own", "bundled", "chosen", "journal"),
    [
        ((3, 53, 4), (3, 53, 4), "own", "WAL"),
        ((3, 40, 1), (3, 53, 4), "bundled", "WAL"),
        ((3, 40, 1), (3, 46, 0), "own", "TRUNCATE"),
        ((3, 40, 1), None, "own", "TRUNCATE"),  # no wheel: the bug is in WAL only
    ],
)
def test_the_first_sound_module_is_taken_and_without_one_there_is_no_wal(
    monkeypatch: pytest.MonkeyPatch,
    own: tuple[int, ...],
    bundled: tuple[int, ...] | None,
    chosen: str,
    journal: str,
) -> None:
    modules = {"own": SimpleNamespace(sqlite_version_info=own), "bundled": None}
    if bundled is not None:
        modules["bundled"] = SimpleNamespace(sqlite_version_info=bundled)
    monkeypatch.setattr(sqlite, "sqlite3", modules["own"])
    monkeypatch.setattr(sqlite, "bundled_sqlite", modules["bundled"])
    assert sqlite.choose_module() == (modules[chosen], journal)


def test_every_commit_is_synced_and_references_are_checked(tmp_path: Path) -> None:
    _, journal = sqlite.choose_module()
    with Store(f"sqlite:///{tmp_path / 'state.db'}") as store, store.read() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert found == {"journal_mode": journal.lower(), "synchronous": 2, "foreign_keys": 1}


def test_without_a_sound_module_the_store_works_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "choose_module", lambda: (sqlite3, "TRUNCATE"))
    with Store(f"sqlite:///{tmp_path / 'state.db'}") as store:
        with store.change():
            pass
        assert store.revision() == 1
    assert not (tmp_path / "state.db-wal").exists()
