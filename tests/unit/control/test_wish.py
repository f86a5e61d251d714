"""The wish: read once, hosts before workers, known by its digest."""

from __future__ import annotations

from typing import Any

import pytest

from cloche.control.wish import Wish
from cloche.core.errors import ConfigError


def group(kind: str = "worker", count: int = 1, config: object = None) -> dict[str, Any]:
    return {"kind": kind, "count": count, "argv": ["python"], "config": config or {}}


def wish(*groups: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"runtime": "/run", "data": "/data", "listen": [["::1", 80]], "groups": list(groups), **fields}


def test_hosts_come_first() -> None:
    parsed = Wish.parse(wish(group("worker", 2), group("host")))
    assert [found.kind for found in parsed.groups] == ["host", "worker"]


def test_one_config_is_for_all_and_a_list_for_each() -> None:
    alike, each = Wish.parse(wish(group(count=2, config={"a": 1}), group(count=2, config=[{}, {"b": 2}]))).groups
    assert alike.config == ({"a": 1}, {"a": 1})
    assert each.config == ({}, {"b": 2})


def test_without_a_digest_addresses_and_groups_make_one() -> None:
    digest = Wish.parse(wish(group())).digest
    assert digest == Wish.parse(wish(group(), banner="other words")).digest
    assert digest != Wish.parse(wish(group(count=2))).digest
    assert digest != Wish.parse(wish(group(), listen=[["::1", 81]])).digest
    assert Wish.parse(wish(group(), digest="d")).digest == "d"


def test_an_address_is_the_workers_unless_it_names_who_takes_it() -> None:
    parsed = Wish.parse(wish(group(), listen=[["::1", 80], ["::1", 82, "controller"]]))
    assert [where.taker for where in parsed.listen] == ["worker", "controller"]


def test_more_processes_than_the_board_has_room_for_are_refused() -> None:
    assert Wish.parse(wish(group("host", 2), group(count=61)))
    with pytest.raises(ConfigError, match="64 processes are too many: the limit is 63"):
        Wish.parse(wish(group("host", 2), group(count=62)))


def test_a_field_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(TypeError, match="taste"):
        Wish.parse(wish(group(), taste="sweet"))
