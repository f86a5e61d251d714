"""A store for tests: on SQLite in memory and in a file, and on a real PostgreSQL when asked for heavy tests."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloche.store.blobs import BundleFolder
from cloche.store.database import Store

_SERVER_BINARIES = "/usr/lib/postgresql/*/bin"


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
    """A private PostgreSQL on a free port, as a function that makes an empty database and gives its URL."""
    folders = [str(folder) for folder in sorted(Path("/").glob(_SERVER_BINARIES.lstrip("/")))]
    found = shutil.which("initdb", path=os.pathsep.join([*reversed(folders), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip("PostgreSQL is not installed here: apt install postgresql")
    binaries = Path(found).parent
    home = Path(tempfile.mkdtemp(prefix="cloche-postgresql-"))
    as_user = _unprivileged(home)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(program: str, *words: str) -> None:
        command = [*as_user, str(binaries / program), *words]
        subprocess.run(command, check=True, cwd=home, stdout=subprocess.DEVNULL)

    data = str(home / "data")
    try:
        run("initdb", "-D", data, "-A", "trust", "-U", "cloche", "--no-sync", "-E", "UTF8", "--locale=C")
        listen = f"-p {port} -c listen_addresses=127.0.0.1 -k {home}"
        run("pg_ctl", "-D", data, "-w", "-l", str(home / "log"), "-o", listen, "start")
        try:
            made = 0

            def new_database() -> str:
                nonlocal made
                made += 1
                run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "cloche", f"test{made}")
                return f"postgresql://cloche@127.0.0.1:{port}/test{made}"

            yield new_database
        finally:
            run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home)


def _unprivileged(home: Path) -> list[str]:
    """What to put before a command, since PostgreSQL refuses to run as root; `home` is given away."""
    if os.getuid() != 0:
        return []
    user = pwd.getpwnam("postgres" if any(u.pw_name == "postgres" for u in pwd.getpwall()) else "nobody")
    os.chown(home, user.pw_uid, user.pw_gid)
    ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}"]
    return ["setpriv", *ids, "--clear-groups"]
