"""The Batcher: what runs together, in which order, for whom, and what becomes of those who can't be answered."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.core.errors import BusyError, ClocheError, InputError, ModelError
from cloche.core.signature import Columns, Field, Signature
from cloche.engine.batcher import Batcher
from cloche.engine.cache import Cache
from cloche.engine.cost import CostLine
from cloche.engine.engine import Engine, Prepared
from cloche.engine.queue import Answer, Plan, Waiting, plan

SIGNATURE = Signature(
    inputs=(Field(name="x", datatype="FP64", shape=(-1,)),),
    outputs=(Field(name="value", datatype="FP64", shape=(-1,)),),
)
OPEN = Signature(
    inputs=(Field(name="x", datatype="FP64", shape=(-1, -1)),),
    outputs=(Field(name="value", datatype="FP64", shape=(-1,)),),
)
QUICK = (1e-6, 1e-7)
SLOW = (0.005, 0.0)


class Recording:
    """A Recording is both the runtime (it answers x + 1, as `acts` lets it) and the Recorder of a Batcher."""

    def __init__(self, acts: Callable[[list[Any]], None] = lambda x: None, *, in_process: bool = True) -> None:
        self.in_process = in_process
        self.batches: list[list[Any]] = []
        self.threads: list[str] = []
        self.told: list[tuple[str, Any]] = []
        self._acts = acts

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        x = columns["x"]
        self.batches.append(x.tolist())
        self.threads.append(threading.current_thread().name)
        self._acts(x.tolist())
        return {"value": x.reshape(len(x), -1)[:, 0] + 1}

    def close(self) -> None: ...

    def batch(self, rows: int, seconds: float) -> None:
        self.told.append(("batch", rows))

    def queued(self, seconds: float) -> None: ...

    def shed(self, reason: str) -> None:
        self.told.append(("shed", reason))

    def executing(self, active: bool) -> None: ...


class World:
    """A World is a Batcher in a running loop, with what it runs and tells."""

    def __init__(
        self, runtime: Recording, cost: tuple[float, float], *, signature: Signature = SIGNATURE,
        cache: Cache | None = None, batch_s: float = 0.25,
    ) -> None:  # fmt: skip
        self.runtime = runtime
        self.engine = Engine(signature, runtime, ref="m:1", cache=cache)
        self.cost = CostLine()
        for rows in (1, 64) * 50:  # a history, so that one batch does not change its mind
            self.cost.observe(rows, cost[0] + cost[1] * rows)
        self.batcher = Batcher(self.engine, runtime, self.cost, batch_s=batch_s)

    def ask(self, *values: Any, within: float = 5.0) -> asyncio.Future[Answer]:
        prepared = self.engine.prepare({"x": np.array(values, np.float64)})
        now = time.monotonic()
        return self.batcher.submit(prepared, now + within, now)


async def value(answer: Awaitable[Answer]) -> list[float]:
    return (await answer)[0]["value"].tolist()  # type: ignore[no-any-return]


async def failure(answer: Awaitable[Answer]) -> ClocheError:
    with pytest.raises(ClocheError) as raised:
        await answer
    return raised.value


# -- the plan ------------------------------------------------------------------------------------------------


def prepared(rows: int = 1, sizes: tuple[int, ...] = ()) -> Prepared:
    return Prepared({"x": np.zeros(rows)}, rows, (), sizes)


class Futures:
    """Futures gives futures of a loop that never runs."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def waiting(self, rows: int, deadline: float, *, done: bool = False, sizes: tuple[int, ...] = ()) -> Waiting:
        future: asyncio.Future[Answer] = self.loop.create_future()
        if done:
            future.cancel()
        return Waiting(prepared(rows, sizes), 0.0, deadline, future)


@pytest.fixture
def futures() -> Any:
    made = Futures()
    yield made
    made.loop.close()


COST = CostLine(fixed_s=0.1, per_row_s=0.01)


