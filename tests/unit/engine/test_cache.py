"""The cache: whose answer it gives, for how long, and how much it holds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cloche.core.signature import Columns
from cloche.engine.cache import Cache


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def answer(value: float, size: int = 1) -> Columns:
    return {"value": np.full(size, value)}


def test_what_was_put_is_found_until_its_time_is_over() -> None:
    clock = Clock()
    cache = Cache(size=10_000, ttl_s=5.0, clock=clock)
    cache.put(b"k", answer(1.0))
    clock.now += 4.9
    found = cache.get(b"k")
    assert found is not None
    assert found["value"].tolist() == [1.0]
    clock.now += 0.1
    assert cache.get(b"k") is None
    assert (len(cache), cache.used) == (0, 0)


def test_the_least_recently_used_make_room() -> None:
    cache = Cache(size=3 * 408)  # 400 an entry and one float
    for key in (b"a", b"b", b"c"):
        cache.put(key, answer(1.0))
    cache.get(b"a")
    cache.put(b"d", answer(1.0))
    assert [key for key in (b"a", b"b", b"c", b"d") if cache.get(key) is None] == [b"b"]
    assert cache.used == cache.size


def test_an_answer_larger_than_the_cache_is_not_kept_and_pushes_nothing_out() -> None:
    cache = Cache(size=1000)
    cache.put(b"a", answer(1.0))
    cache.put(b"b", answer(1.0, size=1000))
    assert cache.get(b"a") is not None
    assert cache.get(b"b") is None


def test_putting_a_key_again_counts_it_once() -> None:
    cache = Cache(size=10_000)
    cache.put(b"a", answer(1.0, size=10))
    cache.put(b"a", answer(2.0))
    assert cache.used == 408
    found = cache.get(b"a")
    assert found is not None
    assert found["value"].tolist() == [2.0]


def test_an_answer_is_kept_apart_from_the_batch_that_it_was_a_slice_of() -> None:
    cache = Cache(size=10_000)
    batch = np.arange(1000.0)
    cache.put(b"a", {"value": batch[3:4]})
    batch[3] = -1.0
    found = cache.get(b"a")
    assert found is not None
    assert found["value"].tolist() == [3.0]
    assert found["value"].base is None
    with pytest.raises(ValueError, match="read-only"):
        found["value"][0] = 5.0


def test_strings_count_by_their_length() -> None:
    cache = Cache(size=100_000)
    column = np.empty(2, object)
    column[:] = ["x" * 1000, None]
    cache.put(b"a", {"label": column})
    assert cache.used > 1400


def strings(*values: str | None) -> Any:
    column = np.empty(len(values), object)
    column[:] = values
    return column


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([np.array([1.0])], [np.array([1.0], np.float32)]),  # types
        ([np.array([1])], [np.array([1], np.uint64)]),
        ([np.array([1, 0], np.int32)], [np.array([1], np.int64)]),  # the same bytes
        ([np.zeros((2, 3))], [np.zeros((3, 2))]),  # shapes
        ([np.zeros(1), np.zeros(2)], [np.zeros(2), np.zeros(1)]),  # order
        ([strings("ab", "c")], [strings("a", "bc")]),
        ([strings(None)], [strings("")]),
        ([strings(None)], [strings("None")]),
        ([np.array([math.nan])], [np.array([0.0])]),
    ],
)
def test_other_rows_have_another_key(one: list[Any], other: list[Any]) -> None:
    cache = Cache(size=1)
    assert cache.key(b"digest", one) != cache.key(b"digest", other)


def test_equal_rows_have_one_key_and_another_bundle_another() -> None:
    cache = Cache(size=1)
    assert cache.key(b"d", [np.array([-0.0])]) == cache.key(b"d", [np.array([0.0])])
    assert cache.key(b"d", [np.arange(6.0)[::2]]) == cache.key(b"d", [np.array([0.0, 2.0, 4.0])])
    assert cache.key(b"d", [np.array([1.0])]) != cache.key(b"e", [np.array([1.0])])


_columns = st.one_of(
    arrays.arrays(
        np.float64, arrays.array_shapes(max_dims=2, max_side=3), elements=st.sampled_from([0.0, -0.0, 1.0])
    ),
    arrays.arrays(np.int64, arrays.array_shapes(max_dims=2, max_side=3), elements=st.integers(0, 1)),
    st.lists(st.sampled_from(["", "a", "aa", None]), min_size=1, max_size=3).map(lambda values: strings(*values)),
)


@given(st.lists(_columns, min_size=1, max_size=2), st.lists(_columns, min_size=1, max_size=2))
def test_a_key_never_stands_for_other_rows(one: list[Any], other: list[Any]) -> None:
    def plain(columns: list[Any]) -> Any:
        return [(str(column.dtype), column.shape, (column + 0 if column.dtype != object else column).tolist())
                for column in columns]  # fmt: skip

    cache = Cache(size=1)
    assert (cache.key(b"d", one) == cache.key(b"d", other)) == (plain(one) == plain(other))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(1, 60))))
def test_it_never_holds_more_than_its_size_nor_gives_a_stale_answer(steps: list[tuple[bool, int, int]]) -> None:
    cache = Cache(size=2000)
    last: dict[bytes, float] = {}
    for number, (put, at, size) in enumerate(steps):
        key = bytes([at])
        if put:
            cache.put(key, answer(number, size))
            last[key] = number
        else:
            found = cache.get(key)
            assert found is None or found["value"][0] == last[key]
        assert 0 <= cache.used <= 2000
