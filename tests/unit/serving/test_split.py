"""The split: whose requests are the candidate's, what counts for and against it, and when it is taken off."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.unit.serving.conftest import counts_of

from cloche.core.board import Board, Head, Role, Slot, series_hash
from cloche.core.routing import BUCKETS
from cloche.rollout.analysis import Policy
from cloche.serving.split import ARMS, Arm, Split

SLOW_S = 0.1


@pytest.fixture
def slot(board: Board) -> Slot:
    return board.claim(1, Role.WORKER, pid=1, start=1)


@pytest.fixture
def make_split(slot: Slot) -> Callable[..., Split]:
    numbers = itertools.count(7)

    def make(**options: Any) -> Split:
        given = {
            "deployment": "fraud",
            "stable": 3,
            "candidate": 4,
            "rollout": next(numbers),
            "weight": 500,
            "policy": Policy(),
            "slow_s": SLOW_S,
        }
        return Split(options.pop("slot", slot), **{**given, **options})

    return make


KEYS = [b"caller-%d" % number for number in range(100_000)]


def taken(split: Split, header: bytes, keys: list[bytes]) -> set[bytes]:
    return {key for key in keys if split.takes({header: key})}


@pytest.mark.parametrize("header", [b"x-user-id", b"x-request-id"])
def test_five_percent_of_the_callers_are_the_candidates(make_split: Callable[..., Split], header: bytes) -> None:
    sticky = b"x-user-id" if header == b"x-user-id" else None
    share = len(taken(make_split(sticky=sticky), header, KEYS)) / len(KEYS)
    assert 0.047 <= share <= 0.053


def test_requests_that_name_nobody_are_split_by_an_id_of_their_own(make_split: Callable[..., Split]) -> None:
    split = make_split()
    share = sum(split.takes({}) for _ in range(100_000)) / 100_000
    assert 0.047 <= share <= 0.053


def test_two_workers_choose_alike(make_split: Callable[..., Split], board: Board) -> None:
    keys = KEYS[:20_000]
    other = board.claim(2, Role.WORKER, pid=2, start=1)
    one = taken(make_split(rollout=9), b"x-request-id", keys)
    assert one == taken(make_split(rollout=9, slot=other), b"x-request-id", keys)


def test_another_rollout_draws_anew(make_split: Callable[..., Split]) -> None:
    """Nobody is always the first to try what is new."""
    keys = KEYS[:20_000]
    one, other = (taken(make_split(weight=2_000), b"x-request-id", keys) for _ in range(2))
    assert one != other
    # as many of them as of all others
    assert len(one & other) / len(one) == pytest.approx(0.2, abs=0.03)


def test_nobody_flips_back_while_the_share_grows(make_split: Callable[..., Split]) -> None:
    keys, split = KEYS[:10_000], make_split(weight=0)
    before: set[bytes] = set()
    for weight in (0, 1, 50, 95, 500, 501, 5_000, 9_999, BUCKETS):
        split.weight = weight
        now = taken(split, b"x-request-id", keys)
        assert before <= now
        before = now
    assert len(before) == len(keys)


def test_the_header_that_is_sticky_comes_before_the_requests_own(make_split: Callable[..., Split]) -> None:
    split = make_split(weight=5_000, rollout=9, sticky=b"x-user-id")
    by_user = [split.takes({b"x-user-id": key}) for key in KEYS[:200]]
    assert {True, False} == set(by_user)
    for salt in (b"a", b"b", b"c"):
        both = [split.takes({b"x-user-id": key, b"x-request-id": key + salt}) for key in KEYS[:200]]
        assert both == by_user
    # who does not send it goes by the request, as if nothing were sticky
    plain = make_split(weight=5_000, rollout=9)
    for key in KEYS[:200]:
        assert split.takes({b"x-request-id": key}) == plain.takes({b"x-request-id": key})


def test_no_share_and_the_whole(make_split: Callable[..., Split]) -> None:
    assert not any(make_split(weight=0).takes({b"x-request-id": key}) for key in KEYS[:500])
    assert all(make_split(weight=BUCKETS).takes({b"x-request-id": key}) for key in KEYS[:500])
    assert all(make_split(weight=BUCKETS).takes({}) for _ in range(500))


@pytest.mark.parametrize(
    ("status", "seconds", "counts"),
    [
        (200, 0.01, (1, 0)),
        (200, SLOW_S, (1, 0)),
        (302, 0.01, (1, 0)),
        # later than it may be
        (200, SLOW_S + 0.01, (1, 1)),
        # what went wrong here
        (500, 0.0, (1, 1)),
        (503, 0.01, (1, 1)),
        (504, 9.0, (1, 1)),
        # what the caller sent wrong is for neither side
        (400, 0.01, (0, 0)),
        (401, 0.01, (0, 0)),
        (422, 0.01, (0, 0)),
        (429, 0.01, (0, 0)),
        # who went away had waited for too long, or had not
        (499, 0.01, (0, 0)),
        (499, SLOW_S + 0.01, (1, 1)),
    ],
)
def test_what_counts(slot: Slot, status: int, seconds: float, counts: tuple[int, int]) -> None:
    arm = Arm(slot, {"deployment": "fraud", "version": "4", "arm": "candidate"}, SLOW_S)
    arm.count(status, seconds)
    assert counts_of(arm) == counts


@pytest.mark.parametrize("status", [400, 401, 413, 422, 429])
def test_a_caller_that_sends_its_wrong_body_slowly_harms_nobody(slot: Slot, status: int) -> None:
    """The time of a request begins with its headers."""
    arm = Arm(slot, {"deployment": "fraud", "version": "4", "arm": "candidate"}, SLOW_S)
    arm.count(status, 60 * SLOW_S)
    assert counts_of(arm) == (0, 0)


def test_arms_stand_on_the_board_for_the_controller(make_split: Callable[..., Split], board: Board) -> None:
    split = make_split()
    for _ in range(3):
        split.stable.count(200, 0.0)
    split.candidate.count(500, 0.0)
    sums = board.sums()
    found = {
        (version, arm, outcome): sums[
            series_hash({"name": ARMS, "deployment": "fraud", "version": version, "arm": arm, "outcome": outcome})
        ]
        for version, arm in (("3", "stable"), ("4", "candidate"))
        for outcome in ("good", "bad")
    }
    assert found == {
        ("3", "stable", "good"): 3,
        ("3", "stable", "bad"): 0,
        ("4", "candidate", "good"): 0,
        ("4", "candidate", "bad"): 1,
    }


def test_somebody_is_told_of_each_bad_answer(slot: Slot) -> None:
    told: list[str] = []
    arm = Arm(
        slot, {"deployment": "fraud", "version": "4", "arm": "candidate"}, SLOW_S, lambda: told.append("bad")
    )
    for status, seconds in ((200, 0.0), (400, 0.0), (500, 0.0), (200, 1.0), (499, 0.0)):
        arm.count(status, seconds)
    assert len(told) == 2


def drive(split: Split, chance: np.random.Generator, requests: int, bad: float, stable_bad: float) -> int:
    """Ask so often, as long as the candidate is asked at all; gives how often it was."""
    asked = 0
    for number in range(requests):
        is_candidate = split.takes({b"x-request-id": b"%d" % number})
        arm, rate = (split.candidate, bad) if is_candidate else (split.stable, stable_bad)
        arm.count(500 if chance.random() < rate else 200, 0.001)
        asked += is_candidate
        if split.tripped:
            break
    return asked


def test_a_candidate_that_fails_is_taken_off_at_once(make_split: Callable[..., Split], slot: Slot) -> None:
    chance = np.random.default_rng(0)
    for number in range(50, 70):
        split = make_split(rollout=number)
        assert drive(split, chance, 20_000, bad=1.0, stable_bad=0.005) <= 8
        assert split.tripped
        assert slot.get(Head.TRIPPED) == number


def test_one_that_is_late_is_taken_off_as_one_that_fails(make_split: Callable[..., Split], slot: Slot) -> None:
    split = make_split(weight=5_000, rollout=9)
    for _ in range(200):
        split.stable.count(200, SLOW_S / 2)
        split.candidate.count(200, SLOW_S * 2)
    assert split.tripped
    assert slot.get(Head.TRIPPED) == 9


def test_who_is_taken_off_gets_nothing_whatever_the_share(make_split: Callable[..., Split]) -> None:
    split = make_split()
    drive(split, np.random.default_rng(1), 20_000, bad=1.0, stable_bad=0.0)
    assert split.tripped
    split.weight = BUCKETS
    assert not any(split.takes({b"x-request-id": key}) for key in KEYS[:1_000])
    assert not any(split.takes({}) for _ in range(1_000))


def test_the_board_holds_what_was_tripped_first_and_later_failures_change_nothing(
    make_split: Callable[..., Split], slot: Slot
) -> None:
    split = make_split(rollout=41)
    drive(split, np.random.default_rng(2), 20_000, bad=1.0, stable_bad=0.0)
    assert slot.get(Head.TRIPPED) == 41
    slot.set(Head.TRIPPED, 99)  # another deployment's, since then
    for _ in range(50):
        split.candidate.count(500, 0.0)
    assert slot.get(Head.TRIPPED) == 99


@pytest.mark.parametrize(("rate", "weight"), [(0.02, 500), (0.3, 5_000), (1.0, 500), (1.0, 5_000)])
def test_a_candidate_that_fails_as_often_as_stable_stays(
    make_split: Callable[..., Split], slot: Slot, rate: float, weight: int
) -> None:
    """What both suffer, such as a table that does not answer, is nobody's fault."""
    chance = np.random.default_rng(3)
    tripped = 0
    for _ in range(60):
        split = make_split(weight=weight)
        drive(split, chance, 2_000, bad=rate, stable_bad=rate)
        tripped += split.tripped
    assert tripped <= 3  # each has a chance of 1 %


