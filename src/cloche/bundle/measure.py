"""What a bundle costs here: load time, memory, one row, many rows; and how many threads serve it best."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Protocol

import msgspec
import numpy as np

from cloche.bundle.manifest import Measured
from cloche.core.machine import usable_cores
from cloche.core.memory import forget_peak, give_back_memory, peak_bytes, resident_bytes
from cloche.core.signature import Columns, count_rows, row_numbers
from cloche.runtimes.base import Runtime, RuntimeSpec


class Load(Protocol):
    """A Load loads the bundle as a spec says, for one row or for many at a time."""

    def __call__(self, spec: RuntimeSpec, *, bulk: bool) -> Runtime: ...


BULK_ROWS = 4_096
_BULK_NUMBERS = 2_000_000
#: More threads must be so much faster to be worth their cores.
_GAIN = 0.9
_WARM_CALLS = 5
_ROW_CALLS = 400
_BULK_CALLS = 50
_ROW_BUDGET_S = 0.25
_TRIAL_BUDGET_S = 0.06
_BULK_BUDGET_S = 0.15
#: A 99th percentile of fewer calls is noise, but a slow model is not waited for.
_LEAST_CALLS = 200
_MOST_S = 1.0
#: About as long as one call with many rows may take.
_BULK_CALL_S = 5.0
_TRIAL_CALL_S = 0.5
_LEAST_BULK_ROWS = 64


def choose_threads(
    load: Load,
    spec: RuntimeSpec,
    columns: Columns,
    *,
    cores: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> RuntimeSpec:
    """The spec with the thread counts that were fastest, for one row and for many; few where it is a tie."""
    candidates = [1]
    while 2 * candidates[-1] <= (cores or usable_cores()):
        candidates.append(2 * candidates[-1])
    if len(candidates) == 1:
        return spec
    row, bulk = repeat_rows(columns, 16), None
    row_times: list[float] = []
    bulk_times: list[float] = []
    for threads in candidates:
        trial = msgspec.structs.replace(spec, threads=threads, bulk_threads=threads)
        runtime = load(trial, bulk=False)
        try:
            # The least, not the middle: whatever else the machine does only ever adds.
            row_times.append(min(time_rows(runtime, row, _TRIAL_BUDGET_S, clock)))
            bulk = bulk or _affordable_rows(columns, row_times[0], _TRIAL_CALL_S)
            bulk_times.append(min(time_bulk(runtime, bulk, _TRIAL_BUDGET_S, clock)))
        finally:
            runtime.close()
    return msgspec.structs.replace(
        spec,
        threads=candidates[_fastest(row_times)],
        bulk_threads=candidates[_fastest(bulk_times)],
    )


def measure(
    load: Load,
    spec: RuntimeSpec,
    columns: Columns,
    *,
    size_bytes: int,
    original_bytes: int,
    original_row_s: float | None,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """Load the bundle as it will be served, and time it; memory is what this process or the host's grew by."""
    gc.collect()
    give_back_memory()  # else a model hides in what was free already
    before = resident_bytes()
    is_forgotten = forget_peak()
    start = clock()
    runtime = load(spec, bulk=False)
    load_s = clock() - start
    host = getattr(runtime, "host_pid", None)  # a runtime host is the model's alone
    most = peak_bytes(host) - (0 if host else before) if host or is_forgotten else 0
    try:
        few = repeat_rows(columns, 64)
        rows = sorted(time_rows(runtime, few, _ROW_BUDGET_S, clock, least=_LEAST_CALLS))
        bulk = _affordable_rows(columns, rows[len(rows) // 2], _BULK_CALL_S)
        used = resident_bytes() - before if host is None else resident_bytes(host)
        if not runtime.in_process:
            # The host is the same for many rows, and slow to start.
            fastest = min(time_bulk(runtime, bulk, _BULK_BUDGET_S, clock))
    finally:
        runtime.close()
    if runtime.in_process:
        runtime = load(spec, bulk=True)
        try:
            fastest = min(time_bulk(runtime, bulk, _BULK_BUDGET_S, clock))
        finally:
            runtime.close()
    return Measured(
        original_bytes=original_bytes or size_bytes,
        size_bytes=size_bytes,
        load_s=load_s,
        # Memory that was free already hides a small model: it takes its own size at least.
        memory_bytes=max(used, size_bytes),
        load_bytes=max(most, used, size_bytes),
        row_p50_s=rows[len(rows) // 2],
        row_p99_s=rows[min(len(rows) - 1, int(len(rows) * 0.99))],
        rows_per_s=count_rows(bulk) / fastest,
        original_row_s=original_row_s,
    )


def rows_a_call(columns: Columns) -> int:
    """How many such rows are run at a time: a network's inner results are many times its rows."""
    return max(1, min(BULK_ROWS, _BULK_NUMBERS // max(1, row_numbers(columns))))


def _affordable_rows(columns: Columns, row_s: float, call_s: float) -> Columns:
    """Many rows, but no more than a call of about so many seconds takes."""
    return repeat_rows(columns, min(BULK_ROWS, max(_LEAST_BULK_ROWS, int(call_s / max(row_s, 1e-9)))))


def repeat_rows(columns: Columns, count: int) -> Columns:
    """`count` rows, repeated as needed; fewer where rows are so large that they would not fit."""
    places = np.arange(min(count, rows_a_call(columns))) % count_rows(columns)
    return {name: column[places] for name, column in columns.items()}


def time_rows(
    runtime: Runtime, columns: Columns, budget_s: float, clock: Callable[[], float], *, least: int = 3
) -> list[float]:
    """Seconds of calls with one row each, after a few that warm up; within the budget, three at least.

    More than three at `least` are waited for up to a second.
    """
    count = count_rows(columns)
    rows = [{name: column[row : row + 1] for name, column in columns.items()} for row in range(count)]
    for call in range(_WARM_CALLS):
        runtime.run(rows[call % count])
    return _time(lambda call: runtime.run(rows[call % count]), _ROW_CALLS, budget_s, clock, least)


def time_bulk(runtime: Runtime, columns: Columns, budget_s: float, clock: Callable[[], float]) -> list[float]:
    """Seconds of calls with all rows, after one that warms up; within the budget, three at least."""
    runtime.run(columns)
    return _time(lambda call: runtime.run(columns), _BULK_CALLS, budget_s, clock)


def _time(
    call: Callable[[int], object], calls: int, budget_s: float, clock: Callable[[], float], least: int = 3
) -> list[float]:
    times: list[float] = []
    begin = clock()
    end = begin + budget_s
    latest = begin + max(budget_s, _MOST_S)
    for number in range(calls):
        start = clock()
        if number >= 3 and start > (end if number >= least else latest):
            break
        call(number)
        times.append(clock() - start)
    return times


def _fastest(times: list[float]) -> int:
    """The first place whose time no later one beats clearly."""
    best = 0
    for place, seconds in enumerate(times):
        if seconds < times[best] * _GAIN:
            best = place
    return best