@pytest.mark.parametrize(
    ("queue", "run", "expired", "shed", "abandoned"),
    [
        # (rows, deadline, done): 0.11 s a row, 0.2 s for 10
        ([], [], [], [], []),
        ([(1, 9.0, False)] * 3, [0, 1, 2], [], [], []),
        ([(5, 9.0, False)] * 4, [0, 1], [], [], []),  # 0.2 s and no more
        ([(50, 9.0, False)], [0], [], [], []),  # at least one, however large
        ([(1, 0.0, False), (1, 9.0, False)], [1], [0], [], []),  # past its deadline
        ([(1, 0.05, False), (1, 9.0, False)], [1], [], [0], []),  # can't make it
        ([(1, 9.0, True), (1, 9.0, False)], [1], [], [], [0]),  # nobody waits
        ([(1, 0.115, False), (1, 9.0, False)], [0], [], [], []),  # the second would make the first late
        ([(1, 9.0, False), (5, 0.155, False)], [0], [], [], []),  # the second would be late in company
        ([(1, 0.0, True), (1, 0.0, False), (1, 0.01, False)], [], [1], [2], [0]),
    ],
)
def test_a_plan(
    futures: Futures, queue: list[Any], run: list[int], expired: list[int], shed: list[int], abandoned: list[int]
) -> None:
    waiting = [futures.waiting(rows, deadline, done=done) for rows, deadline, done in queue]
    left = deque(waiting)
    chosen = plan(left, 0.0, COST, 0.2, 0.0)
    expected = Plan(*([waiting[at] for at in part] for part in (run, expired, shed, abandoned)))
    assert chosen == expected
    assert chosen.rows() + sum(one.prepared.rows for one in left) == sum(one.prepared.rows for one in waiting)


def test_a_batch_for_the_loop_is_bounded_by_the_loop(futures: Futures) -> None:
    cost = CostLine(fixed_s=0.0, per_row_s=0.0001)
    queue = deque(futures.waiting(6, 9.0) for _ in range(3))
    chosen = plan(queue, 0.0, cost, 0.25, 0.001)
    assert (chosen.inline, len(chosen.run)) == (True, 1)
    queue = deque(futures.waiting(60, 9.0) for _ in range(3))
    chosen = plan(queue, 0.0, cost, 0.25, 0.001)
    assert (chosen.inline, len(chosen.run)) == (False, 3)


def test_a_slow_request_is_not_for_the_loop_because_a_quick_one_before_it_was_cancelled(futures: Futures) -> None:
    queue = deque([futures.waiting(1, 9.0, done=True), futures.waiting(1000, 9.0)])
    assert not plan(queue, 0.0, CostLine(0.0, 0.0001), 0.25, 0.001).inline


def test_requests_whose_open_axes_differ_are_not_joined(futures: Futures) -> None:
    queue = deque(futures.waiting(1, 9.0, sizes=sizes) for sizes in ((7,), (7,), (8,), (7,)))
    assert len(plan(queue, 0.0, COST, 9.0, 0.0).run) == 2
    assert len(plan(queue, 0.0, COST, 9.0, 0.0).run) == 1


@given(
    st.lists(st.tuples(st.integers(1, 30), st.floats(-1, 3), st.booleans(), st.sampled_from([(), (1,)]))),
    st.floats(0.0, 0.2),
    st.floats(0.0, 0.05),
    st.floats(0.01, 1.0),
)
def test_any_plan_keeps_order_runs_one_at_least_and_nothing_in_vain(
    queue: list[Any], fixed: float, per_row: float, batch_s: float
) -> None:
    made = Futures()
    cost = CostLine(fixed, per_row)
    waiting = [made.waiting(rows, deadline, done=done, sizes=sizes) for rows, deadline, done, sizes in queue]
    left = deque(waiting)
    chosen = plan(left, 0.0, cost, batch_s, 0.001)
    made.loop.close()
    taken = len(waiting) - len(left)
    assert list(left) == waiting[taken:]
    order = {id(one): at for at, one in enumerate(waiting)}
    for part in (chosen.run, chosen.expired, chosen.shed, chosen.abandoned):
        places = [order[id(one)] for one in part]
        assert places == sorted(places)
    assert len(chosen.run) + len(chosen.expired) + len(chosen.shed) + len(chosen.abandoned) == taken
    assert chosen.run or not left
    rows = sum(one.prepared.rows for one in chosen.run)
    for one in chosen.run:
        assert one.is_wanted()
        assert cost.seconds(rows) <= one.deadline
        assert one.prepared.sizes == chosen.run[0].prepared.sizes
    if len(chosen.run) > 1:
        assert cost.seconds(rows) <= (0.001 if chosen.inline else batch_s)