def test_a_candidate_over_the_objective_is_taken_off_where_nobody_is_beside_it(
    make_split: Callable[..., Split],
) -> None:
    split = make_split(weight=BUCKETS, policy=Policy(objective=0.05))
    drive(split, np.random.default_rng(4), 5_000, bad=0.4, stable_bad=0.0)
    assert split.tripped


def test_what_was_counted_before_is_not_held_against_a_new_rollout(
    make_split: Callable[..., Split], slot: Slot
) -> None:
    """Series outlive rollouts, and processes."""
    first = make_split()
    for _ in range(100):
        first.stable.count(200, 0.0)
        first.candidate.count(500, 0.0)
    assert first.tripped
    second = make_split()
    assert counts_of(second.candidate) == (100, 100)
    second.stable.count(200, 0.0)
    second.candidate.count(500, 0.0)
    assert not second.tripped


def fill(slot: Slot) -> None:
    """Until there is no room for another series."""
    number = 0
    while slot.series(name="other", number=str(number)) != slot.place(Head.DROPPED):
        number += 1


@pytest.mark.parametrize("sticky", [None, b"x-user-id"])
def test_what_finds_no_room_on_the_board_is_no_evidence(
    make_split: Callable[..., Split], slot: Slot, board: Board, sticky: bytes | None
) -> None:
    fill(slot)
    split = make_split(sticky=sticky, late_s=0.01)
    for number in range(50):
        split.stable.count(200, 0.0, from_caller(f"{number}"))
        split.candidate.count(500, 0.0, from_caller(f"{number}"))
    assert not split.candidate.is_counted
    assert not split.tripped
    assert slot.get(Head.DROPPED) > 0
    assert not [labels for labels, _ in board.labelled() if labels["name"] == ARMS]


