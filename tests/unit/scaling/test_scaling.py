"""How many workers the load wants: cases, properties, and a step of ten times the load in a fluid model."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloche.scaling import Decision, History, Load, Policy, desired_workers

POLICY = Policy(least=1, most=100)
COST_S = 0.1


def second(at: float, rate: float, *, waiting: float = 0.0, ready: int = 2, **fields: float) -> Load:
    """A second in which every request was answered, each by 100 ms of a worker."""
    given = {"arrivals": rate, "answered": rate, "busy_s": rate * COST_S, "startup_s": 1.0, **fields}
    return Load(at=at, seconds=1.0, waiting=waiting, ready=ready, **given)


def after(*loads: Load, policy: Policy = POLICY) -> Decision:
    history = History()
    for load in loads:
        history = history.then(load, policy)
    return desired_workers(history, policy)


def steady(rate: float, seconds: int = 60, **fields: float) -> list[Load]:
    return [second(float(at), rate, **fields) for at in range(1, seconds + 1)]


def load_benchmark() -> ModuleType:
    path = Path(__file__).parents[3] / "benchmarks" / "scaling.py"
    spec = importlib.util.spec_from_file_location("benchmark_scaling", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


benchmark = load_benchmark()

# ── Cases


@pytest.mark.parametrize(
    ("loads", "policy", "workers"),
    [
        pytest.param([], POLICY, 1, id="nothing was seen: the least"),
        pytest.param(steady(0, ready=1), POLICY, 1, id="nobody asks: the least"),
        pytest.param(steady(14), POLICY, 2, id="14 * 0.1 / 0.7"),
        pytest.param(steady(140), POLICY, 20, id="140 * 0.1 / 0.7"),
        pytest.param(steady(141), POLICY, 21, id="141 * 0.1 / 0.7, rounded up"),
        pytest.param(steady(14, ready=5), POLICY, 5, id="who begins to look takes nothing away"),
        pytest.param([*steady(14), second(61, 140)], POLICY, 17, id="a step: at once, less what may be chance"),
        pytest.param([*steady(13), second(61, 18)], POLICY, 2, id="five more may be chance"),
        pytest.param([*steady(14)[:-1], second(60, 14, waiting=50)], POLICY, 3, id="50 wait: 50 * 0.1 / 5 more"),
        pytest.param(steady(140), Policy(least=1, most=8), 8, id="no more than the most"),
        pytest.param(steady(0, ready=3), Policy(least=3, most=8), 3, id="no fewer than the least"),
        pytest.param(steady(140), Policy(least=1, most=8, cores=4), 4, id="no more than the cores"),
        pytest.param(steady(140), Policy(least=6, most=8, cores=4), 6, id="a person said at least six"),
        pytest.param(
            [second(1, 140, answered=14, busy_s=1.4)], POLICY, 17, id="what is shed wants workers as well"
        ),
    ],
)
def test_the_load_wants_so_many(loads: list[Load], policy: Policy, workers: int) -> None:
    assert after(*loads, policy=policy).workers == workers


def test_a_rate_that_grows_is_met_before_it_is_there() -> None:
    ramp = [second(float(at), 2.0 * at) for at in range(1, 61)]
    slow = [msgspec.structs.replace(load, startup_s=30.0) for load in ramp]
    assert after(*ramp).workers == 16  # the last second's 120, less chance
    assert after(*slow).workers == 17  # 61 on average, and 2 more each second for 30
    assert after(*steady(60, startup_s=30.0)).workers == 9


def test_fewer_only_once_no_more_were_wanted_for_the_whole_time() -> None:
    history = History()
    seen = []
    for at in range(1, 500):
        history = history.then(second(float(at), 140 if at <= 10 else 7, ready=20), POLICY)
        seen.append(desired_workers(history, POLICY).workers)
    peak = max(seen)
    last = len(seen) - seen[::-1].index(peak)  # the last second in which the peak was wanted
    assert 305 <= last <= 315
    assert seen[-1] == 1
    assert "were wanted within the last 300 s" in after(*steady(140, 2), second(3, 14)).why


def test_a_difference_of_less_than_a_tenth_takes_no_worker_away() -> None:
    low = Policy(least=1, most=100, down_s=5.0)
    assert after(*steady(137, ready=21), policy=low).workers == 21
    assert after(*steady(120, ready=21), policy=low).workers == 18


def test_the_words_say_what_was_measured_and_what_bounds_it() -> None:
    assert after(*steady(14)).why == "14 requests/s of 100 ms"
    assert after(*steady(14)[:-1], second(60, 14, waiting=50)).why == "14 requests/s of 100 ms, 50 wait"
    few = Policy(least=1, most=8, cores=2)
    assert after(*steady(140), policy=few).why == (
        "140 requests/s of 100 ms: that wants 20, which is more than the 2 cores"
    )
    assert "more than the most, 8" in after(*steady(140), policy=Policy(least=1, most=8)).why


# ── Properties

rates = st.lists(st.floats(0, 500), min_size=1, max_size=90)
policies = st.builds(
    lambda least, more, cores, down_s: Policy(least=least, most=least + more, cores=cores, down_s=down_s),
    st.integers(1, 10), st.integers(0, 40), st.none() | st.integers(1, 64), st.floats(1, 400),
)  # fmt: skip


@given(rates, policies, st.floats(0, 1000), st.floats(0.5, 60))
def test_it_is_never_below_the_least_nor_above_most_or_cores(
    rates: list[float], policy: Policy, waiting: float, startup_s: float
) -> None:
    loads = [second(at + 1.0, rate, waiting=waiting, startup_s=startup_s) for at, rate in enumerate(rates)]
    workers = after(*loads, policy=policy).workers
    assert policy.least <= workers <= policy.most
    assert policy.cores is None or workers <= max(policy.least, policy.cores)


@given(rates, st.floats(1, 20), st.floats(0, 500))
def test_more_load_never_wants_fewer_workers(rates: list[float], factor: float, waiting: float) -> None:
    def wanted(times: float, waiting: float) -> int:
        loads = [second(at + 1.0, rate * times) for at, rate in enumerate(rates)]
        loads[-1] = msgspec.structs.replace(loads[-1], waiting=waiting)
        return after(*loads, policy=Policy(least=1, most=100_000)).workers

    base = wanted(1.0, 0.0)
    assert wanted(factor, 0.0) >= base
    assert wanted(1.0, waiting) >= base


@given(rates, st.floats(1, 20))
def test_dearer_requests_never_want_fewer_workers(rates: list[float], factor: float) -> None:
    def wanted(times: float) -> int:
        loads = [second(at + 1.0, rate, busy_s=rate * COST_S * times) for at, rate in enumerate(rates)]
        return after(*loads, policy=Policy(least=1, most=100_000)).workers

    assert wanted(factor) >= wanted(1.0)


@settings(max_examples=20)
@given(st.sampled_from([1.0, 5.0, 14.0, 50.0, 140.0, 300.0]), st.integers(0, 2**32 - 1), st.floats(1, 10))
def test_a_constant_load_with_noise_comes_to_rest(rate: float, seed: int, startup_s: float) -> None:
    """In half an hour a few changes, mostly up to what the worst second wants; it does not go to and fro."""
    chance = np.random.default_rng(seed)

    def noisy(_second: float) -> float:
        return float(chance.poisson(rate * benchmark.TICK_S) / benchmark.TICK_S)

    enough = math.ceil(rate * COST_S / 0.7)
    policy = Policy(least=1, most=200)
    made = benchmark.simulate(noisy, startup_s=startup_s, seconds=1800.0, first=enough, policy=policy)
    assert made.changes <= 10
    assert made.most <= 1.3 * enough + 2


@pytest.mark.parametrize(("startup_s", "most_late"), [(1.0, 0.01), (5.0, 0.02), (30.0, 0.08)])
def test_few_are_late_when_ten_times_as_many_come_at_once(startup_s: float, most_late: float) -> None:
    made = benchmark.simulate(benchmark.step, startup_s=startup_s, seconds=660.0)
    assert made.late <= most_late * made.requests
    kpa, ray, cpu = (late[benchmark.STARTUPS_S.index(startup_s)] for late in benchmark.OTHERS.values())
    assert made.late < 1.5 * kpa
    assert made.late < ray < cpu