# -- in a loop -----------------------------------------------------------------------------------------------


def test_rows_of_one_turn_run_together_in_the_loop() -> None:
    async def scenario() -> None:
        world = World(Recording(), QUICK)
        answers = await asyncio.gather(*(value(world.ask(number, number + 0.5)) for number in range(5)))
        assert answers == [[number + 1, number + 1.5] for number in range(5)]
        assert len(world.runtime.batches) == 1
        assert world.runtime.threads == ["MainThread"]
        assert world.runtime.told == [("batch", 10)]

    asyncio.run(scenario())


def test_it_never_waits_for_company() -> None:
    async def scenario() -> None:
        world = World(Recording(), QUICK)
        answer = world.ask(1)
        await asyncio.sleep(0)  # one turn
        assert answer.done()

    asyncio.run(scenario())


def test_what_arrives_while_the_model_works_becomes_the_next_batch() -> None:
    async def scenario() -> None:
        go = threading.Event()
        world = World(Recording(lambda x: go.wait(5) and None), SLOW)
        first = world.ask(0)
        await asyncio.sleep(0)
        rest = [world.ask(number) for number in range(1, 6)]
        go.set()
        assert await value(first) == [1]
        assert [await value(one) for one in rest] == [[2], [3], [4], [5], [6]]
        assert world.runtime.batches == [[0], [1, 2, 3, 4, 5]]
        assert {name.startswith("model") for name in world.runtime.threads} == {True}
        world.batcher.close()

    asyncio.run(scenario())


