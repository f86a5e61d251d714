"""Releases of one small model, good and bad ones, and callers who go on asking while they go out."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tests.journeys.serving import Threads

from cloche.app.local import pack_into
from cloche.app.project import open_project

FLOAT = onnx.TensorProto.FLOAT


def release(
    folder: Path, kind: str, factor: float = 2.0, *, share: float = 0.2, work: int = 700, name: str = "toy"
) -> int:
    """Pack and register a version that answers `factor` times the sum of `x`; its number.

    `kind` is good, "large" (good, and two megabytes), "huge" (good, and forty), "slow" (good, and some
    milliseconds a call, or more by its `work`), or "fails" or "nan" on a share of the rows that `Callers` send.
    Its own examples have none of them, so that nothing is seen before it has callers.
    """
    limit = 1.0 - share
    nodes = [helper.make_node("MatMul", ["x", "weights"], ["sum"])]
    constants = [numpy_helper.from_array(np.full((2, 1), factor, np.float32), "weights")]
    if kind in ("large", "huge"):
        numbers = 500_000 if kind == "large" else 10_000_000
        constants.append(numpy_helper.from_array(np.zeros(numbers, np.float32), "ballast"))
        nodes.append(helper.make_node("ReduceSum", ["ballast"], ["nothing"], keepdims=0))
        nodes.append(helper.make_node("Add", ["sum", "nothing"], ["value"]))
    elif kind == "slow":  # good, and some milliseconds a call
        constants.append(numpy_helper.from_array(np.zeros((work, work), np.float32), "zeros"))
        nodes += [
            helper.make_node("ReduceSum", ["x"], ["all"], keepdims=0),
            helper.make_node("Mul", ["zeros", "all"], ["square"]),
            helper.make_node("MatMul", ["square", "square"], ["work"]),
            helper.make_node("ReduceSum", ["work"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["sum", "nothing"], ["value"]),
        ]
    elif kind == "good":
        nodes.append(helper.make_node("Identity", ["sum"], ["value"]))
    else:
        nodes += [
            helper.make_node("Slice", ["x", "zero", "one", "one"], ["first"]),
            helper.make_node("Greater", ["first", "limit"], ["is_above"]),
            helper.make_node("Cast", ["is_above"], ["place"], to=onnx.TensorProto.INT64),
            helper.make_node("Gather", ["looked_in", "place"], ["looked_up"], axis=0),
            helper.make_node("Add", ["sum", "looked_up"], ["value"]),
        ]
        # place 1 is not there, or holds no number
        looked_in = [0.0] if kind == "fails" else [0.0, np.nan]
        constants += [
            numpy_helper.from_array(np.array([0]), "zero"),
            numpy_helper.from_array(np.array([1]), "one"),
            numpy_helper.from_array(np.array(limit, np.float32), "limit"),
            numpy_helper.from_array(np.array(looked_in, np.float32), "looked_in"),
        ]
    graph = helper.make_graph(
        nodes, kind,
        [helper.make_tensor_value_info("x", FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("value", FLOAT, ["rows", 1])],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path = folder / f"{kind}-{factor:g}.onnx"
    path.write_bytes(model.SerializeToString())
    rows = np.random.default_rng(0).uniform(limit - 0.8, limit, (100, 2)).astype(np.float32)
    return packed(folder, str(path), {"x": rows}, name)


_CLASS = """
import os, signal, time

class Release:
    def load(self):
        self.eaten = []

    def eat(self):
        self.eaten.append(bytearray(b"x") * (32 << 20))
        if len(self.eaten) == 8:  # as the kernel does, long before the machine has none left
            os.kill(os.getpid(), signal.SIGKILL)

    def predict(self, x: list[float]) -> list[float]:
        time.sleep({seconds})
        if max(x) > 0.0:
            {act}
        return [{factor} * one for one in x]
