"""Prediction ids: never the same twice, and in the order of seconds."""

from __future__ import annotations

import re
import time

from cloche.core.ids import PredictionIds


def test_an_id_is_24_hex_digits_that_begin_with_the_time() -> None:
    before = int(time.time())
    made = PredictionIds().next()
    assert re.fullmatch(r"[0-9a-f]{24}", made)
    assert before <= int(made[:8], 16) <= int(time.time())


def test_ids_do_not_repeat_while_random_bytes_are_drawn_anew() -> None:
    """8192 bytes of a draw are a thousand ids, so this passes over several draws."""
    ids = PredictionIds()
    made = [ids.next() for _ in range(5000)]
    assert len({one[8:] for one in made}) == 5000
    assert all(len(one) == 24 for one in made)


def test_two_processes_or_instances_make_different_ids() -> None:
    first, second = PredictionIds(), PredictionIds()
    assert {first.next()[8:] for _ in range(100)}.isdisjoint(second.next()[8:] for _ in range(100))
