"""The python runtime asks hosts: real ones, and sockets that answer wrongly on purpose."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cloche.core.errors import BusyError, ConfigError, InputError, MissingExtraError, ModelError
from cloche.core.platform import is_alive, process_start
from cloche.core.signature import Columns, Field, Signature
from cloche.runtimes import frames
from cloche.runtimes.base import RuntimePlace, RuntimeSpec, load_runtime
from cloche.runtimes.files import Held
from cloche.runtimes.frames import (
    Begun,
    FrameReader,
    Reply,
    Request,
    pack_columns,
    pack_frame,
    read_columns,
)
from cloche.runtimes.hosted import HostedRuntime
from cloche.runtimes.local_host import LocalHost, start_host

DIGEST = "d" * 64
ENTRY = "code/model.py:Model"
SIGNATURE = Signature(
    inputs=(Field(name="text", datatype="BYTES", shape=(-1,)),),
    outputs=(Field(name="value", datatype="FP64", shape=(-1,)),),
)
CODE = b"""
import os, signal, time
from pathlib import Path

class Model:
    def load(self):
        print("printed while loading")
        self.extra = float(Path("extra.txt").read_text())

    def predict(self, text: list[str]) -> list[float]:
        print("printed while predicting")
        for word in text:
            if word == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if word == "raise":
                raise ValueError("no such word")
            if word == "slow":
                time.sleep(1)
        return [len(word or "") + self.extra for word in text]
"""
FILES = {"code/model.py": CODE, "code/extra.txt": b"0.5"}
SPEC = RuntimeSpec(kind="python", entry=ENTRY, files=tuple(FILES))


def texts(*words: str | None) -> Columns:
    return {"text": np.array(words, dtype=object)}


def load(*hosts: str, timeout_s: float = 10.0, files: dict[str, bytes] = FILES) -> HostedRuntime:
    if hosts:
        return HostedRuntime(SIGNATURE, DIGEST, timeout_s=timeout_s, hosts=hosts)
    runtime = load_runtime(SPEC, SIGNATURE, Held(files), RuntimePlace(digest=DIGEST, timeout_s=timeout_s))
    assert isinstance(runtime, HostedRuntime)
    return runtime


@contextlib.contextmanager
def local_host(code: bytes = CODE) -> Iterator[LocalHost]:
    host = start_host(ENTRY, SIGNATURE, {**FILES, "code/model.py": code}, DIGEST)
    try:
        yield host
    finally:
        host.close()


@contextlib.contextmanager
def answering(path: Path, answer: Callable[[socket.socket, Request], None]) -> Iterator[list[Request]]:
    """A socket at `path` that answers as told; an `answer` that raises EOFError closes its connection."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(16)
    seen: list[Request] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(EOFError, OSError):
                reader = FrameReader()
                while True:
                    while (frame := reader.next()) is None:
                        reader.receive(connection)
                    assert isinstance(frame[0], Request)
                    seen.append(frame[0])
                    answer(connection, frame[0])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield seen
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def reply_with(
    value: float, *, number: int | None = None, digest: str = DIGEST, part: int | None = None
) -> Callable[[socket.socket, Request], None]:
    def answer(connection: socket.socket, request: Request) -> None:
        rows = request.tensors[0].shape[0]
        tensors, body = pack_columns({"value": np.full(rows, value)})
        reply = Reply(request.id if number is None else number, digest, tensors)
        connection.sendall(pack_frame(reply, body)[:part])
        if part is not None:
            raise EOFError

    return answer


def dies(connection: socket.socket, request: Request) -> None:
    """Gone without a byte, as a host that is killed."""
    raise EOFError


def begins_and_dies(connection: socket.socket, request: Request) -> None:
    if request.alone:
        connection.sendall(pack_frame(Begun(request.id, request.digest)))
    raise EOFError


@pytest.fixture(scope="module")
def host() -> Iterator[LocalHost]:
    with local_host() as host:
        yield host


def test_a_class_answers_from_a_process_of_its_own(host: LocalHost) -> None:
    runtime = load(host.socket)

    assert host.pid != os.getpid()
    assert not runtime.in_process
    assert runtime.run(texts("a", None, "three"))["value"].tolist() == [1.5, 0.5, 5.5]
    assert runtime.host_pid is None
    runtime.close()
    runtime.close()
    assert is_alive(host.pid, 0), "the hosts of a place are not the runtime's to end"


