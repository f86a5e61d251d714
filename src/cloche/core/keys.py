"""API keys as values: made, read and verified without a store."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import zlib
from collections.abc import Iterable, Sequence

import msgspec

from cloche.core.errors import ConfigError, RefusedError
from cloche.core.reference import check_name

#: What a key may be allowed to do.
SCOPES: dict[str, str] = {
    "predict": "ask the models, and read what they take: /predict, /v2, /docs, /openapi.json",
    "metrics": "read /metrics",
    "read": "see deployments, history and models through the admin API",
    "deploy": "that, and push, deploy, promote, abort, roll back there",
    "admin": "everything there: also the audit log",
}
#: The name under which `limits` speaks of every other key.
EVERY_OTHER = "default"

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_BYTES = 32
_SECRET_LETTERS = 43  # 62 ** 43 > 256 ** 32
_KEY = re.compile(r"clk_(?:live|test)_([0-9a-z]{10})_[0-9A-Za-z]{43}_([0-9a-f]{8})", re.ASCII)
_ASK = "ask whoever runs the server for a key"
#: Compared with when an id is not known, so that the answer takes as long.
_NOBODY = hashlib.sha256(os.urandom(32)).hexdigest()


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A KeyRecord is what is kept of an API key: never the key itself. Times are seconds since 1970, UTC."""

    id: str
    name: str
    sha256: str
    scopes: tuple[str, ...]
    created: float
    expires: float | None = None
    revoked: float | None = None

    def is_active(self, now: float) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)


class MintedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A MintedKey is a new key: `text` is shown once and kept nowhere."""

    text: str
    record: KeyRecord

    def __repr__(self) -> str:
        return f"MintedKey({self.record.id} {self.record.name!r})"


class KeyRing:
    """A KeyRing verifies keys against the records that a process holds."""

    def __init__(self, records: Iterable[KeyRecord] = ()) -> None:
        self._by_id = {record.id: record for record in records}

    def __len__(self) -> int:
        return len(self._by_id)

    def verify(self, text: str, now: float) -> KeyRecord:
        """The record of a good key; RefusedError CL-E402 for one that is unknown, revoked or expired."""
        key_id = parse_key(text)
        record = self._by_id.get(key_id) if key_id is not None else None
        same = hmac.compare_digest(hash_key(text), record.sha256 if record else _NOBODY)
        if record is None or not same:
            raise RefusedError("the key is not known here", code="CL-E402", hint=_ASK)
        if not record.is_active(now):
            state = "was revoked" if record.revoked is not None else "has expired"
            raise RefusedError(f"the key {record.id} {state}", code="CL-E402", hint=_ASK)
        return record


def mint_key(
    name: str, *, scopes: Sequence[str] = ("predict",), created: float, expires: float | None = None
) -> MintedKey:
    """A new key with 256 random bits; ConfigError when the name or a scope can't be."""
    check_name(name, "name of a key")
    if name == EVERY_OTHER:
        raise ConfigError(
            f"{name!r} can't be the name of a key: in `limits` it stands for every other key",
            code="CL-E203",
            hint="name it after who will use it",
        )
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        said = f"{unknown[0]!r} is not a scope" if unknown else "a key needs a scope"
        raise ConfigError(said, hint=f"one or more of: {', '.join(SCOPES)}")
    key_id = "".join(_ALPHABET[byte % 36].lower() for byte in os.urandom(10))
    head = f"clk_live_{key_id}_{_base62(os.urandom(_SECRET_BYTES))}"
    text = f"{head}_{_checksum(head)}"
    record = KeyRecord(
        id=key_id,
        name=name,
        sha256=hash_key(text),
        scopes=tuple(dict.fromkeys(scopes)),
        created=created,
        expires=expires,
    )
    return MintedKey(text=text, record=record)


def parse_key(text: str) -> str | None:
    """The id within a key; None when it has not the form of one or was mistyped (checksum)."""
    match = _KEY.fullmatch(text)
    if match is None or _checksum(text[:-9]) != match[2]:
        return None
    return match[1]


def hash_key(text: str) -> str:
    """SHA-256 in hex; a slow hash is not needed for 256 random bits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _checksum(head: str) -> str:
    return f"{zlib.crc32(head.encode()):08x}"


def _base62(secret: bytes) -> str:
    number = int.from_bytes(secret, "big")
    letters = []
    for _ in range(_SECRET_LETTERS):
        number, digit = divmod(number, 62)
        letters.append(_ALPHABET[digit])
    return "".join(reversed(letters))
