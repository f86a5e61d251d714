"""What a bad version costs: simulated by the code that is served with, and as others' settings lead to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloche.rollout.machine import Phase

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def harm(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import harm

    return harm


@pytest.mark.parametrize(
    ("place", "bad", "minutes", "exposure_s"),
    [
        (0, 0.2, 25, 540),  # 20 % and 40 % for ten minutes each, 60 % for five
        (0, 0.02, None, None),  # 98 % of good answers are enough
        (1, 1.0, 5, 60),
        (2, 0.02, 5, 30),  # it stays at 10 % while checks fail
    ],
)
def test_others_take_it_back_as_their_settings_say(
    harm: Any, place: int, bad: float, minutes: float | None, exposure_s: float | None
) -> None:
    gate = harm.GATES[place]
    assert gate.seconds(bad) == (None if minutes is None else minutes * 60)
    assert gate.exposure_s(bad) == (None if exposure_s is None else pytest.approx(exposure_s))


def test_what_fails_always_is_taken_back_after_a_few_answers(harm: Any, tmp_path: Path) -> None:
    site, chance = harm.Site(tmp_path), np.random.default_rng(0)
    for strategy in harm.PLACES.values():
        found = [harm.release(site, chance, strategy, rate=100, bad=1.0) for _ in range(5)]
        assert {one.phase for one in found} == {Phase.ABORTED}
        assert max(one.bad for one in found) <= 20


def test_what_is_no_worse_is_promoted(harm: Any, tmp_path: Path) -> None:
    site, chance = harm.Site(tmp_path), np.random.default_rng(0)
    outcome = harm.release(site, chance, harm.PLACES["at 50 % at once"], rate=10, bad=harm.STABLE_BAD)
    assert outcome.phase is Phase.SUCCEEDED
