"""What the statistics take: a day of one deployment at 100 requests a second, with 50 columns of drift counts.

`python benchmarks/watch.py` writes a simulated day through the code that the controller runs, after 400 days of
which only hours and days are left, and prints what the file holds then and what a second costs. But for the last
half hour the controller looks once a minute, which leaves the same minutes behind in a sixtieth of the time.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from sqlalchemy import insert

from cloche.core.board import series_hash
from cloche.monitoring.counters import ROWS, SECONDS
from cloche.store.increases import DAY, HOUR, MINUTE, SECOND, pack
from cloche.store.statistics import Counted, Statistics
from cloche.store.watch import WatchStore, statistics

RATE = 100
COLUMNS, BINS = 50, 22
_BEGIN = 20_000 * DAY
_NANO = 1_000_000_000


class Clock:
    """A Clock is a time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = float(_BEGIN)

    def __call__(self) -> float:
        return self.now


class Machine:
    """A Machine is the sums that its board would hold: what requests count, and bins of columns once a minute."""

    def __init__(self) -> None:
        self._dice = random.Random(0)
        of = {"deployment": "fraud", "version": "4"}
        self._sums: dict[int, int] = {}
        self._labels: dict[int, dict[str, str]] = {}
        self._times = [
            self._histogram(f"cloche_{name}_seconds", SECONDS, of)
            for name in ("request_duration", "queue", "inference")
        ]
        self._rows = self._histogram("cloche_batch_size", ROWS, of)
        self._answers = [
            self._series(name="cloche_requests_total", dialect="cloche", code=code, **of)
            for code in ("200", "422", "503")
        ]
        self._bins = [
            [
                self._series(name="cloche_drift", column=f"column_{one}", bin=str(bin_), **of)
                for bin_ in range(BINS)
            ]
            for one in range(COLUMNS)
        ]

    def second(self) -> None:
        """Count RATE requests."""
        for _ in range(RATE):
            self._sums[self._answers[self._dice.random() > 0.99]] += 1
            for *buckets, total in self._times:
                took = self._dice.lognormvariate(-6, 0.6)
                self._sums[buckets[sum(bound < took for bound in SECONDS)]] += 1
                self._sums[total] += int(took * _NANO)
            *buckets, total = self._rows
            self._sums[buckets[self._dice.randrange(3)]] += 1
            self._sums[total] += 1

    def minute(self) -> None:
        """Count the columns of what came in a minute."""
        for bins in self._bins:
            mean = RATE * MINUTE / BINS
            for one in bins:
                self._sums[one] += max(0, int(self._dice.gauss(mean, mean**0.5)))

    def counted(self) -> list[Counted]:
        return [Counted(key, self._labels[key], value) for key, value in self._sums.items()]

    def _histogram(self, name: str, bounds: tuple[float, ...], of: dict[str, str]) -> list[int]:
        les = [*(format(bound, "g") for bound in bounds), "+Inf"]
        return [*(self._series(name=name, le=le, **of) for le in les), self._series(name=name, sum="1", **of)]

    def _series(self, **labels: str) -> int:
        key = series_hash(labels)
        self._labels[key] = labels
        self._sums[key] = 0
        return key


def fill(watch: WatchStore, numbers: int, dice: random.Random) -> None:
    """What is left of the 400 days before: 365 of days, and 35 of hours."""
    rows = []
    for step, first, last in ((DAY, 400 * DAY, 35 * DAY), (HOUR, 35 * DAY, 0)):
        for start in range(_BEGIN - first, _BEGIN - last, step):
            mean = RATE * step / BINS
            values = {number: int(dice.gauss(mean, mean**0.5)) for number in range(1, numbers + 1)}
            rows.append({"step": step, "start": start, "machine": "laptop-1a2b3c4d", "increases": pack(values)})
    with watch.note() as connection:
        connection.execute(insert(statistics), rows)


def size_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def written_bytes() -> int:
    """What this process has written so far, by the kernel's account (Linux)."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("wchar")))


def run(folder: Path) -> None:
    clock, machine = Clock(), Machine()
    with WatchStore(f"sqlite:///{folder / 'state.db'}", clock=clock) as watch:
        kept = Statistics(watch)
        machine.second()
        machine.minute()
        kept.carry("laptop-1a2b3c4d", 1, machine.counted())
        fill(watch, len(machine.counted()), random.Random(1))
        for _ in range((DAY + HOUR) // MINUTE):
            for _ in range(MINUTE):
                machine.second()
            machine.minute()
            clock.now += MINUTE
            kept.carry("laptop-1a2b3c4d", 1, machine.counted())
            kept.fold()
        seconds(clock, machine, kept, folder)
    print(f"closed        {size_bytes(folder) / 1e6:.1f} MB")


def seconds(clock: Clock, machine: Machine, kept: Statistics, folder: Path) -> None:
    """The last half hour."""
    largest, cpu_s, slowest_s, count = 0, 0.0, 0.0, HOUR // 2
    wrote = written_bytes()
    for second in range(1, count + 1):
        clock.now += SECOND
        machine.second()
        if second % MINUTE == 0:
            machine.minute()
        counted = machine.counted()
        cpu, wall = time.process_time(), time.perf_counter()
        kept.carry("laptop-1a2b3c4d", 1, counted)
        kept.fold()
        slowest_s = max(slowest_s, time.perf_counter() - wall)
        cpu_s += time.process_time() - cpu
        largest = max(largest, size_bytes(folder))
    wrote = written_bytes() - wrote
    print(f"{RATE} requests a second, {COLUMNS} columns of {BINS} bins once a minute: {len(counted):,} series")
    print(f"with journal  {largest / 1e6:.1f} MB at most")
    print(f"a second      {1000 * cpu_s / count:.1f} ms of a processor, {wrote / count / 1000:.1f} kB written")
    print(f"the slowest   {1000 * slowest_s:.0f} ms")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder))


if __name__ == "__main__":
    main()
