"""Which version answers a caller: a share of the keys by their hash, the same in every process."""

from __future__ import annotations

from hashlib import blake2b

#: Shares are counted in hundredths of a percent.
BUCKETS = 10_000


def choose(key: bytes, salt: bytes, weight: int) -> bool:
    """Whether the candidate answers for a key, given its weight in hundredths of a percent (0 to 10,000).

    No state and no chance: who is the candidate's at some weight stays so at any greater one. Another salt, of at
    most 16 bytes, draws anew.
    """
    return bucket(key, salt) < weight


def bucket(key: bytes, salt: bytes) -> int:
    """Where a key falls, from 0 to 9,999. ValueError for a salt of more than 16 bytes."""
    return int.from_bytes(blake2b(key, digest_size=8, salt=salt).digest(), "big") % BUCKETS
