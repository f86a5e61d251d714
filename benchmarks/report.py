"""The page of the benchmark: the table, the ratios, and each target met or not met."""

from __future__ import annotations

from typing import Any

Results = dict[str, Any]
Line = dict[str, Any]

OF_BEST_PEER = 8.0
OF_TRITON = 4.0
FASTER_P50 = 3.5
OF_ECHO = 0.35
OPEN_P99_MS, OPEN_ECHO_MS = 5.0, 3.0
START_S = 2.0
WORKER_MIB = 150.0
PATH_COST = 0.25


def page(results: Results) -> str:
    """The whole page as Markdown."""
    parts = [
        "# Benchmarks",
        "<!-- written by `make bench`; edit benchmarks/report.py instead -->",
        "One gradient boosting model (scikit-learn, 100 trees, 30 columns), one row a request, JSON over HTTP,"
        " every server in its fastest documented form with one worker. All processes of the server run on one"
        " core, the load generator on another. Each server's answers are checked against the model's before it"
        " is measured.",
        "To run it again: `make bench`. Absolute numbers belong to the machine; read the ratios.",
        f"{results['date']}, {results['machine']}. Python {results['python']}. Medians of {results['rounds']}"
        f" interleaved rounds of {results['seconds']:g} s a load.",
        "## Servers",
        _table(results),
        "`c` is the number of connections that each wait for their answer before they ask again (closed loop)."
        " The columns 200/s and 1,000/s are p99 in milliseconds when requests come at that rate whatever the"
        " server does, counted from when each was due (open loop); – where a server can't follow. CPU is of all"
        " the server's processes, at 16 connections. Start is from the command to the first right answer. Memory"
        " is the resident size of all processes; after it, their number and the largest.",
        _skipped(results),
        "## Targets",
        _verdicts(targets(results)),
        *_request_path(results),
        *(part for case in results["cases"] for part in _case(case)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(results: Results) -> str:
    lines = [
        "| server | c=1 req/s (p50 ms) | c=16 req/s (p99 ms) | c=64 req/s (p99 ms) | 200/s | 1,000/s | CPU µs/req"
        " | start s | MiB (processes; largest) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for line in results["servers"]:
        cells = [
            f"{line['name']} ({line['package']} {line['version']})",
            f"{line['c1_rps']:,.0f} ({line['c1_p50_ms']:.2f})",
            f"{line['c16_rps']:,.0f} ({line['c16_p99_ms']:.1f})",
            f"{line['c64_rps']:,.0f} ({line['c64_p99_ms']:.1f})",
            _milliseconds(line.get("open200_p99_ms")),
            _milliseconds(line.get("open1000_p99_ms")),
            f"{line['cpu_us']:,.0f}",
            f"{line['start_s']:.1f}",
            f"{line['rss_mib']:.0f} ({line['processes']:g}; {line['largest_mib']:.0f})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _case(case: Results) -> list[str]:
    """A case's own table and targets."""
    closed = case["closed"]
    heads = [f"c={c} req/s (p50; p99 ms)" for c in closed]
    lines = [
        f"| server | {' | '.join(heads)} | CPU µs/req | MiB (processes; largest) |",
        f"|---|{'---|' * len(heads)}---|---|",
    ]
    for line in case["servers"]:
        cells = [f"{line['name']} ({line['package']} {line['version']})"]
        cells += [
            f"{line[f'c{c}_rps']:,.0f} ({line[f'c{c}_p50_ms']:.2f}; {line[f'c{c}_p99_ms']:.1f})" for c in closed
        ]
        cells.append(f"{line['cpu_us']:,.0f}")
        cells.append(f"{line['rss_mib']:.0f} ({line['processes']:g}; {line['largest_mib']:.0f})")
        lines.append(f"| {' | '.join(cells)} |")
    verdicts = _verdicts(case_targets(case))
    return [f"## {case['title']}", case["about"], "\n".join(lines), _skipped(case), verdicts]


def case_targets(case: Results) -> list[tuple[str, str, bool | None]]:
    """A case's targets, as `targets` gives those of the rows."""
    lines = {line["name"]: line for line in case["servers"]}
    peers = [line for line in case["servers"] if line["family"] == "peer"]
    best = max(peers, key=lambda line: line["c16_rps"], default=None)
    rows = []
    for name, least in case["targets"]:
        wanted = f"{name}: {least:g}× the best peer at 16 connections ({best['name'] if best else 'best peer'})"
        rows.append(_ratio(wanted, lines.get(name), best, 16, least))
    least = case["coalescing"]
    if least is not None:
        line = lines.get("Cloche")
        wanted = f"joined requests are {least:g}× as many as one by one"
        ratio = None if line is None else line["c16_rps"] / line["c1_rps"]
        rows.append((wanted, "–" if ratio is None else f"{ratio:.1f}×", None if ratio is None else ratio >= least))
    return rows


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _skipped(results: Results) -> str:
    lines = [f"- **{name}** is missing from this run: {why}" for name, why in results["skipped"].items()]
    return "\n".join(lines)


def _verdicts(rows: list[tuple[str, str, bool | None]]) -> str:
    lines = ["| target | measured | |", "|---|---|---|"]
    for target, measured, met in rows:
        verdict = "not measured" if met is None else "met" if met else "**not met**"
        lines.append(f"| {target} | {measured} | {verdict} |")
    return "\n".join(lines)


def targets(results: Results) -> list[tuple[str, str, bool | None]]:
    """Each target, what was measured, and whether it is met; None where a part of it was not measured."""
    families: dict[str, list[Line]] = {}
    for line in results["servers"]:
        families.setdefault(line["family"], []).append(line)
    cloche = next(iter(families.get("cloche", [])), None)
    echo = next(iter(families.get("limit", [])), None)
    triton = next(iter(families.get("triton", [])), None)
    peers = families.get("peer", [])
    rows = []
    for c in (16, 64):
        best = max(peers, key=lambda line: line[f"c{c}_rps"], default=None)
        name = best["name"] if best else "best peer"
        rows.append(
            _ratio(f"{OF_BEST_PEER:g}× the best peer at {c} connections ({name})", cloche, best, c, OF_BEST_PEER)
        )
        rows.append(_ratio(f"{OF_TRITON:g}× Triton at {c} connections", cloche, triton, c, OF_TRITON))
        rows.append(
            _ratio(f"{OF_ECHO:.0%} of the echo at {c} connections", cloche, echo, c, OF_ECHO, percent=True)
        )
    quickest = min(peers, key=lambda line: line["c1_p50_ms"], default=None)
    if cloche and quickest:
        ratio = quickest["c1_p50_ms"] / max(cloche["c1_p50_ms"], 1e-9)
        wanted = f"p50 at one connection {FASTER_P50:g}× lower than the best ({quickest['name']})"
        rows.append((wanted, f"{ratio:.1f}×", ratio >= FASTER_P50))
    rows.append(_open_loop(cloche, echo))
    if cloche:
        rows.append(
            (f"first answer within {START_S:g} s", f"{cloche['start_s']:.2f} s", cloche["start_s"] < START_S)
        )
        worker = cloche["largest_mib"]
        rows.append((f"a worker under {WORKER_MIB:g} MiB", f"{worker:.0f} MiB", worker < WORKER_MIB))
    if path := {line["part"]: line["rps"] for line in results["request_path"]}:
        cost = 1 - path["ids"] / path["bare"]
        wanted = f"validation, guard, metrics and ids cost at most {PATH_COST:.0%} of the bare path"
        rows.append((wanted, f"{cost:.0%}", cost <= PATH_COST))
    return rows


def _ratio(
    wanted: str, cloche: Line | None, other: Line | None, c: int, least: float, *, percent: bool = False
) -> tuple[str, str, bool | None]:
    if not cloche or not other:
        return wanted, "–", None
    ratio = cloche[f"c{c}_rps"] / other[f"c{c}_rps"]
    return wanted, f"{ratio:.0%}" if percent else f"{ratio:.1f}×", ratio >= least


def _open_loop(cloche: Line | None, echo: Line | None) -> tuple[str, str, bool | None]:
    wanted = f"p99 under {OPEN_P99_MS:g} ms at 1,000 req/s, where the echo's is under {OPEN_ECHO_MS:g} ms"
    ours = cloche.get("open1000_p99_ms") if cloche else None
    limit = echo.get("open1000_p99_ms") if echo else None
    if ours is None or limit is None:
        return wanted, "–", None
    measured = f"{ours:.1f} ms, echo {limit:.1f} ms"
    # where the machine itself is too noisy for the echo, the run says nothing about Cloche
    return wanted, measured, None if limit >= OPEN_ECHO_MS and ours >= OPEN_P99_MS else ours < OPEN_P99_MS


def _request_path(results: Results) -> list[str]:
    if not results["request_path"]:
        return []
    lines = ["| path | req/s | of the bare path | CPU µs/req | this part |", "|---|---|---|---|---|"]
    bare = before = results["request_path"][0]
    for line in results["request_path"]:
        shares = f"{line['rps']:,.0f} | {line['rps'] / bare['rps']:.0%}"
        cost = "" if line is bare else f"{line['cpu_us'] - before['cpu_us']:+.1f} µs"
        lines.append(f"| {line['name']} | {shares} | {line['cpu_us']:.1f} | {cost} |")
        before = line
    words = "At 16 connections, in short interleaved windows; each line has the parts of those above it."
    return ["## What each part of the request path costs", words, "\n".join(lines)]
