"""A private PostgreSQL server on a free port, for tests of real ones; it can be killed and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SERVER_BINARIES = "/usr/lib/postgresql/*/bin"


class PostgresqlServer:
    """A PostgresqlServer is one instance with its data in a folder of its own."""

    def __init__(self, binaries: Path, home: Path) -> None:
        self._binaries = binaries
        self._home = home
        self._as_user = _unprivileged(home)
        self._made = 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._run("initdb", *self._data, "-A", "trust", "-U", "cloche", "--no-sync", "-E", "UTF8", "--locale=C")

    @property
    def _data(self) -> tuple[str, str]:
        return "-D", str(self._home / "data")

    def start(self) -> None:
        listen = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self._home}"
        self._run("pg_ctl", *self._data, "-w", "-l", str(self._home / "log"), "-o", listen, "start")

    def kill(self) -> None:
        """End it at once, with whatever is under way."""
        self._run("pg_ctl", *self._data, "-w", "-m", "immediate", "stop")

    def new_database(self) -> str:
        """The URL of an empty database."""
        self._made += 1
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "cloche", f"test{self._made}")
        return f"postgresql://cloche@127.0.0.1:{self.port}/test{self._made}"

    def _run(self, program: str, *words: str) -> None:
        command = [*self._as_user, str(self._binaries / program), *words]
        subprocess.run(command, check=True, cwd=self._home, stdout=subprocess.DEVNULL)


@contextmanager
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A server that runs; the test is skipped where PostgreSQL is not installed."""
    folders = [str(folder) for folder in sorted(Path("/").glob(_SERVER_BINARIES.lstrip("/")))]
    found = shutil.which("initdb", path=os.pathsep.join([*reversed(folders), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip("PostgreSQL is not installed here: apt install postgresql")
    home = Path(tempfile.mkdtemp(prefix="cloche-postgresql-"))
    try:
        server = PostgresqlServer(Path(found).parent, home)
        server.start()
        try:
            yield server
        finally:
            server.kill()
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
