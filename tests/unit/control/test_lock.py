"""One supervisor a folder, and what it says of itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cloche.control import lock
from cloche.core.errors import ConflictError


def test_a_lock_that_is_held_is_a_conflict_that_names_the_holder(tmp_path: Path) -> None:
    descriptor = lock.hold(tmp_path)
    note = {"pid": 4711, "model": "fraud:3", "addresses": ["http://127.0.0.1:8080"]}
    lock.write_note(tmp_path, note)
    with pytest.raises(ConflictError) as caught:
        lock.check_free(tmp_path)
    assert caught.value.code == "CL-E501"
    assert caught.value.message == "fraud:3 at http://127.0.0.1:8080 is running already (process 4711)"
    assert "kill 4711" in str(caught.value.hint)
    os.close(descriptor)
    lock.check_free(tmp_path)


def test_a_lock_without_a_note_is_a_conflict_all_the_same(tmp_path: Path) -> None:
    descriptor = lock.hold(tmp_path)
    with pytest.raises(ConflictError) as caught:
        lock.hold(tmp_path)
    assert caught.value.message == "Cloche is running already"
    os.close(descriptor)


def test_a_lock_is_gone_with_its_holder_however_that_dies(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from cloche.control import lock\n"
        "lock.hold(Path(sys.argv[1])); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(ConflictError):
            lock.check_free(tmp_path)
        holder.send_signal(signal.SIGKILL)
    lock.check_free(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_note_that_can_not_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    assert lock.read_note(tmp_path) == {}
    (tmp_path / "supervisor.json").write_text(text)
    assert lock.read_note(tmp_path) == {}
