"""The store's database: one revision, one writer at a time, all or nothing, on every database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text, update

from cloche.core.errors import BusyError, ConfigError, ConflictError, MissingExtraError
from cloche.store import postgres
from cloche.store.database import Store
from cloche.store.tables import models, state


def _add(store: Store, name: str) -> None:
    with store.change() as connection:
        connection.execute(insert(models).values(name=name, created=1.0))


def _names(store: Store) -> list[str]:
    with store.read() as connection:
        return list(connection.execute(select(models.c.name).order_by(models.c.name)).scalars())


def test_each_change_makes_the_revision_grow_and_reading_does_not(store: Store) -> None:
    before = store.revision()
    _add(store, "fraud")
    _names(store)
    assert store.revision() == before + 1


def test_a_change_that_fails_leaves_nothing_and_the_revision_as_it_was(store: Store) -> None:
    before = store.revision()
    with pytest.raises(RuntimeError, match="stop"), store.change() as connection:
        connection.execute(insert(models).values(name="fraud", created=1.0))
        raise RuntimeError("stop")
    assert (_names(store), store.revision()) == ([], before)


def test_what_is_written_while_reading_is_not_kept(store: Store) -> None:
    with store.read() as connection:
        connection.execute(insert(models).values(name="fraud", created=1.0))
    assert _names(store) == []


def test_a_store_is_found_again_with_what_it_held(database: str) -> None:
    with Store(database) as first:
        _add(first, "fraud")
        revision = first.revision()
    with Store(database) as second:
        assert (_names(second), second.revision()) == (["fraud"], revision)


def test_another_connection_sees_the_revision_grow(database: str) -> None:
    with Store(database) as writer, Store(database) as watcher:
        before = watcher.revision()
        _add(writer, "fraud")
        assert watcher.revision() == before + 1


def test_a_reader_sees_one_state_however_long_it_looks(database: str) -> None:
    with Store(database) as writer, Store(database) as reader, reader.read() as connection:
        count = select(models.c.name)
        assert connection.execute(count).all() == []
        _add(writer, "fraud")
        assert connection.execute(count).all() == []


def test_changes_follow_each_other(database: str) -> None:
    """The second waits for the first, then sees what it did: so `highest version + 1` is safe."""
    seen: list[list[str]] = []
    waiting = threading.Event()

    def second() -> None:
        with Store(database) as other:
            waiting.set()
            with other.change() as connection:
                seen.append(list(connection.execute(select(models.c.name)).scalars()))

    with Store(database) as store:
        thread = threading.Thread(target=second)
        with store.change() as connection:
            thread.start()
            assert waiting.wait(30)
            connection.execute(insert(models).values(name="fraud", created=1.0))
        thread.join(30)
    assert seen == [["fraud"]]


_ADD_MANY = """
import sys
from sqlalchemy import insert
from cloche.store.database import Store
from cloche.store.tables import models
with Store(sys.argv[1]) as store:
    for number in range(10):
        with store.change() as connection:
            connection.execute(insert(models).values(name=f"{sys.argv[2]}-{number}", created=1.0))
"""


def test_processes_that_start_at_once_on_an_empty_database_lose_nothing(database: str) -> None:
    command = [sys.executable, "-W", "error", "-c", _ADD_MANY, database]
    started = [subprocess.Popen([*command, f"p{n}"], stderr=subprocess.PIPE) for n in range(4)]
    ends = [process.communicate(timeout=120)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0] * 4, "\n".join(ends)
    with Store(database) as store:
        assert len(_names(store)) == 40
        assert store.revision() == 40


_HANG_IN_A_CHANGE = """
import sys, time
from sqlalchemy import insert
from cloche.store.database import Store
from cloche.store.tables import models
with Store(sys.argv[1]) as store, store.change() as connection:
    connection.execute(insert(models).values(name="half", created=1.0))
    print("written", flush=True)
    time.sleep(600)
