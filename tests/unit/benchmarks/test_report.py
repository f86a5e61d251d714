"""The benchmark's page says met only of what was measured and met."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

_SPEC = importlib.util.spec_from_file_location("report", Path(__file__).parents[3] / "benchmarks" / "report.py")
assert _SPEC is not None and _SPEC.loader is not None
report = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(report)


def line(family: str, rps: float, **others: float) -> dict[str, Any]:
    return {
        "name": family,
        "family": family,
        "package": family,
        "version": "1",
        "c1_rps": rps,
        "c16_rps": rps,
        "c64_rps": rps,
        "c1_p50_ms": 1000 / rps,
        "c16_p99_ms": 1.0,
        "c64_p99_ms": 1.0,
        "cpu_us": 1.0,
        "start_s": 1.0,
        "rss_mib": 100.0,
        "largest_mib": 90.0,
        "processes": 1,
        **others,
    }


def results(*servers: dict[str, Any], path: tuple[float, float] | None = None, **skipped: str) -> dict[str, Any]:
    parts = [
        {"part": p, "name": p, "rps": r, "cpu_us": 1e6 / r}
        for p, r in zip(("bare", "ids"), path or (), strict=False)
    ]
    return {
        "date": "2026-01-01",
        "machine": "one",
        "python": "3.11",
        "rounds": 3,
        "seconds": 1,
        "servers": list(servers),
        "skipped": skipped,
        "request_path": parts,
        "cases": [],
    }


def verdicts(found: dict[str, Any]) -> dict[str, bool | None]:
    return {target: met for target, _, met in report.targets(found)}


def test_cloche_must_be_eight_times_the_best_peer_and_not_the_mean() -> None:
    servers = [line("peer", 1000), line("peer", 1200)]
    good = verdicts(results(line("cloche", 9601), *servers))
    bad = verdicts(results(line("cloche", 9599), *servers))
    assert good["8× the best peer at 16 connections (peer)"] is True
    assert bad["8× the best peer at 16 connections (peer)"] is False


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    found = verdicts(results(line("cloche", 9000)))
    assert found["4× Triton at 16 connections"] is None
    assert found["35% of the echo at 64 connections"] is None


@pytest.mark.parametrize(
    ("ours", "echo", "met"),
    [
        (4.9, 2.9, True),
        (5.1, 2.9, False),  # the machine was quiet enough
        (5.1, 3.1, None),  # it was not
        (4.9, 3.1, True),
    ],
)
def test_the_open_loop_judges_only_where_the_machine_lets_the_echo_pass(
    ours: float, echo: float, met: bool | None
) -> None:
    servers = [line("cloche", 9000, open1000_p99_ms=ours), line("limit", 20000, open1000_p99_ms=echo)]
    found = verdicts(results(*servers))
    assert found["p99 under 5 ms at 1,000 req/s, where the echo's is under 3 ms"] is met


def test_the_cost_of_the_request_path_is_of_the_bare_path() -> None:
    wanted = "validation, guard, metrics and ids cost at most 25% of the bare path"
    assert verdicts(results(line("cloche", 1), path=(1000, 751)))[wanted] is True
    assert verdicts(results(line("cloche", 1), path=(1000, 749)))[wanted] is False


def test_a_server_that_was_left_out_is_named_with_its_reason() -> None:
    page = report.page(results(line("cloche", 9000), Triton="no wheel for this Python"))
    assert "**Triton** is missing from this run: no wheel for this Python" in page


def test_a_case_has_its_own_table_and_targets() -> None:
    peers = [line("peer", 100), line("hand", 900)]
    ours = [{**line("cloche", rps), "name": name} for name, rps in (("Cloche", 120), ("Cloche, binary", 999))]
    case = {
        "title": "Images",
        "about": "of cats",
        "closed": [1, 16],
        "targets": [("Cloche", 1.0), ("Cloche, binary", 10.0), ("Cloche, gone", 1.0)],
        "coalescing": 1.5,
        "servers": [*(each | {"c16_p50_ms": 1.0, "c1_p99_ms": 1.0} for each in (*peers, *ours))],
        "skipped": {},
    }
    met = [verdict for _, _, verdict in report.case_targets(case)]
    assert met == [True, False, None, False], "what was made by hand is no peer; 120 are not 1.5 times 120"
    page = report.page({**results(line("cloche", 9000)), "cases": [case]})
    assert "## Images" in page and "| Cloche, binary (cloche 1) | 999 (1.00; 1.0) |" in page
