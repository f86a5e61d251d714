"""The keys that a worker knows: handed over at its start, then followed in the store by a side thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from cloche.core.errors import ClocheError
from cloche.core.keys import KeyRecord, KeyRing

POLL_S = 0.25
_log = logging.getLogger("cloche.keys")


class FollowedKeys:
    """FollowedKeys is a KeyRing that is replaced whole when the store says that something changed.

    The store is polled, so that a revoked key is refused within a second; while it is out of reach the keys
    that were known last go on. Without a URL the keys stay those of the start.
    """

    def __init__(self, records: Iterable[KeyRecord], url: str | None = None) -> None:
        self._ring = KeyRing(records)
        self._url = url
        self._follows = False
        self._stop = threading.Event()

    def __call__(self) -> KeyRing:
        return self._ring

    def follow(self) -> None:
        """Start the side thread, once; it ends with the process or at `close`."""
        if self._url is not None and not self._follows:
            self._follows = True
            threading.Thread(target=self._poll, args=(self._url,), name="keys", daemon=True).start()

    def close(self) -> None:
        self._stop.set()

    def _poll(self, url: str) -> None:
        # SQLAlchemy takes half a second to import: it is this thread's alone, and only where keys are needed
        keys_of = import_module("cloche.store.keys").Keys
        open_store = import_module("cloche.store.database").Store
        store: Any = None
        seen: int | None = None
        failed = False
        while not self._stop.wait(POLL_S):
            try:
                store = store or open_store(url)
                revision = store.revision()
                if revision != seen:
                    self._ring = KeyRing(keys_of(store).load())
                    seen = revision
            except Exception as error:  # noqa: BLE001 - the edge of the thread: without it, revoked keys would go on
                if not failed:
                    bug = None if isinstance(error, ClocheError) else error
                    words = "the store can't be read, the keys known last go on: %s"
                    _log.error(words, error, exc_info=bug, extra={"action": "keys_stale"})
                failed = True
            else:
                if failed:
                    _log.info("the store can be read again", extra={"action": "keys_followed"})
                failed = False
