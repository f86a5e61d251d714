"""The entry of a runtime host: `python -m cloche.app.host FD` under a supervisor, `--alone FD` as a child.

Alone, FD is one end of a socket pair: a HostTask comes by it, a HostReport goes back, and its end is the host's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from cloche.app.placement import HostConfig
from cloche.bundle.bundle import Bundle
from cloche.core.board import Head, series_hash
from cloche.core.errors import ClocheError, MissingExtraError, ModelError, RefusedError
from cloche.core.member import Member
from cloche.core.signature import Columns, Signature
from cloche.monitoring import log
from cloche.runtimes.base import Runtime, RuntimePlace, load_runtime
from cloche.runtimes.code import FOLDER, CodeFolder, import_class, inner_path
from cloche.runtimes.host import Host, Model, describe
from cloche.runtimes.local_host import LENGTH, HostReport, HostTask, forbid_hosts
from cloche.runtimes.model_class import ModelClass
from cloche.runtimes.requirements import check_requirements

#: How long a model may go on working once its host is to end.
_GRACE_S = 5.0
_LOOK_S = 1.0


def main(arguments: list[str]) -> int:
    """Serve until drained; the exit code."""
    os.dup2(2, 1)  # what the model prints is no answer of ours
    forbid_hosts()
    if arguments[0] == "--alone":
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
        return run_alone(socket.socket(fileno=int(arguments[1])))
    member = Member.from_fd(int(arguments[0]))
    logs = log.start(sys.stderr, colour=member.colour)
    try:
        return run_member(member)
    finally:
        logs.stop()


def run_member(member: Member) -> int:
    """A host of a supervisor's: config is a HostConfig."""
    config = msgspec.convert(member.config, HostConfig)
    try:
        bundle = Bundle.open(Path(config.bundle), config.trusted, digest=config.digest)
        check_requirements(bundle.manifest.requirements)
        # should loading end this process, its supervisor sees what did
        blamed = series_hash({"deployment": config.deployment, "version": str(config.version)})
        member.slot.set(Head.LOADING, blamed)
        with _loaded(bundle, config.device) as model:
            host = Host(model, bundle.signature, bundle.digest, Path(config.socket), member.slot, blamed)
            member.slot.set(Head.LOADING, 0)
            member.on_drain(host.drain)
            end_when_stuck(host)
            member.ready()
            host.serve()
    except ClocheError as error:
        # a class that can't load won't load the next time either: the supervisor stops at 2 to 7
        exit_code = member.fail(error)
        return exit_code if 2 <= exit_code <= 7 else RefusedError.exit_code
    return 0


class _Graph:
    """A graph, as a host runs it: an instance of a Model."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def run(self, columns: Columns, signature: Signature) -> Columns:
        return self._runtime.run(columns)


@contextlib.contextmanager
def _loaded(bundle: Bundle, device: str) -> Iterator[Model]:
    """The bundle's model, loaded in this process; code in a folder of its own."""
    manifest = bundle.manifest
    if manifest.runtime.kind != "python":
        # with the threads of a worker: they decide the last digits of some answers
        place = RuntimePlace(digest=bundle.digest, device=device)
        yield _Graph(load_runtime(manifest.runtime, bundle.signature, bundle, place))
        return
    files = {
        entry.path: bundle.read(entry.path) for entry in manifest.files if entry.path.startswith(f"{FOLDER}/")
    }
    with CodeFolder(files) as code:
        yield load_model(code.path, manifest.runtime.entry, files)


def run_alone(leash: socket.socket) -> int:
    """A host of another process's own: it ends when that process closes the leash, or is gone."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    task = _read_task(leash)
    with CodeFolder(task.files) as code:
        hosts: list[Host] = []
        folders = (code.path, Path(task.socket).parent)
        threading.Thread(target=_watch, args=(leash, hosts, folders), daemon=True).start()
        try:
            model = load_model(code.path, task.entry, task.files)
            hosts.append(Host(model, task.signature, task.digest, Path(task.socket)))
        except ClocheError as error:
            kind = type(error).__name__
            _report(leash, HostReport(kind=kind, code=error.code, message=error.message, hint=error.hint))
            return error.exit_code
        end_when_stuck(hosts[0])
        _report(leash, HostReport(ready=True))
        hosts[0].serve()
    shutil.rmtree(Path(task.socket).parent, ignore_errors=True)
    return 0


def load_model(folder: Path, entry: str, files: Mapping[str, bytes]) -> ModelClass:
    """The class of `code/sentiment.py:Sentiment` in the folder, made and loaded there.

    Raises MissingExtraError for a module that is not there, ConfigError for a class that can't be called,
    ModelError for whatever else its code raises; the traceback goes to the log.
    """
    os.chdir(folder)
    try:
        return ModelClass(import_class(folder, inner_path(entry)))
    except ClocheError:
        raise
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        raise MissingExtraError(
            f"the model's code imports {name!r}, which is not there",
            code="CL-E701",
            hint=f'if {name}.py is yours, pack with code=[..., "{name}.py"]; else: pip install {name}, '
            f'and pack with requirements=["{name}"]',
        ) from error
    except (Exception, SystemExit) as error:  # the model's own code: it may raise anything
        traceback.print_exception(error)
        listed = ", ".join(sorted(inner_path(name) for name in files))
        hint = f"the files that travel are: {listed}; name what is lacking in code=[...]"
        raise ModelError(
            f"the model's class did not load: {describe(error)}",
            hint=hint if isinstance(error, OSError) else "the traceback is in the log",
        ) from error


def end_when_stuck(host: Host, end: Callable[[int], object] = os._exit) -> None:
    """End the process when its model does not come back; a side thread looks each second.

    The heartbeat can't tell: it goes on while the model hangs. Looking is cheaper than a condition, which
    each call of the model would have to notify.
    """

    def watch() -> None:
        while not host.is_stuck():
            time.sleep(_LOOK_S)
        print("the model did not come back from a call: its host is ended", file=sys.stderr, flush=True)
        end(1)

    threading.Thread(target=watch, name="cloche-stuck", daemon=True).start()


def _read_task(leash: socket.socket) -> HostTask:
    length = LENGTH.unpack(_read_exactly(leash, LENGTH.size))[0]
    return msgspec.msgpack.decode(_read_exactly(leash, length), type=HostTask)


def _read_exactly(leash: socket.socket, length: int) -> bytearray:
    data = bytearray()
    while len(data) < length:
        chunk = leash.recv(min(length - len(data), 1 << 20))
        if not chunk:
            sys.exit(0)  # the parent is gone
        data += chunk
    return data


def _report(leash: socket.socket, report: HostReport) -> None:
    leash.sendall(msgspec.json.encode(report) + b"\n")


def _watch(leash: socket.socket, hosts: Sequence[Host], folders: tuple[Path, ...]) -> None:
    """Wait for the leash's end, then for the model; one that loads or goes on is ended with the process."""
    with contextlib.suppress(OSError):
        while leash.recv(64):
            pass
    for host in hosts:
        host.drain()  # and the process ends by itself, unless its model does not come back
        time.sleep(_GRACE_S)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
