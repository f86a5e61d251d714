"""Processes die and drain under load, and nobody who asked is left without an answer."""

from __future__ import annotations

import os
import signal
import tarfile
from pathlib import Path
from typing import Any

from tests.journeys.serving import Load, again, until, up
from tests.journeys.serving import cloche as command


def lost(result: dict[str, Any]) -> int:
    return int(result["non_2xx"] + result["resets"] + result["timeouts"])


def test_sigterm_under_load_loses_nothing(shop: Path, customer: dict[str, Any]) -> None:
    with up(shop, "churn", "--workers", "2") as serving:
        load = Load(serving, "/predict/churn", customer, "--connections", "16", "--duration", "4")
        until(lambda: serving.metric("cloche_requests_total", code="200") > 500, "the load is on")
        assert serving.stop(signal.SIGTERM) == 143
    result = load.result()
    assert result["requests"] > 500
    assert lost(result) == 0, result
    assert result["refused"] > 0, "the server went away while the load was still on"


def test_a_killed_worker_is_replaced_and_no_metric_goes_back(shop: Path, customer: dict[str, Any]) -> None:
    with up(shop, "churn", "--workers", "2") as serving:
        load = Load(serving, "/predict/churn", customer, "--connections", "8", "--duration", "6")
        until(lambda: serving.metric("cloche_requests_total", code="200") > 500, "the load is on")
        first = set(serving.children()["worker"])
        victim = min(first)
        before = serving.metric("cloche_requests_total")
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(set(serving.children()["worker"]) - {victim}) == 2, "a worker takes its place")
        until(lambda: serving.metric("cloche_worker_restarts_total") >= 1, "the restart is counted")
        assert serving.metric("cloche_requests_total") >= before
        result = load.result()
        assert result["non_2xx"] == result["timeouts"] == result["refused"] == 0, result
        assert result["resets"] <= 8, "at most what was in flight in the one that died"
        assert serving.metric("cloche_requests_total", code="200") >= result["requests"] - result["resets"]


def test_serving_outlives_its_supervisor_and_the_next_one_adopts(shop: Path, customer: dict[str, Any]) -> None:
    with up(shop, "churn", "--workers", "2") as serving:
        workers = set(serving.children()["worker"])
        serving.process.kill()
        serving.process.wait()
        assert serving.ask("/predict/churn", customer).status == 200
        again(serving, "churn", "--workers", "2")
        assert set(serving.children()["worker"]) == workers
        victim = min(workers)
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(set(serving.children()["worker"]) - {victim}) == 2, "a worker takes its place")
        assert serving.ask("/predict/churn", customer).status == 200
        assert serving.stop() == 143
        assert not serving.children()["worker"]


def test_ctrl_c_leaves_no_process(shop: Path) -> None:
    with up(shop, "churn", "--workers", "2") as serving:
        assert serving.stop(signal.SIGINT) == 130
        assert not any(serving.children().values())


def test_a_flipped_byte_is_refused_by_name(shop: Path, tmp_path: Path) -> None:
    archive = tmp_path / "churn.cloche"
    command(shop, "export", "churn:1", str(archive))
    whole = archive.read_bytes()
    with tarfile.open(archive) as files:
        at = files.getmember("model/model.onnx").offset_data + 2000
    archive.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    done = command(shop, "verify", str(archive), check=False)
    assert done.returncode == 4
    assert "model/model.onnx" in done.stderr
