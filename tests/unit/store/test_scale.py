"""How many workers a person wants: kept a machine, told in the history, forgotten on request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import insert

from cloche.store.database import Store
from cloche.store.deployments import Deployments
from cloche.store.events import list_events
from cloche.store.scale import Scale
from cloche.store.tables import models


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with Store(database) as store:
        yield store


def test_nobody_wants_anything_at_first(store: Store) -> None:
    assert Scale(store, "a").get() is None


def test_what_is_wanted_holds_for_one_machine_until_it_is_taken_back(store: Store) -> None:
    scale = Scale(store, "a")
    before = store.revision()
    assert scale.set(3, "ada") is None
    assert scale.set(5, "ada") == 3
    assert (scale.get(), Scale(store, "b").get()) == (5, None)
    assert store.revision() > before, "the controller sees it"
    assert scale.set(None, "ada") == 5
    assert scale.get() is None
    assert scale.set(None, "ada") is None


def test_each_deployment_has_it_in_its_history_once(store: Store) -> None:
    with store.change() as connection:
        connection.execute(insert(models).values(name="fraud", created=0.0))
    Deployments(store).start("fraud", "fraud", "fraud", 1, "ada")
    scale = Scale(store, "a")
    scale.set(3, "bob")
    scale.set(3, "bob")
    scale.set(None, "bob")
    told = [(one.who, one.action, one.version, one.why) for one in list_events(store, "fraud")[1:]]
    assert told == [
        ("bob", "scaled", 1, "workers: 3 on a, whatever the load"),
        ("bob", "scaled", 1, "workers: as cloche.toml says"),
    ]
