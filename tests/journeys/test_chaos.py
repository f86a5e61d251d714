"""Drills: processes die in random order under load, and the server is stopped again and again under load."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.serving import Load, Serving, again, until, up

pytestmark = pytest.mark.heavy
_SECONDS = float(os.environ.get("CHAOS_SECONDS", "60"))
_STOPS = int(os.environ.get("CHAOS_STOPS", "20"))


def _total(serving: Serving) -> float:
    for _ in range(20):  # the worker that is asked may be the one that was killed
        with contextlib.suppress(OSError):
            return serving.metric("cloche_requests_total")
        time.sleep(0.05)
    raise AssertionError("no worker tells its metrics")


@pytest.mark.parametrize("kind", ["pipeline", "class"])
def test_processes_are_killed_in_random_order(
    kind: str, shop: Path, texts: Path, customer: dict[str, Any]
) -> None:
    folder, name, body = shop, "churn", customer
    if kind == "class":
        folder, name, body = texts, "mood", {"text": "a good day"}
    arguments = (name, "--workers", "2", *(["--allow-code"] if kind == "class" else []))
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    with up(folder, *arguments) as serving:
        load = Load(
            serving, f"/predict/{name}", body, "--connections", "8", "--rate", "200", "--duration", str(_SECONDS)
        )
        ends = time.monotonic() + _SECONDS - 5
        kills: list[str] = []
        seen = 0.0
        while time.monotonic() < ends:
            time.sleep(dice.uniform(0.2, 1.5))
            choices = ["worker", "worker", "supervisor", *(["host", "host"] if kind == "class" else [])]
            what = dice.choice(choices)
            if what == "supervisor":
                serving.process.kill()
                serving.process.wait()
                # one dies while nobody watches; were it the last that holds the sockets, they would be gone
                if dice.random() < 0.5 and len(workers := serving.standing("worker")) > 1:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(dice.choice(workers), signal.SIGKILL)
                again(serving, *arguments)
            elif pids := serving.children()[what]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(dice.choice(pids), signal.SIGKILL)
            kills.append(what)
            now = _total(serving)
            assert now >= seen, f"the metrics went back from {seen} to {now}; seed {seed}, {kills}"
            seen = now
        result = load.result()
        print(f"seed {seed}, {len(kills)} kills, {result}")
        # what was in flight in a process that died is lost, and nothing else
        assert result["refused"] == 0, (seed, kills, result)
        assert result["timeouts"] == 0, (seed, kills, result)
        assert result["non_2xx"] + result["resets"] <= 8 * len(kills), (seed, kills, result)
        wanted = {"worker": 2, "host": 2 if kind == "class" else 0, "controller": 1}
        until(lambda: {k: len(v) for k, v in serving.children().items()} == wanted, "all seats are taken", 20)
        assert serving.ask(f"/predict/{name}", body).status == 200
        assert serving.stop() == 143
        assert serving.children() == {"worker": [], "host": [], "controller": []}


def test_sigterm_under_load_again_and_again_loses_nothing(shop: Path, customer: dict[str, Any]) -> None:
    (shop / "cloche.toml").write_text('version = 1\n[serve]\nlame_duck = "1s"\n')
    lost = []
    try:
        for _ in range(_STOPS):
            with up(shop, "churn", "--workers", "2") as serving:
                load = Load(serving, "/predict/churn", customer, "--connections", "16", "--duration", "3")
                until(lambda: serving.metric("cloche_requests_total", code="200") > 200, "the load is on")
                assert serving.stop(signal.SIGTERM) == 143
            result = load.result()
            assert result["refused"] > 0, "the server went away while the load was still on"
            lost.append(result["non_2xx"] + result["resets"] + result["timeouts"])
    finally:
        (shop / "cloche.toml").unlink()
    print(lost)
    assert sum(lost) == 0, lost
