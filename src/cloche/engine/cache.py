"""The prediction cache: least recently used by bytes, with a time to live."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec

from cloche.core.signature import Array, Columns

#: What an entry costs beside its arrays.
_ENTRY_BYTES = 400


class Cache:
    """A Cache holds whole answers under a digest of the version and its inputs, in canonical form."""

    def __init__(
        self, *, size: int, ttl_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.size = size
        self.ttl_s = ttl_s
        self.used = 0
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[Columns, float, int]] = OrderedDict()

    def key(self, digest: bytes, inputs: Sequence[Array]) -> bytes:
        """Equal for equal rows of the same bundle only: types, shapes and values go in, -0.0 as 0.0."""
        state = hashlib.blake2b(digest, digest_size=16)
        for array in inputs:
            state.update(f"|{array.dtype.str}{array.shape}|".encode())
            if array.dtype == object:
                state.update(msgspec.msgpack.encode(array.tolist()))
            elif array.dtype.kind == "f":
                state.update((array + 0.0).tobytes())
            else:
                state.update(array.tobytes())
        return state.digest()

    def get(self, key: bytes) -> Columns | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        outputs, expires, cost = entry
        if self._clock() >= expires:
            del self._entries[key]
            self.used -= cost
            return None
        self._entries.move_to_end(key)
        return outputs

    def put(self, key: bytes, outputs: Columns) -> None:
        """Keep an answer; the least recently used make room. One larger than the whole cache is not kept."""
        # a slice of a joined batch would keep the whole batch alive
        outputs = {name: array.copy() for name, array in outputs.items()}
        for array in outputs.values():
            array.flags.writeable = False  # whoever gets it shares it with who comes next
        cost = _ENTRY_BYTES + sum(_bytes_of(array) for array in outputs.values())
        if cost > self.size:
            return
        old = self._entries.pop(key, None)
        if old is not None:
            self.used -= old[2]
        while self.used + cost > self.size:
            _, (_, _, freed) = self._entries.popitem(last=False)
            self.used -= freed
        expires = float("inf") if self.ttl_s is None else self._clock() + self.ttl_s
        self._entries[key] = (outputs, expires, cost)
        self.used += cost

    def __len__(self) -> int:
        return len(self._entries)


def _bytes_of(array: Array) -> int:
    if array.dtype == object:
        return int(array.nbytes) + sum(50 + 4 * len(item) for item in array.ravel() if item is not None)
    return int(array.nbytes)
