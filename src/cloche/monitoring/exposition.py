"""The board as Prometheus text; prometheus-client writes the format, this sums the slots of all processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from cloche.core.board import Board, Head, Role, State

#: Every metric: name -> (help, labels). The reference page of the docs is checked against it.
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cloche_requests_total": (
        "Requests answered, by HTTP code.",
        ("deployment", "version", "dialect", "code"),
    ),
    "cloche_errors_total": (
        "Requests answered with an error, by its code.",
        ("deployment", "version", "reason"),
    ),
    "cloche_flagged_values_total": (
        "Values answered although odd (on_invalid = flag).",
        ("deployment", "version"),
    ),
    "cloche_shed_total": ("Requests that were not run.", ("deployment", "version", "reason")),
    "cloche_cache_hits_total": ("Answers from the cache.", ("deployment", "version")),
    "cloche_cache_misses_total": ("Cache look-ups that found nothing.", ("deployment", "version")),
    "cloche_refused_total": ("Requests refused before they reached a model, by error code.", ("reason",)),
    "cloche_worker_restarts_total": ("Processes that were replaced.", ("kind",)),
    "cloche_rollout_requests_total": (
        "Requests of a rollout by the version that they had been assigned to, good or bad.",
        ("deployment", "version", "arm", "outcome"),
    ),
    "cloche_rollout_repeats_total": (
        "Of these, what said nothing new of its caller: the sticky header tells callers apart.",
        ("deployment", "version", "arm", "outcome"),
    ),
    "cloche_rollout_one_caller_total": (
        "Bad answers beyond the first of the caller with most of them, summed over workers.",
        ("deployment", "version", "arm"),
    ),
    "cloche_rollout_late_total": (
        "Requests of a rollout that took longer than nearly all of stable's used to.",
        ("deployment", "version", "arm"),
    ),
    "cloche_rollout_timed_repeats_total": (
        "Requests that said nothing new of how long their callers wait: any, and the late ones of them.",
        ("deployment", "version", "arm", "outcome"),
    ),
    "cloche_trial_sums": (
        "Sums of an A/B trial's metrics in millionths, by arm.",
        ("deployment", "version", "arm", "metric", "stat", "trial"),
    ),
    "cloche_blamed_deaths_total": (
        "Processes that ended while they ran or loaded a version, by the hash of its labels.",
        ("executing",),
    ),
}
HISTOGRAMS: dict[str, str] = {
    "cloche_request_duration_seconds": "From the request read (a large one: its head) to its answer made.",
    "cloche_queue_seconds": "From validation to the start of the batch.",
    "cloche_inference_seconds": "One call of the model, for a batch.",
    "cloche_batch_size": "Rows of one call of the model.",
}
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "cloche_inflight": ("Requests being answered now.", ()),
    "cloche_connections": ("Open client connections.", ()),
    "cloche_processes": ("Live processes by role and state.", ("role", "state")),
    "cloche_workers_desired": ("How many workers there should be, by cloche.toml, the load or a person.", ()),
}
_VERSION_LABELS = ("deployment", "version")


class BoardCollector:
    """A BoardCollector reads the whole board at each scrape: any worker gives the machine's figures."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        by_name: dict[str, list[tuple[dict[str, str], int]]] = defaultdict(list)
        for labels, value in self._board.labelled():
            by_name[labels["name"]].append((labels, value))
        for name, (text, label_names) in COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=label_names)
            for labels, value in by_name[name]:
                counter.add_metric([labels[label] for label in label_names], value)
            yield counter
        for name, text in HISTOGRAMS.items():
            yield _histogram(name, text, by_name[name])
        yield from self._gauges()

    def _gauges(self) -> Iterator[Metric]:
        board = self._board
        live = [slot for role in (Role.WORKER, Role.HOST) for slot in board.heads(role) if board.is_beating(slot)]
        states: dict[tuple[str, ...], int] = defaultdict(int)
        for slot in live:
            role, state = Role(board.head(slot, Head.ROLE)), State(board.head(slot, Head.STATE))
            states[role.name.lower(), state.name.lower()] += 1
        values: dict[str, dict[tuple[str, ...], int]] = {
            "cloche_inflight": {(): sum(board.head(slot, Head.IN_FLIGHT) for slot in live)},
            "cloche_connections": {(): sum(board.head(slot, Head.CONNECTIONS) for slot in live)},
            "cloche_processes": states,
            "cloche_workers_desired": {
                (): max((board.head(slot, Head.DESIRED) for slot in board.heads(Role.CONTROLLER)), default=0)
            },
        }
        for name, (text, label_names) in GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=label_names)
            for key, value in values[name].items():
                gauge.add_metric(key, value)
            yield gauge


def _histogram(name: str, text: str, series: list[tuple[dict[str, str], int]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=_VERSION_LABELS)
    buckets: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    sums: dict[tuple[str, ...], float] = {}
    for labels, value in series:
        key = tuple(labels[label] for label in _VERSION_LABELS)
        if "le" in labels:
            buckets[key][labels["le"]] = value
        else:
            sums[key] = value / int(labels["sum"])
    for key, counts in buckets.items():
        total = 0
        cumulative = []
        for le in sorted(counts, key=float):
            total += counts[le]
            cumulative.append((le, total))
        family.add_metric(key, cumulative, sums.get(key, 0.0))
    return family


def render(board: Board, accept: str) -> tuple[bytes, str]:
    """The exposition and its media type, Prometheus text or OpenMetrics as `accept` asks."""
    registry = CollectorRegistry(auto_describe=False)
    collector: Any = BoardCollector(board)
    registry.register(collector)
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type