# --- callers that can be told apart


def sticky_split(make_split: Callable[..., Split], **options: Any) -> Split:
    return make_split(weight=5_000, sticky=b"x-user-id", **options)


def from_caller(name: str) -> dict[bytes, bytes]:
    return {b"x-user-id": name.encode()}


def serve(
    split: Split, clock: list[float], chance: np.random.Generator, requests: int, bad: Callable[[str, bool], float]
) -> None:
    """Ten requests a second: three of ten are one heavy caller's; `bad` by who asks, and whom."""
    for _ in range(requests):
        clock[0] += 0.1
        name = "heavy" if chance.random() < 0.3 else f"user-{chance.integers(500)}"
        headers = from_caller(name)
        is_candidate = split.takes(headers)
        arm = split.candidate if is_candidate else split.stable
        arm.count(500 if chance.random() < bad(name, is_candidate) else 200, 0.001, headers)
        if split.tripped:
            return


@pytest.mark.parametrize("failing", [0.5, 1.0])
def test_a_heavy_caller_that_fails_wherever_it_falls_brings_nothing_down(
    make_split: Callable[..., Split], failing: float
) -> None:
    """It is the candidate's in half of the rollouts, and far over the objective there."""
    chance = np.random.default_rng(7)
    given_up = 0
    for _ in range(60):
        clock = [0.0]
        split = sticky_split(make_split, policy=Policy(objective=0.1), clock=lambda clock=clock: clock[0])
        serve(split, clock, chance, 1_500, lambda name, _: failing if name == "heavy" else 0.005)
        given_up += split.tripped
    assert given_up <= 3  # each has a chance of 1 %


