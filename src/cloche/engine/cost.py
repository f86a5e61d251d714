"""What a batch costs: a line through the batches that were measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cloche.core.signature import Columns, Signature, join_rows

#: How much an earlier batch counts for beside the next: about the last hundred decide,
_MEMORY = 0.99
#: but where the line was off by more than the factor, only the last few;
_SHORT_MEMORY = 0.2
_OFF = 2.0
#: and where batches took so many times longer twice in a row, the last alone: the model is another one now.
_WRONG = 10.0


class CostLine:
    """A CostLine says how many seconds a batch of n rows takes: fixed + per_row * n.

    It is fitted by least squares over what was observed, older batches counting less and less; neither part
    is ever negative.
    """

    def __init__(self, fixed_s: float = 0.0, per_row_s: float = 0.0) -> None:
        self.fixed_s = fixed_s
        self.per_row_s = per_row_s
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self._surprises = 0

    def seconds(self, rows: int) -> float:
        return self.fixed_s + self.per_row_s * rows

    def forget(self) -> None:
        """Let the next batch alone say what a batch costs."""
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """Take in one measured batch."""
        expected = self.fixed_s + self.per_row_s * rows
        self._surprises = self._surprises + 1 if 0.0 < expected * _WRONG < seconds else 0
        if self._surprises > 1:
            # one size tells nothing of a fixed part, and without one no batch is taken too large
            self.forget()
            self.fixed_s, self.per_row_s = 0.0, seconds / rows
        memory = _MEMORY if expected < seconds * _OFF and seconds < expected * _OFF else _SHORT_MEMORY
        n = self._n = self._n * memory + 1.0
        x = self._x = self._x * memory + rows
        y = self._y = self._y * memory + seconds
        xx = self._xx = self._xx * memory + rows * rows
        xy = self._xy = self._xy * memory + rows * seconds
        spread = n * xx - x * x
        slope = (n * xy - x * y) / spread if spread > 1e-9 * n * xx else self.per_row_s
        mean_rows = x / n
        mean_s = y / n
        # one size only tells nothing of the slope; a slope beyond the mean would make the rest negative
        self.per_row_s = min(max(slope, 0.0), mean_s / mean_rows if mean_rows else 0.0)
        self.fixed_s = max(mean_s - self.per_row_s * mean_rows, 0.0)


def warm_up(
    run: Callable[[Columns], Columns],
    examples: Columns,
    signature: Signature,
    clock: Callable[[], float],
    *,
    budget_s: float = 2.0,
    sizes: Iterable[int] = (1, 4, 16, 64),
) -> CostLine:
    """Run growing batches of the examples until latency settles (or the budget is spent), and fit the line.

    Settled: of the last 20 calls of one row the slowest but one took at most 1.5 times the median, and the
    median at most 1.5 times the fastest but one. `examples` must hold at least one row.
    """
    line = CostLine()
    one = {field.name: examples[field.name][:1] for field in signature.inputs}
    start = clock()
    last: list[float] = []
    while clock() - start < budget_s / 2:
        before = clock()
        run(one)
        last = [*last[-19:], clock() - before]
        ranked = sorted(last)
        if len(last) == 20 and ranked[-2] <= 1.5 * ranked[10] and ranked[10] <= 1.5 * ranked[1]:
            break
    line.observe(1, sorted(last)[len(last) // 2])
    for size in sizes:
        batch = join_rows([one] * size)
        took = []
        for _ in range(5):
            before = clock()
            run(batch)
            took.append(clock() - before)
            if clock() - start > budget_s:
                break
        line.observe(size, sorted(took)[len(took) // 2])
        if clock() - start > budget_s:
            break
    return line