def test_what_the_class_raises_is_the_models_error_and_the_next_is_answered(host: LocalHost) -> None:
    runtime = load(host.socket)

    with pytest.raises(ModelError, match="ValueError: no such word") as caught:
        runtime.run(texts("raise"))
    assert caught.value.code == "CL-E900"
    assert runtime.run(texts("a"))["value"].tolist() == [1.5]
    runtime.close()


def test_many_threads_get_their_own_answers(host: LocalHost) -> None:
    runtime = load(host.socket)
    wrong: list[int] = []

    def ask(base: int) -> None:
        for length in range(base, base + 50):
            if runtime.run(texts("x" * length))["value"].tolist() != [length + 0.5]:
                wrong.append(length)

    threads = [threading.Thread(target=ask, args=(100 * number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    runtime.close()

    assert not wrong


def test_rows_that_fit_into_no_frame_go_in_several(host: LocalHost, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = load(host.socket)
    monkeypatch.setattr(frames, "MAX_BODY", 1200)

    answer = runtime.run(texts(*("x" * (number % 40) for number in range(500))))
    with pytest.raises(InputError, match="the row is too large") as caught:
        runtime.run(texts("x" * 2000))
    runtime.close()

    assert answer["value"].tolist() == [number % 40 + 0.5 for number in range(500)]
    assert caught.value.code == "CL-E113"


def test_text_that_is_no_text_is_the_callers_error(host: LocalHost) -> None:
    runtime = load(host.socket)
    with pytest.raises(InputError):
        runtime.run(texts("\ud800"))
    runtime.close()


def test_no_answer_in_time_is_busy_and_the_late_answer_reaches_nobody(host: LocalHost) -> None:
    runtime = load(host.socket, timeout_s=0.2)

    with pytest.raises(BusyError, match=r"no answer within 0\.2 s") as caught:
        runtime.run(texts("slow"))
    assert caught.value.code == "CL-E602"
    until = time.monotonic() + 10
    while True:  # until the host is through with the slow row
        try:
            answer = runtime.run(texts("next"))
            break
        except BusyError:
            assert time.monotonic() < until
    assert answer["value"].tolist() == [4.5]
    runtime.close()


def test_without_a_host_it_waits_for_one_until_the_time_out(tmp_path: Path) -> None:
    path = tmp_path / "s"
    runtime = load(str(path), timeout_s=0.2)
    start = time.monotonic()
    with pytest.raises(BusyError) as caught:
        runtime.run(texts("a"))
    assert 0.1 < time.monotonic() - start < 2
    assert caught.value.code == "CL-E603"
    runtime.close()

    runtime = load(str(path))
    found: list[list[float]] = []
    thread = threading.Thread(target=lambda: found.append(runtime.run(texts("a"))["value"].tolist()))
    thread.start()
    with answering(path, reply_with(3.0)):
        thread.join(10)
        runtime.close()

    assert found == [[3.0]]


def test_a_host_that_dies_is_left_for_the_next_which_is_kept(tmp_path: Path) -> None:
    with answering(tmp_path / "a", dies) as first, answering(tmp_path / "b", reply_with(2.0)) as second:
        runtime = load(str(tmp_path / "a"), str(tmp_path / "b"))
        assert [runtime.run(texts("x"))["value"].tolist() for _ in range(3)] == [[2.0]] * 3
        runtime.close()

    assert len(first) == 1
    assert [request.alone for request in second] == [True, False, False]


def test_there_is_one_retry_and_no_more(tmp_path: Path) -> None:
    with (
        answering(tmp_path / "a", begins_and_dies) as first,
        answering(tmp_path / "b", begins_and_dies) as second,
    ):
        runtime = load(str(tmp_path / "a"), str(tmp_path / "b"))
        with pytest.raises(ModelError, match="process died") as caught:
            runtime.run(texts("x", "y"))
        runtime.close()

    assert caught.value.code == "CL-E902"
    assert len(first) + len(second) == 2


def test_an_outage_is_not_doubled_by_retries(tmp_path: Path) -> None:
    with answering(tmp_path / "a", begins_and_dies) as seen:
        runtime = load(str(tmp_path / "a"))
        for number in range(40):
            with pytest.raises(ModelError):
                runtime.run(texts("x", str(number)))
        runtime.close()

    assert 40 < len(seen) <= 40 + 3 + 4 + 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(reply_with(1.0, part=30), id="half an answer"),
        pytest.param(reply_with(1.0, number=999), id="an answer to another request"),
        pytest.param(lambda connection, request: connection.sendall(b"\xff" * 64), id="no frame"),
    ],
)
def test_once_a_byte_was_seen_there_is_no_retry_and_the_stream_is_left(
    tmp_path: Path, answer: Callable[[socket.socket, Request], None]
) -> None:
    with answering(tmp_path / "a", answer) as first, answering(tmp_path / "b", reply_with(2.0)) as second:
        runtime = load(str(tmp_path / "a"), str(tmp_path / "b"))
        with pytest.raises(ModelError) as caught:
            runtime.run(texts("x"))
        assert (len(first), len(second)) == (1, 0)
        assert runtime.run(texts("x"))["value"].tolist() == [2.0]
        runtime.close()

    assert caught.value.code == "CL-E902"


def test_a_host_of_another_bundle_is_left_for_the_next(tmp_path: Path) -> None:
    with (
        answering(tmp_path / "a", reply_with(1.0, digest="e" * 64)) as first,
        answering(tmp_path / "b", reply_with(2.0)),
    ):
        runtime = load(str(tmp_path / "a"), str(tmp_path / "b"))
        assert runtime.run(texts("x"))["value"].tolist() == [2.0]
        runtime.close()

    assert len(first) == 1


@pytest.mark.parametrize(
    "columns",
    [
        {"other": np.zeros(1)},
        {"value": np.zeros(2)},
        {"value": np.zeros(1, dtype=np.float32)},
        {"value": np.zeros((1, 1))},
        {"value": np.zeros(1), "more": np.zeros(1)},
        {},
    ],
    ids=str,
)
def test_an_answer_that_is_not_as_the_signature_says_is_refused(tmp_path: Path, columns: Columns) -> None:
    def answer(connection: socket.socket, request: Request) -> None:
        tensors, body = pack_columns(columns)
        connection.sendall(pack_frame(Reply(request.id, DIGEST, tensors), body))

    with answering(tmp_path / "a", answer):
        runtime = load(str(tmp_path / "a"))
        with pytest.raises(ModelError) as caught:
            runtime.run(texts("x"))
        runtime.close()

    assert caught.value.code == "CL-E901"


def test_a_connection_that_died_in_the_meantime_costs_nothing(tmp_path: Path) -> None:
    def answers_and_closes(connection: socket.socket, request: Request) -> None:
        reply_with(1.0)(connection, request)
        raise EOFError

    with answering(tmp_path / "a", answers_and_closes) as seen:
        runtime = load(str(tmp_path / "a"))
        for _ in range(50):  # each connection is closed after its answer: far more than the retries there are
            assert runtime.run(texts("x"))["value"].tolist() == [1.0]
            while runtime._idle[str(tmp_path / "a")][0].is_fresh():
                time.sleep(0.001)
        runtime.close()

    assert not any(request.alone for request in seen)


def test_a_socket_of_another_user_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloche.runtimes.connection.peer_uid", lambda connection: 12345)
    with answering(tmp_path / "a", reply_with(1.0)) as seen:
        runtime = load(str(tmp_path / "a"), timeout_s=0.1)
        with pytest.raises(BusyError):
            runtime.run(texts("x"))
        runtime.close()

    assert not seen


def test_a_row_that_kills_two_hosts_is_refused_and_others_are_not() -> None:
    runtime = load()
    first = runtime.host_pid
    assert runtime.run(texts("a"))["value"].tolist() == [1.5]

    with pytest.raises(InputError) as caught:
        runtime.run(texts("die"))
    assert caught.value.code == "CL-E118"
    assert runtime.run(texts("a"))["value"].tolist() == [1.5]
    alive = runtime.host_pid
    assert alive not in (None, first)

    with pytest.raises(InputError):
        runtime.run(texts("die"))
    assert runtime.host_pid == alive, "no third host had to die"
    runtime.close()


def test_rows_that_were_in_flight_with_a_killer_are_not_blamed(tmp_path: Path) -> None:
    with answering(tmp_path / "a", dies):
        runtime = load(str(tmp_path / "a"))
        for _ in range(3):
            with pytest.raises(ModelError):
                runtime.run(texts("innocent"))
        runtime.close()


def test_many_rows_that_kill_hosts_are_not_refused_as_one(tmp_path: Path) -> None:
    with answering(tmp_path / "a", dies):
        runtime = load(str(tmp_path / "a"))
        for _ in range(3):
            with pytest.raises(ModelError):
                runtime.run(texts("a", "die"))
        runtime.close()


def test_a_host_of_its_own_ends_with_the_runtime() -> None:
    runtime = load()
    pid = runtime.host_pid
    assert pid is not None
    start = process_start(pid)
    assert runtime.run(texts("a"))["value"].tolist() == [1.5]
    runtime.close()

    assert not is_alive(pid, start)
    with pytest.raises(ModelError, match="was closed"):
        runtime.run(texts("a"))


def test_the_end_of_a_fork_leaves_the_host_to_its_owner(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from cloche.runtimes.base import RuntimePlace, RuntimeSpec\n"
        "from cloche.runtimes.files import Held\n"
        "from cloche.runtimes.python import PythonRuntime\n"
        "from cloche.core.signature import Field, Signature\nimport numpy as np\n"
        "signature = Signature(inputs=(Field(name='n', datatype='FP64', shape=(-1,)),),"
        " outputs=(Field(name='value', datatype='FP64', shape=(-1,)),))\n"
        "code = b'class M:\\n  def load(self): ...\\n  def predict(self, n): return n'\n"
        "spec = RuntimeSpec(kind='python', entry='code/m.py:M')\n"
        "runtime = PythonRuntime.load(spec, signature, Held({'code/m.py': code}), RuntimePlace(digest='d'))\n"
        "child = os.fork()\n"
        "if child == 0:\n    sys.exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(runtime.run({'n': np.ones(1)})['value'].tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.stdout == "[1.0]\n", done.stderr


def test_a_host_of_its_own_that_was_killed_is_started_again() -> None:
    runtime = load()
    pid = runtime.host_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    assert runtime.run(texts("a"))["value"].tolist() == [1.5]
    assert runtime.host_pid != pid
    runtime.close()


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (b"x = 1", ConfigError, "holds no class 'Model'"),
        (b"import no_such_module_anywhere", MissingExtraError, "imports 'no_such_module_anywhere'"),
        (b"raise RuntimeError('at import')", ModelError, "RuntimeError: at import"),
        (b"def (", ModelError, "SyntaxError"),
        (b"import sys; sys.exit(3)", ModelError, "SystemExit: 3"),
        (b"import os; os._exit(3)", ModelError, "ended with code 3"),
        (b"class Model:\n  def predict(self, text): ...", ConfigError, "has no `load`"),
        (
            b"class Model:\n  def load(self): open('weights.bin')\n  def predict(self, text): ...",
            ModelError,
            "FileNotFoundError",
        ),
    ],
    ids=["no class", "missing module", "raises", "syntax", "exits", "dies", "no load", "missing file"],
)
def test_a_class_that_does_not_load_says_why(code: bytes, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words), local_host(code):
        pass


def test_a_class_that_loads_for_ever_is_ended() -> None:
    code = b"import time\nclass Model:\n  def load(self): time.sleep(60)\n  def predict(self, text): ..."
    start = time.monotonic()
    with pytest.raises(ModelError, match="more than 1 s"):
        start_host(ENTRY, SIGNATURE, {"code/model.py": code}, DIGEST, timeout_s=1)
    assert time.monotonic() - start < 4


def test_a_file_that_packs_itself_when_imported_starts_no_hosts_without_end() -> None:
    code = b"from cloche.runtimes.local_host import start_host\nstart_host('code/m.py:M', None, {}, '')\n"

    with pytest.raises(ConfigError, match="when it is imported") as caught, local_host(code):
        pass
    assert "__main__" in (caught.value.hint or "")


def test_frames_read_back_what_hosts_were_sent(tmp_path: Path) -> None:
    bodies: list[Columns] = []

    def keep(connection: socket.socket, request: Request) -> None:
        bodies.append(read_columns(request.tensors, pack_columns(texts("ü", None))[1]))
        reply_with(1.0)(connection, request)

    with answering(tmp_path / "a", keep):
        runtime = load(str(tmp_path / "a"))
        runtime.run(texts("ü", None))
        runtime.close()

    assert bodies[0]["text"].tolist() == ["ü", None]
