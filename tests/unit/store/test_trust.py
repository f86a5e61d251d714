"""Trusted signing keys: what was trusted stays trusted until it is removed."""

from __future__ import annotations

import pytest

from cloche.core.errors import ConfigError, NotFoundError
from cloche.store.database import Store
from cloche.store.trust import TrustedKeys

OURS, THEIRS = "b3VycyBvdXJzIG91cnM=", "dGhlaXJzIHRoZWlycw=="


def test_keys_are_listed_in_the_order_they_were_trusted(store: Store, clock: object) -> None:
    trusted = TrustedKeys(store)
    trusted.add(OURS, name="this data folder")
    clock.now += 1  # type: ignore[attr-defined]  # the FakeClock of conftest.py
    trusted.add(THEIRS)
    assert trusted.public_keys() == (OURS, THEIRS)
    assert [key.name for key in trusted.list()] == ["this data folder", ""]


def test_trusting_a_key_twice_changes_nothing(store: Store, clock: object) -> None:
    trusted = TrustedKeys(store)
    first = trusted.add(OURS, name="first")
    clock.now += 1  # type: ignore[attr-defined]  # the FakeClock of conftest.py
    assert trusted.add(OURS, name="second") == first
    assert trusted.list() == (first,)


def test_a_key_is_trusted_no_longer_once_removed(store: Store) -> None:
    trusted = TrustedKeys(store)
    trusted.add(OURS)
    trusted.remove(OURS)
    assert trusted.public_keys() == ()
    with pytest.raises(NotFoundError):
        trusted.remove(OURS)


@pytest.mark.parametrize("text", ["", "short", "x" * 201, "line one\nline two of it", "schlüssel-schlüssel"])
def test_what_can_be_no_key_is_refused(store: Store, text: str) -> None:
    with pytest.raises(ConfigError):
        TrustedKeys(store).add(text)
    assert TrustedKeys(store).list() == ()
