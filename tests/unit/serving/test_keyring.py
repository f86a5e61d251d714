"""The keys of a worker follow the store: a new key opens and a revoked one is refused within a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloche.core.errors import RefusedError
from cloche.serving.keyring import FollowedKeys
from cloche.store.database import Store
from cloche.store.keys import Keys


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture
def followed(url: str) -> Iterator[FollowedKeys]:
    keys = FollowedKeys([], url)
    yield keys
    keys.close()


def within(seconds: float, is_so: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def opens(keys: FollowedKeys, text: str) -> bool:
    try:
        keys().verify(text, time.time())
    except RefusedError:
        return False
    return True


def test_keys_that_were_handed_over_are_known_at_once(url: str) -> None:
    with Store(url) as store:
        minted = Keys(store).create("someone")
        keys = FollowedKeys(Keys(store).load())
    assert opens(keys, minted.text)


def test_a_new_key_opens_and_a_revoked_one_is_refused_within_a_second(url: str, followed: FollowedKeys) -> None:
    with Store(url) as store:
        first = Keys(store).create("first")
        followed.follow()
        assert within(10, lambda: opens(followed, first.text))  # the first look imports the store
        second = Keys(store).create("second")
        assert within(1, lambda: opens(followed, second.text))
        Keys(store).revoke("first")
        assert within(1, lambda: not opens(followed, first.text))
        assert opens(followed, second.text)


def test_keys_go_on_while_the_store_is_out_of_reach_and_are_followed_when_it_is_back(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(url) as store:
        minted = Keys(store).create("someone")
        keys = FollowedKeys(Keys(store).load(), url)
    away = tmp_path / "away"
    (tmp_path / "state.db").rename(away)
    (tmp_path / "state.db").mkdir()  # nothing can be opened there
    keys.follow()
    try:
        assert within(10, lambda: "the store can't be read" in caplog.text)
        assert opens(keys, minted.text)
        (tmp_path / "state.db").rmdir()
        away.rename(tmp_path / "state.db")
        with Store(url) as store:
            Keys(store).revoke("someone")
        assert within(5, lambda: not opens(keys, minted.text))
        assert caplog.text.count("the store can't be read") == 1, "it is said once, not at each look"
    finally:
        keys.close()


def test_keys_are_followed_on_after_something_that_nobody_foresaw(
    url: str, followed: FollowedKeys, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Keys) -> None:
        raise ValueError("a row that can't be read")

    with Store(url) as store, monkeypatch.context() as patched:
        patched.setattr(Keys, "load", broken)
        followed.follow()
        assert within(10, lambda: "a row that can't be read" in caplog.text)
        patched.undo()
        minted = Keys(store).create("someone")
        assert within(5, lambda: opens(followed, minted.text))
