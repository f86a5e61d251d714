"""The lookout keeps the loop awake for a moment after an answer, and gives up where that does not pay."""

from __future__ import annotations

import asyncio
import time

from cloche.serving.lookout import LOOK_S, VAIN, Lookout


async def until_asleep(lookout: Lookout) -> float:
    """Seconds until the loop was let sleep."""
    start = time.monotonic()
    while lookout.is_looking:
        assert time.monotonic() - start < 5.0
        await asyncio.sleep(0)
    return time.monotonic() - start


def test_after_an_answer_the_loop_stays_awake_for_a_moment() -> None:
    async def scenario() -> None:
        lookout = Lookout(asyncio.get_running_loop())
        start = time.monotonic()
        lookout.answered(start)
        assert lookout.is_looking
        await until_asleep(lookout)
        assert time.monotonic() - start >= LOOK_S

    asyncio.run(scenario())


def test_an_answer_in_time_prolongs_it() -> None:
    async def scenario() -> None:
        lookout = Lookout(asyncio.get_running_loop())
        start = time.monotonic()
        lookout.answered(start + 0.05)
        await asyncio.sleep(0)
        lookout.answered(start + 0.1)
        await until_asleep(lookout)
        assert time.monotonic() - start >= 0.1

    asyncio.run(scenario())


def test_after_two_looks_in_vain_many_answers_go_by_without_one() -> None:
    async def scenario() -> None:
        lookout = Lookout(asyncio.get_running_loop())
        for _ in range(2):
            lookout.answered(time.monotonic())
            assert lookout.is_looking
            await until_asleep(lookout)
        for _ in range(VAIN):
            lookout.answered(time.monotonic())
            assert not lookout.is_looking
        lookout.answered(time.monotonic())
        assert lookout.is_looking

    asyncio.run(scenario())


def test_one_that_pays_makes_good_for_one_in_vain() -> None:
    async def scenario() -> None:
        lookout = Lookout(asyncio.get_running_loop())
        for _ in range(3):
            lookout.answered(time.monotonic())
            assert lookout.is_looking
            await asyncio.sleep(0)
            lookout.answered(time.monotonic())
            await until_asleep(lookout)

    asyncio.run(scenario())


def test_with_two_answers_in_one_turn_the_loop_may_sleep_and_collect() -> None:
    async def scenario() -> None:
        lookout = Lookout(asyncio.get_running_loop())
        far = time.monotonic() + 60.0
        lookout.answered(far)
        lookout.answered(far)
        await asyncio.sleep(0)
        assert not lookout.is_looking

    asyncio.run(scenario())
