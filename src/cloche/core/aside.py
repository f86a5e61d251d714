"""What is done on a side thread while the process answers others."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

_T = TypeVar("_T")
_Asked = SimpleQueue[Callable[[], None] | None]

#: Seconds that a thread keeps the interpreter while another wants it; Python's own is 5 ms, and a request asks for
#: it several times.
SHORT_TURN_S = 0.0001
#: What gives way is as nice as can be, or so much nicer than who answers: a tenth of a core that both want is its.
_FAR, _BACK = 19, 10
#: Seconds that it stands back so far.
PATIENCE_S = 10.0
_TASKS = Path("/proc/self/task")
_lock = threading.Lock()
#: What a turn was before each of those that are inside came; the first is what it usually is.
_before: list[float] = []
_here = threading.local()


@contextmanager
def in_short_turns() -> Iterator[None]:
    """Threads of this process take shorter turns with the interpreter, until the last one inside is done."""
    with _lock:
        _before.append(sys.getswitchinterval())
        sys.setswitchinterval(min(_before[-1], SHORT_TURN_S))
    try:
        yield
    finally:
        with _lock:
            sys.setswitchinterval(_before.pop())


def giving_way(work: Callable[[], _T]) -> _T:
    """What `work` returns or raises, done on a thread that stands behind those who answer, while the caller waits.

    Where the process may give priority back, what takes longer than `PATIENCE_S` gives way no more, so that a
    machine without a free core does not keep it for ever; else it stands back less far. Only Linux knows the
    priority of a single thread.
    """
    asked: _Asked = SimpleQueue()
    done: Future[_T] = Future()
    usual = _usual()

    def run() -> None:
        _here.asked, _here.may_return, _here.usual = asked, _may_return(usual), usual
        _stand(threading.get_native_id(), _FAR if _here.may_return else usual + _BACK)
        _fulfil(done, work)
        asked.put(None)

    thread = threading.Thread(target=run, name="giving-way", daemon=True)
    thread.start()
    while True:
        try:
            ask = asked.get(timeout=PATIENCE_S)
        except Empty:
            _stand(thread.native_id, usual)
            continue
        if ask is None:
            return done.result()
        ask()


def in_front(work: Callable[[], _T]) -> _T:
    """What `work` returns or raises; threads that it starts, and that stay, don't stand behind as this one may.

    They inherit the priority of who starts them: it is given back where that is allowed, and else the thread that
    waits for this one does the work.
    """
    asked: _Asked | None = getattr(_here, "asked", None)
    if asked is None:
        return work()
    if not _here.may_return:
        done: Future[_T] = Future()
        asked.put(partial(_fulfil, done, work))
        return done.result()
    before = set(_TASKS.iterdir())
    try:
        return work()
    finally:
        for thread in set(_TASKS.iterdir()) - before:
            _stand(int(thread.name), _here.usual)


def _usual() -> int:
    """How nice this thread is, which starts another."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) if sys.platform == "linux" else 0


def _may_return(usual: int) -> bool:
    """Whether this thread may take back a priority that it gave up: with privileges only."""
    return _stand(threading.get_native_id(), usual + 1) and _stand(threading.get_native_id(), usual)


def _stand(thread: int | None, niceness: int) -> bool:
    if sys.platform != "linux" or thread is None:
        return False
    try:
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
    except OSError:  # not allowed, or the thread has ended
        return False
    return True


def _fulfil(done: Future[_T], work: Callable[[], _T]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # noqa: BLE001 - whoever waits raises it
        done.set_exception(error)
