"""A batch run: a source through a model into a sink, chunk by chunk, exact after any crash."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from cloche.batch.checkpoint import STAMPS, Checkpoint, ChunkSink, Safe, Stamp
from cloche.batch.fingerprint import changed, check_same, greatest_key
from cloche.batch.fit import Fitted, fit
from cloche.batch.into_files import FileSink, RejectFile
from cloche.batch.into_postgresql import PostgresqlSink
from cloche.batch.into_sqlite import SqliteSink
from cloche.batch.pipeline import in_order
from cloche.batch.places import as_table, find
from cloche.batch.plan import Outcome, Plan, Progress, RunEnd
from cloche.batch.reading import Reading, open_reading
from cloche.batch.score import Predict, answer, of_rows, refusal, rejected
from cloche.batch.sinks import Table, flat
from cloche.batch.sources import Portion, Position
from cloche.batch.tables import TableReading
from cloche.batch.values import missing_rows, spare_memory
from cloche.core.errors import ConfigError, InputError
from cloche.core.signature import Signature
from cloche.engine.validate import Problem


class _Answered(msgspec.Struct, frozen=True):
    """An _Answered is a portion with the rows for the sink and those for the rejects."""

    position: Position
    rows: int
    table: Table
    rejects: Table
    rejected: int
    #: What is wrong with the rejected rows.
    refusal: InputError | None
    at: datetime


def run_batch(
    plan: Plan,
    signature: Signature,
    predict: Predict,
    *,
    look_up: Callable[[str], str],
    tell: Callable[[Progress], None],
    is_stopped: Callable[[], bool],
) -> Outcome:
    """Go on with a run from where it is safe, to its end, to a person's stop or to what fails it.

    `predict` is called by several threads at a time; `look_up` resolves `env:NAME` and `file:PATH`; `tell` and
    `is_stopped` are called after each chunk. Raises NotFoundError, ConfigError, RefusedError and ConflictError
    for what the caller can mend, BusyError where a place is out of reach: what is safe stays, and the same call
    goes on with it.
    """
    began = time.monotonic()
    spare_memory()
    with ExitStack() as stack:
        sink = stack.enter_context(closing(_open_sink(plan, find(plan.sink, look_up))))
        safe = sink.safe()
        rejects = None if plan.rejects is None else RejectFile(Path(plan.rejects), plan.run)
        why, end = "", None
        if not safe.finished:
            reading = stack.enter_context(closing(_open_source(plan, find(plan.source, look_up))))
            safe, end, why = _Run(plan, signature, predict, tell, is_stopped).go(reading, sink, rejects, safe)
        if end is None:
            end, why = _conclude(plan, sink, rejects, safe)
    return Outcome(end=end, rows=safe.rows, rejected=safe.rejected, seconds=time.monotonic() - began, why=why)


def _open_source(plan: Plan, source: str) -> Reading:
    if plan.fingerprint:
        check_same(plan.fingerprint, source, plan.key)
    reading = open_reading(source, plan.key, greatest_key(plan.fingerprint))
    if isinstance(reading, TableReading) and not reading.reaches:
        reading.close()
        raise changed(source)
    return reading


def _open_sink(plan: Plan, sink: str) -> ChunkSink:
    place = as_table(sink)
    if place is None:
        return FileSink(sink, plan.run)
    if place.table is None:
        raise ConfigError(
            f"{place.shown} is a query: rows go into a table",
            code="CL-E209",
            hint="end the address with ?table=NAME",
        )
    key = plan.key or place.key
    if place.kind == "sqlite":
        return SqliteSink(place, key, plan.run)
    return PostgresqlSink(place, key, plan.run, at_least_once=plan.at_least_once)


def _conclude(plan: Plan, sink: ChunkSink, rejects: RejectFile | None, safe: Safe) -> tuple[RunEnd, str]:
    share = safe.rejected / max(safe.rows, 1)
    if share > plan.fail_above:
        if rejects is not None:
            rejects.gather(safe)
        why = f"{safe.rejected:,} of {safe.rows:,} rows were rejected ({share:.2%}), above {plan.fail_above:.2%}"
        return "failed", why
    if rejects is not None:
        rejects.finish(safe)
    sink.finish(safe)
    return ("completed with rejects" if safe.rejected else "completed"), ""


class _Run:
    """A _Run takes a reading to its end."""

    def __init__(
        self,
        plan: Plan,
        signature: Signature,
        predict: Predict,
        tell: Callable[[Progress], None],
        is_stopped: Callable[[], bool],
    ) -> None:
        self._plan, self._signature, self._predict = plan, signature, predict
        self._tell, self._is_stopped = tell, is_stopped

    def go(
        self, reading: Reading, sink: ChunkSink, rejects: RejectFile | None, safe: Safe
    ) -> tuple[Safe, RunEnd | None, str]:
        """What is safe at last, and how it ended where that was before the source's end, and why."""
        resumed = safe.rows
        self._tell(Progress(rows=safe.rows, rejected=safe.rejected, total=reading.total, resumed=resumed))
        if self._is_stopped():
            return safe, "cancelled", ""
        portions = reading.portions(safe.position, self._plan.chunk)
        with closing(in_order(portions, self._answer)) as answered:  # type: ignore[type-var]
            for one in answered:
                if one.refusal is not None and rejects is None:
                    return safe, "failed", one.refusal.message
                safe = self._keep(one, sink, rejects, safe)
                self._tell(Progress(rows=safe.rows, rejected=safe.rejected, total=reading.total, resumed=resumed))
                if self._is_stopped():
                    return safe, "cancelled", ""
        return safe, None, ""

    def _keep(self, one: _Answered, sink: ChunkSink, rejects: RejectFile | None, safe: Safe) -> Safe:
        """The chunk in the sink, its rejects before it: they count once the checkpoint is there."""
        if rejects is not None and one.rejected:
            rejects.write(one.rejects, safe.chunks)
        stamp = Stamp(model_version=self._plan.ref, run_id=self._plan.run, predicted_at=one.at)
        done = Checkpoint(chunk=safe.chunks, rows=one.rows, rejected=one.rejected, position=one.position)
        sink.write(one.table, stamp, done)
        return Safe(
            chunks=safe.chunks + 1,
            rows=safe.rows + one.rows,
            rejected=safe.rejected + one.rejected,
            position=one.position,
        )

    def _answer(self, portion: Portion) -> _Answered:
        chunk, plan = portion.chunk, self._plan
        key = () if plan.key is None else (plan.key,)
        fitted = fit(chunk, self._signature, texts=portion.kind == "csv", aside={*key, *(plan.keep or ())})
        self._require_keys(portion, fitted)
        found = answer(fitted, chunk, self._predict)
        table: Table = {}
        if found.rows.size:
            carried = of_rows(self._carried(portion, fitted), found.rows, chunk.rows)
            table = flat({**carried, **found.outputs})
            if plan.key in flat(found.outputs):
                raise ConfigError(
                    f"the key {plan.key!r} has the name of an output of the model",
                    code="CL-E209",
                    hint="give the column of the source another name",
                )
        bad = fitted.problems
        return _Answered(
            position=portion.position,
            rows=chunk.rows,
            table=table,
            rejects={**rejected(chunk, bad), "source": [portion.name] * len(bad)} if bad else {},
            rejected=len(bad),
            refusal=refusal(bad, chunk, portion.name) if bad else None,
            at=datetime.now(UTC),
        )

    def _carried(self, portion: Portion, fitted: Fitted) -> dict[str, Any]:
        """The key, and the columns that are kept."""
        plan, columns = self._plan, portion.chunk.columns
        kept = tuple(fitted.carried) if plan.keep is None else plan.keep
        names = [*([] if plan.key is None else [plan.key]), *kept]
        missing = [name for name in names if name not in columns]
        if missing and portion.kind != "jsonl":
            raise ConfigError(
                f"{portion.name} has no column {missing[0]!r} to carry over",
                code="CL-E209",
                hint=f"it has {', '.join([*columns][:12])}",
            )
        absent = [None] * portion.chunk.rows
        return {name: columns.get(name, absent) for name in dict.fromkeys(names) if name not in STAMPS}

    def _require_keys(self, portion: Portion, fitted: Fitted) -> None:
        key = self._plan.key
        columns = portion.chunk.columns
        if key is None or (key not in columns and portion.kind != "jsonl"):
            return
        for row in missing_rows(columns.get(key, [None] * portion.chunk.rows)):
            problem = Problem("CL-E106", f"the key `{key}` is missing", key, row)
            fitted.problems.setdefault(row, []).append(problem)
