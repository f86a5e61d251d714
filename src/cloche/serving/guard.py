"""The guard: who calls, from where, how often; it stands before every route and denies by default."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

import msgspec

from cloche.core.errors import BusyError, InputError, RefusedError
from cloche.core.keys import EVERY_OTHER, KeyRing
from cloche.core.units import Rate
from cloche.serving.limits import RateLimiter

#: What anybody may ask, wherever the server listens.
PUBLIC = frozenset({b"/livez", b"/readyz", b"/v2/health/live", b"/v2/health/ready", b"/ping", b"/health"})
#: What needs a key beyond loopback only, by the first part of its path, and the scope.
OPERATIONS = {
    b"": "predict",
    b"metrics": "metrics",
    b"docs": "predict",
    b"playground": "predict",
    b"openapi.json": "predict",
}
#: How callers without a key are counted.
ANYBODY = "anybody"
_HEX = re.compile(rb"[0-9A-Fa-f]{2}")


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A Policy is what the operator wants of callers."""

    #: Predictions and metadata need a key.
    keys_required: bool
    #: The server listens on loopback only.
    loopback: bool
    #: By the key's name; `default` is for every other.
    limits: Mapping[str, Rate] = {}


class Guard:
    """A Guard admits a request or raises: RefusedError (401, 403), BusyError (429), InputError (the path)."""

    def __init__(
        self,
        policy: Policy,
        keys: Callable[[], KeyRing],
        limiter: RateLimiter,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.policy = policy
        self._keys = keys
        self._limiter = limiter
        self._clock = clock
        self._limits = dict(policy.limits)
        self.keys_required = policy.keys_required

    def admit_prediction(self, headers: Mapping[bytes, bytes]) -> None:
        """A prediction: the key where one is needed, then its rate limit."""
        name, key_id = ANYBODY, ANYBODY
        if self.policy.keys_required or (self._limits and b"authorization" in headers):
            name, key_id = self._identify(headers, "predict", required=self.policy.keys_required)
        if self._limits:
            rate = self._limits.get(name) or self._limits.get(EVERY_OTHER)
            if rate is not None:
                self._count(key_id, rate)

    def admit(self, path: bytes, headers: Mapping[bytes, bytes]) -> None:
        """Any other request, by its path as `check_path` gives it."""
        if path in PUBLIC:
            return
        scope = OPERATIONS.get(path.split(b"/", 2)[1])
        if scope is not None:
            if not self.policy.loopback:
                self._identify(headers, scope, required=True)
        elif self.policy.keys_required:
            self._identify(headers, "predict", required=True)

    def _identify(self, headers: Mapping[bytes, bytes], scope: str, *, required: bool) -> tuple[str, str]:
        given = headers.get(b"authorization", b"")
        if given[:7].lower() != b"bearer ":
            if not required:
                return ANYBODY, ANYBODY
            raise RefusedError(
                "a key is needed here" if not given else "the Authorization header holds no bearer token",
                code="CL-E401",
                hint="send  Authorization: Bearer clk_…  and ask whoever runs the server for a key",
            )
        record = self._keys().verify(given[7:].strip().decode("latin-1"), self._clock())
        if scope not in record.scopes:
            raise RefusedError(
                f"the key {record.id} lacks the scope {scope!r}",
                code="CL-E403",
                hint="ask whoever runs the server for a key with this scope",
            )
        return record.name, record.id

    def _count(self, key_id: str, rate: Rate) -> None:
        wait = self._limiter.take(key_id, rate)
        if wait:
            raise BusyError(
                f"the limit of {rate.count} requests in {rate.window_s} s is reached",
                code="CL-E604",
                hint="ask whoever runs the server where you need more",
                retry_after_s=wait,
            )


def check_path(raw: bytes) -> bytes:
    """The path as the routes see it, unquoted.

    InputError CL-E116 for one that two readers could read in two ways.
    """
    low = raw.lower()
    odd = any(part in low for part in (b"//", b"/./", b"/../", b"%2f", b"%5c", b"%2e", b"%00", b";", b"\\"))
    if odd or low.endswith((b"/..", b"/.")) or not low.startswith(b"/"):
        raise InputError("the path is ambiguous", code="CL-E116", hint="send it plainly, as /docs shows")
    try:
        path = _unquote(raw)
        path.decode("utf-8")
    except (UnicodeDecodeError, ValueError):
        raise InputError("the path is not UTF-8", code="CL-E116", hint="send it plainly") from None
    return path


def _unquote(raw: bytes) -> bytes:
    first, *rest = raw.split(b"%")
    if not all(_HEX.fullmatch(part[:2]) for part in rest):
        raise ValueError("a percent sign without two digits")
    return first + b"".join(bytes([int(part[:2], 16)]) + part[2:] for part in rest)
