"""What is done on a side thread while the process answers others."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Seconds that a thread keeps the interpreter while another wants it; Python's own is 5 ms, and a request asks for
#: it several times.
SHORT_TURN_S = 0.0005
_lock = threading.Lock()
#: What a turn was before each of those that are inside came; the first is what it usually is.
_before: list[float] = []


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
