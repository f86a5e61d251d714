"""Stages that overlap: one thread reads ahead while others work on what was read, and the order stays."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from cloche.core.machine import usable_cores

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def depth() -> int:
    """How many are held at a time: one a core that is worked on, one read ahead, and one that was taken."""
    return usable_cores() + 2


def in_order(read: Iterator[_In], work: Callable[[_In], _Out]) -> Iterator[_Out]:
    """What `work` makes of each, in the order that they are read in; at most `depth()` are held.

    What `read` or `work` raises comes in its place of the order. Close it to end early: what is under way is
    waited for, and nothing more is read.
    """
    with (
        ThreadPoolExecutor(1, "batch-read") as reader,
        ThreadPoolExecutor(usable_cores(), "batch-work") as workers,
    ):
        under_way: deque[Future[_Out | None]] = deque()

        def begin() -> None:
            came = reader.submit(next, read, None)
            under_way.append(workers.submit(_step, came, work))

        try:
            for _ in range(depth()):
                begin()
            while (done := under_way.popleft().result()) is not None:
                yield done
                begin()
        finally:
            for future in under_way:
                future.cancel()


def _step(came: Future[_In | None], work: Callable[[_In], _Out]) -> _Out | None:
    read = came.result()
    return None if read is None else work(read)
