"""Short turns with the interpreter, while anything is done aside."""

from __future__ import annotations

import sys

import pytest

from cloche.core.aside import SHORT_TURN_S, in_short_turns


def test_turns_are_short_until_the_last_is_done() -> None:
    usual = sys.getswitchinterval()
    with in_short_turns():
        with in_short_turns():
            assert sys.getswitchinterval() == pytest.approx(SHORT_TURN_S, abs=2e-6)
        assert sys.getswitchinterval() == pytest.approx(SHORT_TURN_S, abs=2e-6), "the first is not done"
    assert sys.getswitchinterval() == pytest.approx(usual)


def test_an_error_gives_the_usual_turn_back() -> None:
    usual = sys.getswitchinterval()
    with pytest.raises(ValueError, match="no model"), in_short_turns():
        raise ValueError("no model")
    assert sys.getswitchinterval() == pytest.approx(usual)


def test_turns_that_are_shorter_already_stay_so() -> None:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        with in_short_turns():
            assert sys.getswitchinterval() == pytest.approx(1e-4, abs=2e-6)
    finally:
        sys.setswitchinterval(usual)
