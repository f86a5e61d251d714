"""A pickle is read only when asked to, without network, and never comes back as code."""

from __future__ import annotations

import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression
from tests.conformance.models import mixed_pipeline, passengers

from cloche.bundle import pickle_wire, pickles
from cloche.bundle.converters.base import ConvertOptions
from cloche.bundle.no_network import CANNOT
from cloche.bundle.pickles import convert_pickle, is_pickle
from cloche.core.errors import ConversionError, MissingExtraError, NotFoundError, RefusedError

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="a process without network can only be made on Linux"
)

OPTIONS = ConvertOptions()


class Runs:
    """Runs code when it is unpickled, as any pickle may."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code,)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def pickled(folder: Path, model: object) -> Path:
    path = folder / "model.pkl"
    path.write_bytes(pickle.dumps(model))
    return path


def test_names_of_pickles_are_known() -> None:
    assert all(is_pickle(Path(name)) for name in ("a.pkl", "a.pickle", "a.joblib"))
    assert not is_pickle(Path("a.onnx")) and not is_pickle("a.pkl")


def test_without_the_flag_nothing_is_read(tmp_path: Path) -> None:
    path = pickled(tmp_path, Runs(f"open({str(tmp_path / 'ran')!r}, 'w')"))
    with pytest.raises(RefusedError, match=r"model\.pkl is a pickle") as caught:
        convert_pickle(path, None, OPTIONS, trusted=False)
    assert caught.value.code == "CL-E407"
    assert "--trust-pickle" in (caught.value.hint or "")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", ["pkl", "joblib"])
def test_a_pickled_model_is_converted_as_the_object_is(tmp_path: Path, suffix: str) -> None:
    frame, answer = passengers(200)
    model = mixed_pipeline(LogisticRegression()).fit(frame, answer)
    path = tmp_path / f"model.{suffix}"
    if suffix == "pkl":
        path.write_bytes(pickle.dumps(model))
    else:
        joblib.dump(model, path, compress=3)
    converted = convert_pickle(path, frame, OPTIONS, trusted=True)
    assert converted.description == "Pipeline(ColumnTransformer, LogisticRegression)"
    assert list(converted.files) == ["model/model.onnx"]
    assert converted.columns is not None and converted.reference is not None
    assert converted.columns["port"].tolist() == [None if value != value else value for value in frame["port"]]
    np.testing.assert_array_equal(converted.reference["probabilities"], model.predict_proba(frame))
    assert converted.original_bytes == path.stat().st_size


def test_a_model_of_another_version_says_which_saved_it(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(30, 2))
    model = LogisticRegression().fit(X, X[:, 0] > 0)
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(model).replace(sklearn.__version__.encode(), b"1.0.7"))
    converted = convert_pickle(path, X, OPTIONS, trusted=True)
    assert converted.framework == f"scikit-learn {sklearn.__version__}, saved by 1.0.7"


def test_a_pickle_reaches_no_listener_on_this_machine(tmp_path: Path, listener: socket.socket) -> None:
    address = listener.getsockname()
    with socket.create_connection(address, timeout=5) as proof:  # the listener is there for others
        listener.accept()[0].close()
        proof.close()
    path = pickled(tmp_path, Runs(f"import socket; socket.create_connection({address!r}, 5).send(b'taken')"))
    with pytest.raises(ConversionError, match="Network is unreachable"):
        convert_pickle(path, None, OPTIONS, trusted=True)
    with pytest.raises(TimeoutError):
        listener.accept()


def test_a_pickle_reaches_no_other_machine(tmp_path: Path) -> None:
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))"
    with pytest.raises(ConversionError, match="Network is unreachable"):
        convert_pickle(pickled(tmp_path, Runs(code)), None, OPTIONS, trusted=True)


def test_a_pickle_changes_no_file(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("as it was")
    code = f"open({str(kept)!r}, 'r+').write('other')"
    with pytest.raises(ConversionError):
        convert_pickle(pickled(tmp_path, Runs(code)), None, OPTIONS, trusted=True)
    assert kept.read_text() == "as it was"


def test_a_pickle_sees_no_secret_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "known")
    code = "import os; raise LookupError(os.environ.get('SECRET_OF_MINE', 'nothing'))"
    with pytest.raises(ConversionError, match="LookupError: nothing"):
        convert_pickle(pickled(tmp_path, Runs(code)), None, OPTIONS, trusted=True)


def test_what_a_pickle_prints_does_not_come_between(tmp_path: Path) -> None:
    path = pickled(tmp_path, [Runs("print('x' * 100_000)"), 1])
    with pytest.raises(Exception, match=r"model\.pkl: no converter knows a builtins\.list"):
        convert_pickle(path, None, OPTIONS, trusted=True)


def test_a_dead_process_is_told(tmp_path: Path) -> None:
    path = pickled(
        tmp_path, Runs("import os, sys; print('the end', file=sys.stderr); sys.stderr.flush(); os._exit(9)")
    )
    with pytest.raises(ConversionError, match=r"died \(exit code 9\): the end"):
        convert_pickle(path, None, OPTIONS, trusted=True)


def test_a_pickle_that_never_ends_is_ended_with_its_children(tmp_path: Path) -> None:
    code = "import subprocess, time; subprocess.Popen(['sleep', '86399']); time.sleep(86399)"
    with pytest.raises(ConversionError, match="took longer than 2 s"):
        convert_pickle(pickled(tmp_path, Runs(code)), None, OPTIONS, trusted=True, timeout_s=2)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 86399" not in running


def test_a_stop_ends_it_with_its_children(tmp_path: Path) -> None:
    begun = threading.Timer(1.5, signal.raise_signal, [signal.SIGINT])
    code = "import subprocess, time; subprocess.Popen(['sleep', '86398']); time.sleep(86398)"
    begun.start()
    with pytest.raises(KeyboardInterrupt):
        convert_pickle(pickled(tmp_path, Runs(code)), None, OPTIONS, trusted=True, timeout_s=60)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 86398" not in running


def test_a_framework_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"cnowhere_installed.models\nModel\n.")
    with pytest.raises(
        MissingExtraError, match="saved with nowhere_installed, which is not installed here"
    ) as caught:
        convert_pickle(path, None, OPTIONS, trusted=True)
    assert "install nowhere_installed" in (caught.value.hint or "")


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        convert_pickle(tmp_path / "none.pkl", None, OPTIONS, trusted=True)


def test_code_does_not_come_back_even_when_the_pickle_forges_the_answer(tmp_path: Path) -> None:
    forged = pickle_wire.encode(
        {
            "converted": {
                "framework": "f",
                "description": "d",
                "task": "other",
                "signature": {"inputs": [], "outputs": []},
                "runtime": {"kind": "python", "entry": "code/evil.py:Evil"},
                "files": {"code/evil.py": b"import os"},
                "columns": None,
                "reference": None,
            }
        }
    )
    # 1 was put aside for the answer: the lowest free descriptors are tried until one is the pipe.
    code = f"import os\nfor fd in range(3, 9):\n try: os.write(fd, {forged!r})\n except OSError: pass\nos._exit(0)"
    with pytest.raises(ConversionError, match=r"holds no model that can be packed without code|answered nonsense"):
        convert_pickle(pickled(tmp_path, Runs(code)), None, OPTIONS, trusted=True)


def test_where_no_such_process_can_be_made_nothing_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This machine can make one; the command stands for a kernel that says no.
    says_no = [sys.executable, "-c", f"raise SystemExit({CANNOT})"]
    monkeypatch.setattr(pickles, "_command", lambda **_: says_no)
    with pytest.raises(RefusedError, match="the pickle was not read") as caught:
        convert_pickle(pickled(tmp_path, Runs("raise SystemError")), None, OPTIONS, trusted=True)
    assert caught.value.code == "CL-E411"