def test_one_that_fails_for_everybody_is_taken_off_as_soon_as_without_a_sticky_header(
    make_split: Callable[..., Split],
) -> None:
    spoilt: dict[bytes | None, list[int]] = {None: [], b"x-user-id": []}
    for sticky, counts in spoilt.items():
        chance = np.random.default_rng(8)
        for _ in range(50):
            clock = [0.0]
            split = make_split(sticky=sticky, clock=lambda clock=clock: clock[0])
            before = counts_of(split.candidate)[1]
            for number in range(20_000):
                headers = {b"x-request-id": b"%d" % number, b"x-user-id": b"%d" % number}
                is_candidate = split.takes(headers)
                arm = split.candidate if is_candidate else split.stable
                arm.count(500 if is_candidate or chance.random() < 0.005 else 200, 0.001, headers)
                if split.tripped:
                    break
            counts.append(counts_of(split.candidate)[1] - before)
    assert np.median(spoilt[b"x-user-id"]) == np.median(spoilt[None]) <= 4


def test_few_callers_of_whom_all_fail_on_the_candidate_are_enough(make_split: Callable[..., Split]) -> None:
    chance, clock = np.random.default_rng(9), [0.0]
    split = make_split(weight=2_000, sticky=b"x-user-id", clock=lambda: clock[0])
    serve(split, clock, chance, 3_000, lambda _, is_candidate: float(is_candidate))
    assert split.tripped


# --- how long it takes


def time_both(split: Split, chance: np.random.Generator, requests: int, slower: float, load: float = 1.0) -> None:
    """Stable takes about 20 ms, 60 at most; under `load` everything takes longer."""
    for number in range(requests):
        is_candidate = split.takes({b"x-request-id": b"%d" % number})
        arm = split.candidate if is_candidate else split.stable
        seconds = float(chance.lognormal(math.log(0.02), 0.4)) * load * (slower if is_candidate else 1.0)
        arm.count(200, seconds)
        if split.tripped:
            return


#: One and a half times the p99 of the above.
LATE_S = 0.076
TIMES = Policy(objective=0.1, times=True)


@pytest.mark.parametrize("weight", [500, 5_000])
def test_one_that_takes_three_times_as_long_is_taken_off(make_split: Callable[..., Split], weight: int) -> None:
    chance, asked = np.random.default_rng(10), []
    for _ in range(20):
        split = make_split(weight=weight, policy=TIMES, slow_s=10.0, late_s=LATE_S)
        before = split.candidate.told()
        time_both(split, chance, 20_000, slower=3.0)
        assert split.tripped
        asked.append(sum(split.candidate.told()[:2]) - sum(before[:2]))
    assert np.median(asked) <= (60 if weight == 500 else 250)


@pytest.mark.parametrize(("slower", "load"), [(1.0, 1.0), (1.3, 1.0), (1.0, 3.0), (1.3, 10.0)])
def test_one_that_takes_about_as_long_stays_whatever_the_load(
    make_split: Callable[..., Split], slower: float, load: float
) -> None:
    chance = np.random.default_rng(11)
    for weight in (500, 5_000):
        split = make_split(weight=weight, policy=TIMES, slow_s=10.0, late_s=LATE_S)
        time_both(split, chance, 20_000, slower, load)
        assert not split.tripped


def test_what_is_late_is_not_bad(make_split: Callable[..., Split]) -> None:
    """An objective, and whether it may go on, are about what callers were promised."""
    split = make_split(weight=BUCKETS, policy=TIMES, slow_s=10.0, late_s=LATE_S)
    time_both(split, np.random.default_rng(12), 2_000, slower=3.0)
    told = split.told()
    assert (told.candidate_bad, split.tripped) == (0, False)
    assert told.candidate_late > 500