"""


def test_a_process_that_is_killed_in_a_change_leaves_nothing_and_holds_nobody_up(database: str) -> None:
    with Store(database) as store:
        _add(store, "whole")
        command = [sys.executable, "-c", _HANG_IN_A_CHANGE, database]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"written\n"
            os.kill(process.pid, signal.SIGKILL)
        _add(store, "after")
        assert _names(store) == ["after", "whole"]


def test_tables_of_a_newer_cloche_are_left_alone(database: str) -> None:
    with Store(database) as store, store.change() as connection:
        connection.execute(update(state).values(schema_version=999))
    with pytest.raises(ConflictError, match="tables of version 999") as caught:
        Store(database)
    assert caught.value.code == "CL-E504"


def test_a_store_that_only_reads_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "not" / "there" / "state.db"
    with Store(f"sqlite:///{file}", create=False) as store:
        assert _names(store) == []
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_only_reads_finds_what_is_there(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    with Store(url) as store:
        _add(store, "fraud")
    with Store(url, create=False) as store:
        assert _names(store) == ["fraud"]


def test_the_folder_of_a_new_store_is_private(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'data' / 'state.db'}"):
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    file = tmp_path / "what? 100% #1" / "state.db"
    with Store(f"sqlite:///{file}"):
        assert file.exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "not given as a URL"),
        ("state.db", "not given as a URL"),
        ("mysql://root@localhost/x", "'mysql' is not a database"),
        ("postgresql://host:port/x", "not given as a URL"),
    ],
)
def test_a_url_that_cannot_be_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Store(url)
    assert caught.value.code == "CL-E201"
    assert caught.value.hint is not None


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    file.write_bytes(b"this is not a database at all" * 100)
    with pytest.raises(BusyError, match=r"state\.db can't be used: file is not a database") as caught:
        Store(f"sqlite:///{file}")
    assert caught.value.code == "CL-E606"


def test_a_damaged_file_is_found_when_it_is_opened(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    with Store(f"sqlite:///{file}") as store:
        for number in range(200):
            _add(store, f"model-{number}-with-a-name-that-takes-some-room")
    content = bytearray(file.read_bytes())
    assert len(content) > 5 * 4096
    content[3 * 4096 : 5 * 4096] = os.urandom(2 * 4096)
    file.write_bytes(bytes(content))
    with pytest.raises(BusyError) as caught:
        Store(f"sqlite:///{file}")
    assert caught.value.code == "CL-E606"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BusyError, match=r"the folder .*file/data can't be made") as caught:
        Store(f"sqlite:///{tmp_path / 'file' / 'data' / 'state.db'}")
    assert caught.value.code == "CL-E606"


def test_a_database_that_does_not_answer_is_named_without_its_password(free_port: int) -> None:
    with pytest.raises(BusyError, match="can't be used") as caught:
        Store(f"postgresql://cloche:hidden@127.0.0.1:{free_port}/shop")
    assert caught.value.code == "CL-E606"
    assert "hidden" not in caught.value.render()


def test_the_password_is_not_in_what_a_store_looks_like(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'state.db'}") as store:
        assert repr(store) == f"Store('sqlite:///{tmp_path / 'state.db'}')"


_FILL_THE_DISK = """
import resource, signal, sys
from pathlib import Path
from sqlalchemy import insert
from cloche.core.errors import BusyError
from cloche.store.database import Store
from cloche.store.tables import models

def add(store, name):
    with store.change() as connection:
        connection.execute(insert(models).values(name=name, created=1.0))

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
with Store(f"sqlite:///{folder / 'state.db'}") as store:
    add(store, "before")
    size = max(file.stat().st_size for file in folder.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    refused = 0
    for number in range(50):
        try:
            add(store, f"full-{number}")
        except BusyError as error:
            assert error.code == "CL-E606", error.code
            refused += 1
    assert refused, "nothing was refused"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    add(store, "after")
    print(50 - refused)
"""


def test_a_write_that_does_not_reach_the_disk_is_refused_and_leaves_the_store_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _FILL_THE_DISK, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    with Store(f"sqlite:///{tmp_path / 'state.db'}") as store:
        names = _names(store)
        assert {"before", "after"} <= set(names)
        assert len(names) == int(ended.stdout) + 2 == store.revision()


@pytest.mark.heavy
def test_a_connection_that_postgresql_ended_is_opened_anew(postgresql: Callable[[], str]) -> None:
    url = postgresql()
    with Store(url) as store, Store(url) as other:
        _add(store, "before")
        with other.read() as connection:
            others = "pid <> pg_backend_pid() AND datname = current_database()"
            ended = text(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}")
            assert connection.execute(ended).scalar_one() > 0
        _add(store, "after")
        assert _names(store) == ["after", "before"]


def test_postgresql_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="psycopg") as caught:
        Store("postgresql://cloche@localhost/shop")
    assert caught.value.hint == 'pip install "cloche[postgres]"'
