"""The process that owns the listening sockets, and starts, watches and replaces all others.

`python -m cloche.control.supervisor FD` reads one wish (see `wish.Wish`) from an inherited descriptor and runs
it until SIGINT or SIGTERM. It imports the standard library and that part of core which imports no more, runs
no model code, touches no request and waits for no child: its loop turns at least once a second.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import signal
import socket
import sys
import time
from pathlib import Path

from cloche.control import lock
from cloche.control.adopt import adopt, control_path, live_slots
from cloche.control.crew import Crew, StartFailedError
from cloche.control.listeners import address, bind
from cloche.control.log import STDOUT, Log, emit
from cloche.control.wish import Wish
from cloche.core.board import SLOTS, Board, Head, Role, State, set_aside
from cloche.core.errors import ClocheError, RefusedError
from cloche.core.member import read_json
from cloche.core.platform import process_start

_DESCRIPTORS = 65536
_PATIENCE_S = 1.0  # with a reader of our output


class Supervisor:
    """A Supervisor is one wish being run, by this process; made and run once, in the main thread."""

    def __init__(self, wish: Wish, log: Log) -> None:
        self.wish = wish
        self._log = log
        self._lock = lock.hold(wish.runtime)
        self._board = _open_board(wish.runtime / "board")
        adopted = adopt(wish, self._board)
        self._listeners = _listen(wish, adopted.listeners)
        self._slot = self._board.claim(0, Role.SUPERVISOR, os.getpid(), process_start(os.getpid()))
        self._crew = Crew(wish, self._board, self._slot, self._listeners, log)
        self._crew.adopt(adopted.children)
        if adopted.children:
            count = len(adopted.children)
            log.say("adopted", f"took over {count} processes that were still running", count=count)
        self._signals, self._wakes = socket.socketpair()
        self._exit_code: int | None = None

    def run(self) -> int:
        """Run until told to stop; the exit code: 128 and the signal's number.

        Raises StartFailedError or ClocheError when the first start fails; no child is left behind.
        """
        self._take_signals()
        self._write_note()
        announced = False
        try:
            self._crew.turn(time.monotonic())
            while self._exit_code is None or not self._crew.is_empty():
                self._slot.beat()
                for key, _ in self._crew.selector.select(self._crew.patience_s(time.monotonic())):
                    if key.fileobj is self._signals:
                        self._on_signals()
                    elif isinstance(key.fileobj, socket.socket):
                        self._crew.hear(key.data, time.monotonic())
                self._crew.turn(time.monotonic())
                if not announced and self._exit_code is None and self._crew.is_ready():
                    announced = True
                    self._announce()
        except (ClocheError, StartFailedError):
            # only here: should a bug of ours end this process, the children serve on and can be adopted
            self._crew.kill()
            self._tidy()
            raise
        self._tidy()
        self._log.say("stopped", f"stopped; models, versions and keys stay in {self.wish.data}")
        return self._exit_code

    def _take_signals(self) -> None:
        for end in (self._signals, self._wakes):
            end.setblocking(False)
        self._crew.selector.register(self._signals, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # what was ignored when we were started stays so: nohup, and the shell's &
            if number == signal.SIGCHLD or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, frame: None)

    def _on_signals(self) -> None:
        for number in self._signals.recv(256):
            if number not in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                continue
            if self._exit_code is None:
                self._begin_stop(128 + number)
            elif number == signal.SIGINT:
                self._exit_code = 128 + number
                self._crew.kill()

    def _begin_stop(self, exit_code: int) -> None:
        self._exit_code = exit_code
        self._slot.set(Head.STATE, State.DRAINING)  # first: who drains then knows that all stop
        self._log.say("draining", "stopping: what is in flight is finished first (Ctrl-C again stops at once)")
        self._crew.drain(time.monotonic())

    def _announce(self) -> None:
        banner = self.wish.banner
        for taker, place in (("worker", "port"), ("controller", "controller")):
            for number, listener in enumerate(self._listeners.get(taker, ()), 1):
                name = place if number == 1 else f"{place}{number}"
                banner = banner.replace(f"{{{name}}}", str(listener.getsockname()[1]))
        emit(STDOUT, banner, wait_s=_PATIENCE_S)

    def _write_note(self) -> None:
        note = {
            "pid": os.getpid(),
            "model": self.wish.model,
            "addresses": [address(one) for taken in self._listeners.values() for one in taken],
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "digest": self.wish.digest,
        }
        lock.write_note(self.wish.runtime, note)

    def _tidy(self) -> None:
        (self.wish.runtime / "supervisor.json").unlink(missing_ok=True)
        for slot in range(SLOTS):
            control_path(self.wish.runtime, slot).unlink(missing_ok=True)


def main(arguments: list[str]) -> int:
    """Run the wish that stands behind the descriptor `arguments[0]`; the exit code."""
    _raise_limit()
    log = Log(colour=False)
    try:
        wish = Wish.parse(read_json(int(arguments[0])))
        log = Log(colour=wish.colour)
        return Supervisor(wish, log).run()
    except ClocheError as error:
        log.complain(error.render(), wait_s=_PATIENCE_S)
        return error.exit_code
    except StartFailedError as error:
        log.complain(str(error), wait_s=_PATIENCE_S)
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT  # it came before anything was started


def _listen(wish: Wish, adopted: dict[str, list[socket.socket]]) -> dict[str, list[socket.socket]]:
    """The listening sockets by who takes them, in the wish's order: those that live on, or new ones."""
    listeners = {where.taker: adopted.get(where.taker, []) for where in wish.listen}
    for where in wish.listen:
        if where.taker not in adopted:
            listeners[where.taker].append(bind(where.host, where.port))
    return listeners


def _open_board(path: Path) -> Board:
    """The board of the processes that live, a fresh one where none does."""
    try:
        if path.exists():
            board = Board(path)
            if live_slots(board):
                return board
            set_aside(path)
        return Board(path)
    except OSError as error:
        raise RefusedError(
            f"the board can't be made in {path.parent}: {error.strerror or error}",
            hint="make room there, or set XDG_RUNTIME_DIR to another folder",
        ) from None


def _raise_limit() -> None:
    """Allow as many open connections as this user may have: children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
