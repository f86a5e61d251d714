"""A store for tests: on SQLite in memory and in a file, and on a real PostgreSQL when asked for heavy tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.postgresql import postgresql_server

from cloche.store.blobs import BundleFolder
from cloche.store.database import Store


class FakeClock:
    """A FakeClock is a time that moves only when the test says so."""

    def __init__(self) -> None:
        self.now = 1_750_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.heavy)])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    url = "sqlite://" if request.param == "memory" else _database(request, request.param, tmp_path)
    with Store(url, clock=clock) as opened:
        yield opened


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.heavy)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database that several processes can use."""
    return _database(request, request.param, tmp_path)


@pytest.fixture
def bundles(tmp_path: Path) -> BundleFolder:
    return BundleFolder(tmp_path / "bundles")


@pytest.fixture
def keep_bundle(bundles: BundleFolder, tmp_path: Path) -> Callable[[str], str]:
    """Put a small bundle with this digest into the folder."""

    def keep(digest: str) -> str:
        source = tmp_path / "source"
        source.mkdir(exist_ok=True)
        (source / "manifest.json").write_text("{}")
        bundles.add(source, digest)
        return digest

    return keep


def _database(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> str:
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    new_database: Callable[[], str] = request.getfixturevalue("postgresql")
    return new_database()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """A private PostgreSQL, as a function that makes an empty database and gives its URL."""
    with postgresql_server() as server:
        yield server.new_database
