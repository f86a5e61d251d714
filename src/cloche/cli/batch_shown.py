"""A batch run for people: how far it is, what it came to, what it answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cloche.app.batch_view import lasting, shown_sink
from cloche.batch.plan import Plan, Progress
from cloche.cli.terminal import Terminal
from cloche.cli.ticker import Ticker
from cloche.store.batches import RunRow

#: What takes longer is told of in lines, where no terminal shows a bar.
_LASTS_S = 3.0


def teller(ticker: Ticker | None, terminal: Terminal, *, hidden: bool) -> Callable[[Progress], None]:
    """What hears how far a run is: a bar on a terminal, elsewhere a line per tenth."""
    began = time.monotonic()
    said = 0

    def tell(done: Progress) -> None:
        nonlocal said
        here, total = done.rows - done.resumed, done.total
        if ticker is not None:
            ticker("predicting", here, 0 if total is None else total - done.resumed)
        elif not hidden and total and (tenths := done.rows * 10 // total) > said:
            said = tenths
            seconds = time.monotonic() - began
            if seconds < _LASTS_S:
                return
            rate = here / seconds
            left = lasting((total - done.rows) / rate) if rate else "-"
            terminal.note(f"{tenths * 10} %  {done.rows:,} of {total:,} rows, {rate:,.0f} rows/s, {left} left")

    return tell


def conclusion(row: RunRow, plan: Plan, found: Mapping[str, Any]) -> list[str]:
    """What the run came to, in a few lines."""
    report = row.report or {}
    seconds = float(report.get("seconds", 0.0))
    resumed = int(report.get("resumed_rows", 0))
    rate = f", {report['rows_per_s']:,.0f} rows/s" if seconds > 1 else ""
    again = f", {resumed:,} of them before" if resumed else ""
    lines = [
        f"{row.id}  {row.state}  {row.rows:,} rows{again}  {seconds:.1f} s{rate}  {plan.ref} -> {shown_sink(plan)}"
    ]
    if row.rejected:
        where = f" in {plan.rejects}" if plan.rejects else ""
        rows = "row" if row.rejected == 1 else "rows"
        lines.append(f"{row.rejected:,} {rows} ({row.rejected / max(row.rows, 1):.2%}) rejected{where}")
    if row.why:
        lines.append(f"why  {row.why}")
    return [*lines, *answer_lines(found)]


def facts(found: Mapping[str, Any]) -> dict[str, object]:
    """What `show` says of a run, without what there is nothing to say of."""
    total = "" if found["total"] is None else f" of {found['total']:,}"
    told: dict[str, object] = {
        name: found[name] for name in ("run", "name", "state", "why", "model", "digest", "source", "sink", "key")
    }
    told |= {"rows": f"{found['rows']:,}{total}", "rejected": f"{found['rejected']:,}"}
    told |= {name: found[name] for name in ("rejects", "chunk", "attempt", "slot", "holder", "started", "ended")}
    report = found["report"] or {}
    if report:
        told |= {"took": f"{report['seconds']:.1f} s, {report['rows_per_s']:,.0f} rows/s"}
    return {name: value for name, value in told.items() if value not in (None, "")}


def answer_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Each output's distribution, in brackets that of packing."""
    for name, told in ((found["report"] or {}).get("outputs") or {}).items():
        if "shares" in told:
            parts = [f"{label} {now:.1%} ({told['packed'][label]:.1%})" for label, now in told["shares"].items()]
        else:
            parts = [f"{part} {now:.4g} ({told['packed'][part]:.4g})" for part, now in told["quantiles"].items()]
        yield f"{name}  {', '.join(parts)}  (at packing)"
