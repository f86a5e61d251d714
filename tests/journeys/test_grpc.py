"""`cloche up` with gRPC: answers, refusals, and callers who notice neither a death nor another version."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.journeys.grpc_callers import GrpcCallers, address, method, row
from tests.journeys.releases import release
from tests.journeys.serving import Serving, cloche, until, up
from tests.journeys.test_tls import AUTHORITY, write_pair

from cloche.app.up import runtime_folder
from cloche.core import platform
from cloche.core.board import Board, Head, Role, State
from cloche.serving.grpc import messages as pb
from cloche.settings import load_settings

CONFIG = """
[serve]
workers = 2
grpc = 0

[online.toy]
model = "toy@champion"
rollout = { margin = "10%", ramp = "1s", bake = "1s", sticky = "x-user-id" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cloche.toml").write_text(CONFIG)
    assert release(tmp_path, "good") == 1
    return tmp_path


def ready(serving: Serving) -> list[int]:
    """The workers that answer."""
    board = Board(runtime_folder(load_settings(directory=serving.folder, environ=os.environ)) / "board")
    slots = [slot for slot in board.heads(Role.WORKER) if board.head(slot, Head.STATE) == State.READY]
    return [board.head(slot, Head.PID) for slot in slots if is_alive(board, slot)]


def is_alive(board: Board, slot: int) -> bool:
    return platform.is_alive(board.head(slot, Head.PID), board.head(slot, Head.START))


def test_a_model_is_asked_and_described(folder: Path) -> None:
    release(folder, "slow", name="slow")
    (folder / "cloche.toml").write_text(CONFIG + '[online.slow]\nmodel = "slow@champion"\n')
    with up(folder) as serving, grpc.insecure_channel(address(serving)) as channel:
        answer = method(channel, "ModelInfer", pb.ModelInferResponse)(row(id="mine"), timeout=5)
        assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [1.5]
        assert (answer.model_name, answer.model_version, answer.id) == ("toy", "1", "mine")
        over_http = serving.ask("/predict/toy", {"x": [0.25, 0.5]}).json()
        assert over_http["prediction"] == {"value": 1.5}
        model = method(channel, "ModelMetadata", pb.ModelMetadataResponse)(pb.ModelMetadataRequest(name="toy"))
        assert [(field.name, list(field.shape)) for field in model.inputs] == [("x", [-1, 2])]
        infer = method(channel, "ModelInfer", pb.ModelInferResponse)
        with pytest.raises(grpc.RpcError) as raised:
            infer(row("INT64"), timeout=5)
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "input `x`" in raised.value.details()
        with pytest.raises(grpc.RpcError) as raised:
            infer(row(model_name="slow"), timeout=0.002)
        # it is known beforehand that the model takes longer, or the client gives up first
        assert raised.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert serving.metric("cloche_requests_total", deployment="slow", code="200") == 0
        assert serving.metric("cloche_requests_total", deployment="toy", dialect="grpc", code="200") == 1
        assert serving.metric("cloche_requests_total", dialect="grpc", code="400") == 1
        assert serving.stop() == 143


def test_keys_are_needed_where_the_deployment_says_so(folder: Path) -> None:
    (folder / "cloche.toml").write_text(CONFIG + "access = { keys = true }\n")
    key = json.loads(cloche(folder, "keys", "create", "mobile", "--json").stdout)["key"]
    with up(folder) as serving, grpc.insecure_channel(address(serving)) as channel:
        infer = method(channel, "ModelInfer", pb.ModelInferResponse)
        with pytest.raises(grpc.RpcError) as raised:
            infer(row(), timeout=5)
        assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert infer(row(), timeout=5, metadata=[("authorization", f"Bearer {key}")]).model_version == "1"


def test_a_workers_death_is_not_noticed_by_who_tries_once_more(folder: Path) -> None:
    with up(folder) as serving, GrpcCallers(address(serving)) as callers:
        for _ in range(3):
            until(lambda: len(ready(serving)) == 2)
            victim = min(ready(serving))  # who has been there for longest has the connections
            os.kill(victim, signal.SIGKILL)
            until(lambda victim=victim: victim not in ready(serving))
            # who is hit by the next death as well, while it tries once more, may fail
            before = list(callers.answers)
            until(lambda before=before: all(n > m + 5 for n, m in zip(callers.answers, before, strict=True)))
    assert not callers.failed, callers.failed[:3]
    assert callers.retried, "nobody was hit"
    assert callers.models["toy:1"] > 150


def test_a_replaced_worker_loses_no_call(folder: Path) -> None:
    with up(folder) as serving, GrpcCallers(address(serving), threads=8) as callers:
        for _ in range(3):
            until(lambda: len(ready(serving)) == 2)
            leaver = ready(serving)[0]
            os.kill(leaver, signal.SIGTERM)
            until(lambda leaver=leaver: leaver not in serving.standing("worker"))
        before = sum(callers.models.values())
        until(lambda: sum(callers.models.values()) > before + 50)
    assert not callers.failed, callers.failed[:3]
    assert not callers.retried, callers.retried


def test_another_version_goes_out_under_load(folder: Path) -> None:
    release(folder, "good", 3.0)
    with up(folder) as serving, GrpcCallers(address(serving)) as callers:
        sent = cloche(folder, "deploy", "toy:2", "--steps", "50%, 100%", "--wait", "--timeout", "2m")
        assert "promoted" in sent.stdout
        time.sleep(0.5)
        callers.models.clear()
        until(lambda: sum(callers.models.values()) > 50)
        assert set(callers.models) == {"toy:2"}
    assert callers.flipped == 0
    assert not callers.failed, callers.failed[:3]
    assert not callers.retried, callers.retried


def test_tls_is_spoken_with_the_same_certificate(folder: Path) -> None:
    write_pair(folder)
    text = CONFIG.replace("grpc = 0", 'grpc = 0\ntls = { cert = "cert.pem", key = "key.pem" }')
    (folder / "cloche.toml").write_text(text)
    roots = AUTHORITY.cert_pem.bytes()
    credentials = grpc.ssl_channel_credentials(roots)
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    with up(folder, context=context) as serving, GrpcCallers(address(serving), 2, credentials) as callers:
        until(lambda: sum(callers.models.values()) > 20)
        write_pair(folder)
        leaver = serving.standing("worker")[0]
        os.kill(leaver, signal.SIGTERM)
        until(lambda: leaver not in serving.standing("worker"))
    assert not callers.failed, callers.failed[:3]


def test_without_the_extra_nothing_starts(folder: Path) -> None:
    hidden = folder / "hidden" / "h2"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'h2'\", name='h2')\n")
    path = os.pathsep.join([str(hidden.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = cloche(folder, "up", check=False, env={"PYTHONPATH": path})
    assert done.returncode != 0
    assert "gRPC needs h2" in done.stderr
    assert 'pip install "cloche[grpc]"' in done.stderr
    shutil.rmtree(hidden)
