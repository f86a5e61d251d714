"""When a batch run is due: through both changes of the clock, after a pause, and never over itself."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.batch.schedule import Past, Schedule, check_cron, due, expected_s
from cloche.core.errors import ConfigError

BERLIN = "Europe/Berlin"


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def slots(cron: str, start: str, count: int, zone: str = BERLIN) -> list[str]:
    found = islice(Schedule(cron=cron, timezone=zone).after(at(start)), count)
    return [f"{datetime.fromtimestamp(each, UTC):%m-%d %H:%M}" for each in found]


@pytest.mark.parametrize(
    ("cron", "start", "expected"),
    [
        # In Berlin 2026-03-29 has no 02:00 to 03:00; 01:00 UTC is where the clock jumps.
        ("0 2 * * *", "2026-03-27T12:00", ["03-28 01:00", "03-29 01:00", "03-30 00:00"]),
        ("30 2 * * *", "2026-03-28T12:00", ["03-29 01:00", "03-30 00:30"]),
        ("0 * * * *", "2026-03-28T23:30", ["03-29 00:00", "03-29 01:00", "03-29 02:00"]),
        # 2026-10-25 has 02:00 to 03:00 twice: 00:00 to 02:00 UTC.
        ("0 2 * * *", "2026-10-24T12:00", ["10-25 00:00", "10-26 01:00"]),
        ("45 2 * * *", "2026-10-25T00:30", ["10-25 00:45", "10-26 01:45"]),
        ("45 2 * * *", "2026-10-25T01:30", ["10-26 01:45"]),  # within the second of the two
        ("*/30 * * * *", "2026-10-24T23:40", ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30"]),
        ("0 * * * *", "2026-10-24T23:30", ["10-25 00:00", "10-25 01:00", "10-25 02:00"]),
    ],
)  # fmt: skip
def test_slots_follow_the_clock_of_their_zone(cron: str, start: str, expected: list[str]) -> None:
    assert slots(cron, start, len(expected)) == expected


@given(
    start=st.integers(int(at("2026-03-28T00:00")), int(at("2026-10-27T00:00"))),
    cron=st.sampled_from(["0 2 * * *", "30 2 * * *", "*/20 * * * *", "15 1-4 * * *", "0 0 * * 0", "5 */2 * * *"]),
)
def test_however_often_it_is_started_anew_no_slot_comes_twice_or_is_left_out(start: int, cron: str) -> None:
    schedule = Schedule(cron=cron, timezone=BERLIN)
    straight = list(islice(schedule.after(start), 6))
    anew, moment = [], float(start)
    for _ in range(6):
        slot = schedule.next(moment)
        assert slot is not None
        anew.append(slot)
        moment = slot
    assert anew == straight == sorted(set(straight))


@pytest.mark.parametrize("days", [0.01, 1, 40, 400, 2000])
@pytest.mark.parametrize("cron", ["* * * * *", "0 2 * * *", "0 0 1 * *", "0 0 29 2 *"])
def test_the_latest_slot_is_the_last_before_now(cron: str, days: float) -> None:
    now = at("2026-11-29T12:34:56")
    schedule = Schedule(cron=cron, timezone=BERLIN)
    found = schedule.latest(now - days * 86_400, now)
    if found is None:
        following = schedule.next(now - days * 86_400)
        assert following is not None
        assert following > now
        return
    following = schedule.next(found)
    assert following is not None
    assert now - days * 86_400 < found <= now < following


NOON = at("2026-11-29T12:00")
HOUR = 3600.0


@pytest.mark.parametrize(
    ("catch_up", "last", "now", "expected"),
    [
        # In time, all are the same.
        ("latest", NOON, NOON + HOUR - 1, None),
        ("latest", NOON, NOON + HOUR, NOON + HOUR),
        ("all", NOON, NOON + HOUR + 1, NOON + HOUR),
        ("none", NOON, NOON + HOUR + 1, NOON + HOUR),
        # Three and a half hours of a pause, or of a run that took so long.
        ("latest", NOON, NOON + 3.5 * HOUR, NOON + 3 * HOUR),
        ("all", NOON, NOON + 3.5 * HOUR, NOON + HOUR),
        ("none", NOON, NOON + 3.5 * HOUR, None),
        # Until the next moment that is kept.
        ("none", NOON, NOON + 4 * HOUR + 2, NOON + 4 * HOUR),
        # What was run is not run again.
        ("latest", NOON + 3 * HOUR, NOON + 3.5 * HOUR, None),
        ("all", NOON + 3 * HOUR, NOON + 3.5 * HOUR, None),
        # A clock that was put back.
        ("latest", NOON, NOON - HOUR, None),
        ("all", NOON, NOON - HOUR, None),
    ],
)
def test_what_was_missed_is_caught_up_with_as_asked(
    catch_up: str, last: float, now: float, expected: float | None
) -> None:
    schedule = Schedule(cron="0 * * * *", catch_up=catch_up)  # type: ignore[arg-type]
    assert due(schedule, last, now) == expected


def test_all_of_what_was_missed_is_run_in_order_once() -> None:
    schedule, last, now, run = Schedule(cron="0 * * * *", catch_up="all"), NOON, NOON + 3.5 * HOUR, []
    while (slot := due(schedule, last, now)) is not None:
        run.append(slot)
        last = slot
    assert run == [NOON + HOUR, NOON + 2 * HOUR, NOON + 3 * HOUR]


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 2 * *", "4 fields"),
        ("* * * * * *", "6 fields"),
        ("", "0 fields"),
        ("60 2 * * *", "the minute"),
        ("0 2 * * mondays", "the day-of-week"),
        ("0 0 31 2 *", "the day-of-month"),
        ("0 0 30 2 *", "the day-of-month"),
        ("a b c d e", "the minute"),
    ],
)
def test_a_cron_expression_that_means_nothing_is_refused_in_words(cron: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        check_cron(cron)
    assert "0 2 * * *" in str(caught.value.hint)


def test_blanks_in_a_cron_expression_mean_nothing() -> None:
    assert check_cron("  0  2 *  * mon-fri ") == "0 2 * * mon-fri"


def test_how_long_a_run_takes_is_told_by_those_before_it() -> None:
    assert expected_s([]) is None
    assert expected_s([Past(rows=0, seconds=1.0)]) is None
    assert expected_s([Past(rows=2_000, seconds=20.0), Past(rows=9_000, seconds=10.0)], 4_000) == pytest.approx(8)
    # one slow night does not make the next ones slow
    pasts = [Past(rows=1_000, seconds=s) for s in (100.0, 10.0, 10.0)]
    assert expected_s(pasts) == pytest.approx(10.0)
