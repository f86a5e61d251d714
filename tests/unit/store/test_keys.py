"""API keys in the store: shown once, revoked at once, never kept in the clear."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloche.core.errors import ConfigError, ConflictError, NotFoundError, RefusedError
from cloche.core.keys import KeyRing
from cloche.store.database import Store
from cloche.store.keys import Keys


@pytest.fixture
def keys(store: Store) -> Keys:
    return Keys(store)


def test_a_new_key_is_good_at_once_and_lets_its_scopes_do(keys: Keys, store: Store) -> None:
    minted = keys.create("mobile", scopes=("predict", "metrics"))
    record = KeyRing(keys.load()).verify(minted.text, store.now())
    assert (record.name, record.scopes) == ("mobile", ("predict", "metrics"))
    assert record == minted.record


def test_a_revoked_key_is_loaded_no_more_but_still_listed(keys: Keys, store: Store) -> None:
    minted = keys.create("mobile")
    revoked = keys.revoke("mobile")
    assert keys.load() == ()
    assert keys.list() == (revoked,)
    assert revoked.revoked == store.now()
    with pytest.raises(RefusedError, match="not known"):
        KeyRing(keys.load()).verify(minted.text, store.now())


def test_every_change_of_keys_makes_the_revision_grow(keys: Keys, store: Store) -> None:
    before = store.revision()
    keys.create("mobile")
    keys.revoke("mobile")
    assert store.revision() == before + 2


def test_a_key_expires(keys: Keys, clock: object, store: Store) -> None:
    keys.create("short", expires_in_s=60)
    keys.create("long", expires_in_s=3600)
    clock.now += 61  # type: ignore[attr-defined]  # the FakeClock of conftest.py
    assert [record.name for record in keys.load()] == ["long"]


def test_a_name_is_free_again_when_its_key_is_revoked_or_has_expired(keys: Keys, clock: object) -> None:
    keys.create("mobile")
    with pytest.raises(ConflictError, match="'mobile' already") as caught:
        keys.create("mobile")
    assert caught.value.code == "CL-E502"
    keys.revoke("mobile")
    keys.create("mobile", expires_in_s=10)
    clock.now += 11  # type: ignore[attr-defined]  # the FakeClock of conftest.py
    keys.create("mobile")
    assert [record.name for record in keys.list()] == ["mobile"] * 3
    assert len(keys.load()) == 1


def test_a_key_is_revoked_by_name_id_or_the_start_of_its_id(keys: Keys) -> None:
    first, second, third = (keys.create(name).record for name in ("one", "two", "three"))
    assert keys.revoke("one").id == first.id
    assert keys.revoke(second.id).id == second.id
    assert keys.revoke(third.id[:6]).id == third.id


@pytest.mark.parametrize("which", ["nobody", "", "m", "mobil", "%", "' OR 1=1"])
def test_a_key_that_is_not_there_is_not_revoked(keys: Keys, store: Store, which: str) -> None:
    keys.create("mobile")
    before = store.revision()
    with pytest.raises(NotFoundError) as caught:
        keys.revoke(which)
    assert caught.value.code == "CL-E302"
    assert store.revision() == before
    assert len(keys.load()) == 1


def test_a_key_is_not_revoked_twice(keys: Keys) -> None:
    keys.create("mobile")
    keys.revoke("mobile")
    with pytest.raises(NotFoundError):
        keys.revoke("mobile")


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_key_that_would_have_expired_already_is_not_made(keys: Keys, seconds: float) -> None:
    with pytest.raises(ConfigError):
        keys.create("mobile", expires_in_s=seconds)
    assert keys.list() == ()


def test_the_key_itself_is_nowhere_on_the_disk(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'state.db'}") as store:
        text = Keys(store).create("mobile").text
    secret = text.split("_")[3].encode()
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"mobile" in written
    assert secret not in written