def test_the_loop_goes_on_while_a_slow_model_works() -> None:
    async def scenario() -> None:
        go = threading.Event()
        world = World(Recording(lambda x: go.wait(5) and None), SLOW)
        answer = world.ask(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not answer.done()
        go.set()  # only the loop, still turning, can say so
        assert await value(answer) == [1]
        world.batcher.close()

    asyncio.run(scenario())


def test_a_runtime_that_leaves_the_process_never_runs_in_the_loop() -> None:
    async def scenario() -> None:
        world = World(Recording(in_process=False), QUICK)
        assert not world.batcher.is_inline(1)
        assert await value(world.ask(0)) == [1]
        assert world.runtime.threads[0].startswith("model")
        world.batcher.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("raised", [ModelError("no"), InputError("no"), ValueError("no"), MemoryError("no")])
@pytest.mark.parametrize("cost", [QUICK, SLOW])
def test_a_poisonous_row_fails_alone(raised: Exception, cost: tuple[float, float]) -> None:
    def acts(x: list[float]) -> None:
        if 5.0 in x:
            raise raised

    async def scenario() -> None:
        world = World(Recording(acts), cost)
        asked = [world.ask(number) for number in range(9)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [at for at, outcome in enumerate(outcomes) if isinstance(outcome, ClocheError)] == [5]
        assert len(world.runtime.batches) <= 2 * 5 + 1  # bisected
        world.batcher.close()

    asyncio.run(scenario())


def test_what_kills_the_models_process_is_not_bisected() -> None:
    def acts(x: list[float]) -> None:
        if 5.0 in x:
            raise ModelError("died", code="CL-E902")

    async def scenario() -> None:
        world = World(Recording(acts), SLOW)
        outcomes = await asyncio.gather(*(world.ask(number) for number in range(8)), return_exceptions=True)
        assert sum(isinstance(outcome, ClocheError) for outcome in outcomes) == 1
        assert sum(5.0 in batch for batch in world.runtime.batches) == 2  # the whole, then alone
        world.batcher.close()

    asyncio.run(scenario())


def test_a_host_that_gives_no_answer_is_not_asked_row_by_row() -> None:
    def acts(x: list[float]) -> None:
        raise BusyError("late", code="CL-E602")

    async def scenario() -> None:
        world = World(Recording(acts), SLOW)
        outcomes = await asyncio.gather(*(world.ask(number) for number in range(8)), return_exceptions=True)
        assert {getattr(outcome, "code", None) for outcome in outcomes} == {"CL-E602"}
        assert len(world.runtime.batches) == 1
        world.batcher.close()

    asyncio.run(scenario())


def test_even_an_exit_of_the_model_is_an_answer() -> None:
    class Leaving(BaseException):
        pass

    def acts(x: list[float]) -> None:
        raise Leaving("bye")

    async def scenario() -> None:
        world = World(Recording(acts), SLOW)
        error = await failure(world.ask(1))
        assert isinstance(error, ModelError)
        world.runtime._acts = lambda x: None
        assert await value(world.ask(2)) == [3]
        world.batcher.close()

    asyncio.run(scenario())


def test_open_axes_of_several_sizes_are_all_answered() -> None:
    async def scenario() -> None:
        world = World(Recording(), QUICK, signature=OPEN)
        answers = [world.ask([1.0] * size) for size in (3, 3, 4, 3)]
        assert [await value(one) for one in answers] == [[2], [2], [2], [2]]
        assert [len(batch) for batch in world.runtime.batches] == [2, 1, 1]

    asyncio.run(scenario())


def test_a_cancelled_request_does_not_run() -> None:
    async def scenario() -> None:
        world = World(Recording(), QUICK)
        gone, stays = world.ask(1), world.ask(2)
        gone.cancel()
        assert await value(stays) == [3]
        assert world.runtime.batches == [[2]]

    asyncio.run(scenario())


def test_the_deadline_answers_while_the_model_hangs_and_what_expired_does_not_run() -> None:
    async def scenario() -> None:
        go = threading.Event()
        world = World(Recording(lambda x: go.wait(5) and None), SLOW)
        running = world.ask(1, within=0.05)
        await asyncio.sleep(0)
        waits = world.ask(2, within=0.06)
        for late in (running, waits):
            error = await failure(late)
            assert (error.code, isinstance(error, BusyError)) == ("CL-E602", True)
        assert world.runtime.told == [("shed", "deadline"), ("shed", "deadline")]
        go.set()
        assert await value(world.ask(3)) == [4]
        assert world.runtime.batches == [[1], [3]]
        world.batcher.close()

    asyncio.run(scenario())


def test_a_quick_request_behind_a_slow_one_of_the_same_turn_has_its_deadline() -> None:
    async def scenario() -> None:
        go = threading.Event()
        world = World(Recording(lambda x: go.wait(5) and None), (0.0, 0.0005))
        slow = world.ask(*range(100))
        quick = world.ask(1, within=0.08)
        assert (await failure(quick)).code == "CL-E602"
        go.set()
        await slow
        world.batcher.close()

    asyncio.run(scenario())


def test_what_cant_make_it_is_shed_before_it_runs_and_told_when_to_come_back() -> None:
    async def scenario() -> None:
        go = threading.Event()
        world = World(Recording(lambda x: go.wait(5) and None), (0.3, 0.0))
        first = world.ask(0)
        await asyncio.sleep(0)
        with pytest.raises(BusyError) as raised:
            world.ask(1, within=0.5)  # 0.3 s for the one that runs, 0.3 s of its own
        assert raised.value.code == "CL-E601"
        assert raised.value.retry_after_s >= 1.0
        assert world.runtime.told == [("shed", "overload")]
        go.set()
        await first
        assert world.runtime.batches == [[0]]
        world.batcher.close()

    asyncio.run(scenario())


def test_a_queue_that_is_longer_than_the_cost_line_says_takes_no_more() -> None:
    async def scenario() -> None:
        go = threading.Event()
        world = World(Recording(lambda x: go.wait(5) and None), (0.001, 0.01), batch_s=0.25)
        asked = [
            world.ask(0),
            *(world.ask(*range(10)) for _ in range(5)),
        ]  # half a second by the line, of which two fifths run
        await asyncio.sleep(0)
        late = world.ask(1, within=1.0)
        for one in world.batcher._waiting:
            one.since -= 0.6  # it was more
        with pytest.raises(BusyError):
            world.ask(2, within=1.0)
        asked += [late, world.ask(3, within=2.0)]
        go.set()
        assert [len(answer) for answer in await asyncio.gather(*map(value, asked))] == [1, *[10] * 5, 1, 1]
        world.batcher.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("has_cache", [False, True])
def test_what_could_not_be_answered_in_time_need_not_be_read(has_cache: bool) -> None:
    async def scenario() -> None:
        go = threading.Event()
        cache = Cache(size=10_000) if has_cache else None
        world = World(Recording(lambda x: go.wait(5) and None), (0.3, 0.0), cache=cache)
        now = time.monotonic()
        world.batcher.check(now + 0.1, now)  # nobody waits: what it asks for may say more
        asked = [world.ask(0), world.ask(1)]
        await asyncio.sleep(0)
        world.batcher.check(now + 5.0, now)
        if has_cache:
            world.batcher.check(now + 0.1, now)
        else:
            with pytest.raises(BusyError) as raised:
                world.batcher.check(now + 0.1, now)
            assert raised.value.code == "CL-E601"
            assert world.runtime.told == [("shed", "overload")]
        go.set()
        await asyncio.gather(*asked)
        world.batcher.close()

    asyncio.run(scenario())


def test_the_queue_has_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloche.engine.batcher.MOST_WAITING", 3)

    async def scenario() -> None:
        world = World(Recording(), QUICK)
        asked = [world.ask(number) for number in range(3)]
        with pytest.raises(BusyError):
            world.ask(4)
        assert await asyncio.gather(*map(value, asked)) == [[1], [2], [3]]

    asyncio.run(scenario())


def test_what_batches_take_while_something_else_holds_the_interpreter_is_not_learnt() -> None:
    async def scenario() -> None:
        world = World(Recording(lambda x: time.sleep(0.02)), QUICK)
        world.batcher.quiet_from = math.inf
        for _ in range(3):
            assert await value(world.ask(1.0)) == [2.0]
        assert world.cost.seconds(1) < 0.001
        world.batcher.quiet_from = time.monotonic()
        for _ in range(3):
            assert await value(world.ask(1.0)) == [2.0]
        assert world.cost.seconds(1) > 0.01

    asyncio.run(scenario())


def test_a_model_that_once_stood_still_is_tried_again() -> None:
    async def scenario() -> None:
        world = World(Recording(), SLOW)
        for _ in range(200):
            world.cost.observe(1, 30.0)  # a stopped machine
        assert await value(world.ask(1, within=1.0)) == [2]
        assert world.cost.seconds(1) < 1.0
        assert await value(world.ask(2, within=1.0)) == [3]
        world.batcher.close()

    asyncio.run(scenario())


def test_many_rows_that_seem_hopeless_are_tried_again_when_nothing_was_measured_for_long() -> None:
    async def scenario() -> None:
        world = World(Recording(), QUICK)
        for _ in range(200):
            world.cost.observe(1000, 5.0)  # all that was asked, while the machine stood still
        many = [float(number) for number in range(1000)]
        with pytest.raises(BusyError):
            world.ask(*many, within=1.0)
        world.batcher._measured_at -= 11.0
        assert len(await value(world.ask(*many, within=1.0))) == 1000
        assert len(await value(world.ask(*many, within=1.0))) == 1000, "the line is mended"
        world.batcher.close()

    asyncio.run(scenario())


def test_a_short_deadline_of_the_callers_is_no_reason_to_try() -> None:
    async def scenario() -> None:
        world = World(Recording(), (0.3, 0.0))
        with pytest.raises(BusyError):
            world.ask(1, within=0.1)
        assert world.runtime.batches == []

    asyncio.run(scenario())


# -- the same rows at once -----------------------------------------------------------------------------------


def test_the_same_rows_at_once_run_once() -> None:
    async def scenario() -> None:
        world = World(Recording(), QUICK, cache=Cache(size=10_000))
        answers = await asyncio.gather(*(value(world.ask(7)) for _ in range(5)), value(world.ask(8)))
        assert answers == [[8]] * 5 + [[9]]
        assert world.runtime.batches == [[7, 8]]
        assert world.engine.prepare({"x": np.array([7.0])}).cached is not None

    asyncio.run(scenario())


def test_who_follows_gets_the_answer_although_the_first_went_away() -> None:
    async def scenario() -> None:
        world = World(Recording(), QUICK, cache=Cache(size=10_000))
        first, second = world.ask(7), world.ask(7)
        first.cancel()
        assert await value(second) == [8]

    asyncio.run(scenario())


def test_who_follows_with_more_time_is_not_late_with_the_first() -> None:
    async def scenario() -> None:
        go = threading.Event()
        world = World(Recording(lambda x: go.wait(5) and None), SLOW, cache=Cache(size=10_000))
        other = world.ask(0)
        await asyncio.sleep(0)
        first, second = world.ask(7, within=0.05), world.ask(7, within=5.0)
        assert (await failure(first)).code == "CL-E602"
        go.set()
        assert await value(second) == [8]
        assert await value(other) == [1]
        world.batcher.close()

    asyncio.run(scenario())


def test_a_failure_is_not_remembered() -> None:
    failing = [True]

    def acts(x: list[float]) -> None:
        if failing[0]:
            raise ModelError("no")

    async def scenario() -> None:
        world = World(Recording(acts), QUICK, cache=Cache(size=10_000))
        outcomes = await asyncio.gather(world.ask(7), world.ask(7), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ModelError, ModelError]
        failing[0] = False
        assert await value(world.ask(7)) == [8]

    asyncio.run(scenario())


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=30),
    st.sampled_from([QUICK, SLOW]),
)
def test_whoever_asks_gets_the_answer_to_their_own_rows(asked: list[Any], cost: tuple[float, float]) -> None:
    async def one(world: World, number: int, cancels: bool) -> None:
        future = world.ask(number)
        if cancels:
            future.cancel()
        else:
            assert await value(future) == [number + 1]

    async def scenario() -> None:
        world = World(Recording(), cost, cache=Cache(size=2_000))
        tasks = []
        for number, cancels, turns in asked:
            if turns:
                await asyncio.sleep(0)
            tasks.append(asyncio.ensure_future(one(world, number, cancels)))
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
        world.batcher.close()

    asyncio.run(scenario())


