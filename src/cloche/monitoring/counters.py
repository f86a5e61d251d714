"""What a serving worker counts: plain numbers in its own slot of the board, exported later."""

from __future__ import annotations

from bisect import bisect_left

from cloche.core.board import Head, Slot, series_hash

#: Upper bounds of the time buckets, seconds: 100 µs to 10 s.
SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
#: Upper bounds of the batch size buckets, rows.
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0)
#: Sums of seconds stand on the board as whole nanoseconds, since it holds int64 only.
NANO = 1_000_000_000


class Histogram:
    """A Histogram is a series a bucket (not cumulative) and one for the sum, in one slot."""

    def __init__(
        self, slot: Slot, name: str, bounds: tuple[float, ...], labels: dict[str, str], scale: int = NANO
    ) -> None:
        self._cells = slot.cells
        self._bounds = bounds
        self._scale = scale
        names = [format(bound, "g") for bound in bounds]
        self._places = [slot.series(name=name, le=le, **labels) for le in (*names, "+Inf")]
        self._sum = slot.series(name=name, sum=str(scale), **labels)

    def observe(self, value: float) -> None:
        cells = self._cells
        cells[self._places[bisect_left(self._bounds, value)]] += 1
        cells[self._sum] += int(value * self._scale)


class DeploymentCounters:
    """DeploymentCounters count the requests and batches of one version of one deployment in one process.

    They are the engine's Recorder. `executing` is called on the model thread; all else in the event loop.
    """

    def __init__(self, slot: Slot, deployment: str, version: str) -> None:
        self._slot = slot
        self._cells = slot.cells
        self._labels = {"deployment": deployment, "version": version}
        self._requests: dict[tuple[str, int], int] = {}
        self._others: dict[tuple[str, ...], int] = {}
        self._executing = slot.place(Head.EXECUTING)
        self._in_flight = slot.place(Head.IN_FLIGHT)
        self._version_hash = series_hash(self._labels)
        self.duration = Histogram(slot, "cloche_request_duration_seconds", SECONDS, self._labels)
        self.queue = Histogram(slot, "cloche_queue_seconds", SECONDS, self._labels)
        self.inference = Histogram(slot, "cloche_inference_seconds", SECONDS, self._labels)
        self.batch_size = Histogram(slot, "cloche_batch_size", ROWS, self._labels, 1)
        self.queued = self.queue.observe

    def began(self) -> None:
        self._cells[self._in_flight] += 1

    def answered(self, dialect: str, code: int, seconds: float) -> None:
        """One request is done: counted by dialect and HTTP code, with the time that it took."""
        place = self._requests.get((dialect, code))
        if place is None:
            place = self._slot.series(
                name="cloche_requests_total", dialect=dialect, code=str(code), **self._labels
            )
            self._requests[dialect, code] = place
        cells = self._cells
        cells[place] += 1
        cells[self._in_flight] -= 1
        self.duration.observe(seconds)

    def failed(self, reason: str) -> None:
        """One request was answered with an error; `reason` is its CL-E code."""
        self._count("cloche_errors_total", reason=reason)

    def flagged(self, count: int) -> None:
        """Values were answered although they were odd."""
        self._cells[self._slot.series(name="cloche_flagged_values_total", **self._labels)] += count

    def batch(self, rows: int, seconds: float) -> None:
        self.batch_size.observe(rows)
        self.inference.observe(seconds)

    def shed(self, reason: str) -> None:
        self._count("cloche_shed_total", reason=reason)

    def cache(self, hit: bool) -> None:
        self._count("cloche_cache_hits_total" if hit else "cloche_cache_misses_total")

    def executing(self, active: bool) -> None:
        self._cells[self._executing] = self._version_hash if active else 0

    def _count(self, name: str, **labels: str) -> None:
        key = (name, *labels.values())
        place = self._others.get(key)
        if place is None:
            place = self._others[key] = self._slot.series(name=name, **self._labels, **labels)
        self._cells[place] += 1