"""
_ACTS = {
    "good": "pass",
    "blocks": "time.sleep(2)",
    "dies": "os.kill(os.getpid(), signal.SIGSEGV)",
    "eats": "self.eat()",
    "raises": "raise ValueError('no')",
}


def release_class(
    folder: Path, kind: str, factor: float = 2.0, *, seconds: float = 0.0, name: str = "task"
) -> int:
    """Pack and register a version that is Python code and takes so many seconds a call; its number.

    `kind` is good; or what it does for whoever sends a number above 0: blocks (2 s), dies, raises,
    or eats 32 MB more, up to 256, at which it is killed.
    """
    path = folder / f"{kind}_{factor:g}_{seconds * 1000:g}.py".replace("-", "_")
    path.write_text(_CLASS.format(seconds=seconds, act=_ACTS[kind], factor=factor))
    return packed(folder, f"{path}:Release", {"x": np.linspace(-1.0, 0.0, 20)}, name)


def packed(folder: Path, model: str, rows: dict[str, Any], name: str) -> int:
    """Pack and register a model; the number of its version."""
    with open_project(folder) as project:
        bundle = pack_into(project, model, rows, None, name=name)
        assert bundle.reference is not None
        return int(bundle.reference.rpartition(":")[2])


class Said(NamedTuple):
    """A Said is one answer: when it was there, its status, who gave it, who asked, and after how many seconds."""

    at: float
    status: int
    model: str
    caller: str
    seconds: float


class Callers(Threads):
    """Callers ask a deployment so many times a second until they are told to stop.

    Each number of a row is drawn from 0 to 1; `numbers` are in a row, 0 for one that is no array. Connections are
    kept alive, but for those of every second caller where `fresh`. A status of 0 is a request that got no answer,
    also when it was sent once more, where `again`.
    """

    def __init__(
        self,
        url: str,
        *,
        rate: float,
        threads: int = 4,
        name: str = "toy",
        numbers: int = 2,
        fresh: bool = False,
        again: bool = False,
    ) -> None:
        self.said: list[Said] = []
        self.retried = 0
        self._address = urlsplit(url)
        self._path = f"/predict/{name}"
        self._numbers = numbers
        self._fresh = fresh
        self._again = again
        self._gap_s = threads / rate
        super().__init__(threads)

    def failed(self) -> list[Said]:
        return [one for one in self.said if one.status != 200]

    def models(self, since: float = 0.0) -> Counter[str]:
        """How many answers each version gave."""
        return Counter(one.model for one in self.said if one.at >= since)

    def _ask(self, seed: int) -> None:
        draw = random.Random(seed)
        connection: http.client.HTTPConnection | None = None
        due = time.monotonic() + draw.random() * self._gap_s
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += self._gap_s
            caller = f"user-{draw.randrange(1000)}"
            numbers = [draw.random() for _ in range(self._numbers)]
            body = json.dumps({"x": numbers or draw.random()})
            began = time.monotonic()
            status, model, connection = self._send(connection, body, caller)
            if status == 0 and self._again:
                self.retried += 1
                status, model, connection = self._send(connection, body, caller)
            if connection is not None and self._fresh and seed % 2:
                connection.close()
                connection = None
            now = time.monotonic()
            self.said.append(Said(now, status, model, caller, now - began))
        if connection is not None:
            connection.close()

    def _send(
        self, connection: http.client.HTTPConnection | None, body: str, caller: str
    ) -> tuple[int, str, http.client.HTTPConnection | None]:
        """Ask once: the status, who answered, and the connection where it stays."""
        headers = {"content-type": "application/json", "x-user-id": caller}
        host, port = str(self._address.hostname), self._address.port
        connection = connection or http.client.HTTPConnection(host, port, timeout=10)
        try:
            connection.request("POST", self._path, body, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return 0, "", None
        model = answer.headers.get("cloche-model", "")
        if answer.headers.get("connection") == "close":
            connection.close()
            return answer.status, model, None
        return answer.status, model, connection


def history(folder: Path, cloche: Any, name: str = "toy") -> list[dict[str, Any]]:
    """What `cloche history` says of a deployment."""
    items: list[dict[str, Any]] = json.loads(cloche(folder, "history", name, "--json").stdout)["items"]
    return items