def offer(
    fixed_s: float, row_s: float, line: tuple[float, float], offered: int, deadline_s: float, seconds: float
) -> tuple[int, list[str], float]:
    """Ask `offered` times a second for one row: how many were answered, the codes of the others, and how long."""

    async def scene() -> tuple[int, list[str], float]:
        world = World(
            Recording(lambda x: time.sleep(fixed_s + row_s * len(x)), in_process=False),
            line,
            batch_s=deadline_s / 4,
        )
        codes: list[str] = []

        async def one() -> None:
            try:
                await world.ask(1.0, within=deadline_s)
                codes.append("answered")
            except BusyError as error:
                codes.append(error.code)

        began = time.monotonic()
        asked = []
        while time.monotonic() - began < seconds:
            asked.append(asyncio.ensure_future(one()))
            await asyncio.sleep(1 / offered)
        await asyncio.gather(*asked)
        return codes.count("answered"), codes, time.monotonic() - began

    return asyncio.run(scene())


def test_a_model_that_became_slow_is_learnt_and_ten_times_its_load_is_shed() -> None:
    """Cheap when it was warmed up, 20 ms a row now: what is admitted is answered in time, the rest hears 503."""
    answered, codes, seconds = offer(0.0, 0.02, QUICK, offered=500, deadline_s=0.5, seconds=3.0)
    capacity = seconds / 0.02
    assert answered > 0.7 * capacity, (answered, capacity, len(codes))
    assert codes.count("CL-E601") > 3 * codes.count("CL-E602"), "most hear it before they wait"


@pytest.mark.heavy  # real time, to a twentieth: not beside other tests
def test_ten_times_the_load_costs_no_goodput_and_hardly_anyone_waits_in_vain() -> None:
    """Batches stay as large as their bound allows, also when the queue is as long as the deadlines allow."""
    fixed_s, row_s, deadline_s = 0.04, 0.004, 0.5
    most = int((deadline_s / 4 - fixed_s) / row_s)
    per_second = most / (fixed_s + row_s * most)
    answered, codes, seconds = offer(fixed_s, row_s, (fixed_s, row_s), int(10 * per_second), deadline_s, 3.0)
    assert answered > 0.8 * per_second * seconds, (answered, per_second * seconds, len(codes))
    assert codes.count("CL-E602") < 0.05 * answered, (answered, codes.count("CL-E602"))
