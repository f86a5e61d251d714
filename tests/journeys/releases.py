"""Releases of one small model, good and bad ones, and callers who go on asking while they go out."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cloche.app.local import pack_into
from cloche.app.project import open_project

FLOAT = onnx.TensorProto.FLOAT


def release(folder: Path, kind: str, factor: float = 2.0, name: str = "toy") -> int:
    """Pack and register a version that answers `factor` times the sum of `x`; its number.

    `kind` is good; "fails" (on the rows whose first number is above 0.8, which its examples don't have);
    or "slow" (some milliseconds a call).
    """
    nodes = [helper.make_node("MatMul", ["x", "weights"], ["sum"])]
    constants = [numpy_helper.from_array(np.full((2, 1), factor, np.float32), "weights")]
    if kind == "fails":
        nodes += [
            helper.make_node("Slice", ["x", "zero", "one", "one"], ["first"]),
            helper.make_node("Greater", ["first", "limit"], ["is_above"]),
            helper.make_node("Cast", ["is_above"], ["place"], to=onnx.TensorProto.INT64),
            helper.make_node("Gather", ["nought", "place"], ["looked_up"], axis=0),
            helper.make_node("Add", ["sum", "looked_up"], ["value"]),
        ]
        constants += [
            numpy_helper.from_array(np.array([0]), "zero"),
            numpy_helper.from_array(np.array([1]), "one"),
            numpy_helper.from_array(np.array(0.8, np.float32), "limit"),
            numpy_helper.from_array(np.zeros(1, np.float32), "nought"),
        ]
    elif kind == "slow":
        size = 700
        nodes += [
            helper.make_node("MatMul", ["large", "large"], ["work"]),
            helper.make_node("ReduceSum", ["work"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["sum", "nothing"], ["value"]),
        ]
        nodes[1:1] = [
            helper.make_node("ReduceSum", ["x"], ["all"], keepdims=0),
            helper.make_node("Mul", ["zeros", "all"], ["large"]),
        ]
        constants.append(numpy_helper.from_array(np.zeros((size, size), np.float32), "zeros"))
    else:
        nodes.append(helper.make_node("Identity", ["sum"], ["value"]))
    graph = helper.make_graph(
        nodes, kind,
        [helper.make_tensor_value_info("x", FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("value", FLOAT, ["rows", 1])],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path = folder / f"{kind}-{factor:g}.onnx"
    path.write_bytes(model.SerializeToString())
    rows = np.random.default_rng(0).uniform(0.0, 0.8, (100, 2)).astype(np.float32)
    with open_project(folder) as project:
        bundle = pack_into(project, path, {"x": rows}, None, name=name)
        assert bundle.reference is not None
        return int(bundle.reference.rpartition(":")[2])


class Said(NamedTuple):
    """A Said is one answer: when it was there, its status, who gave it, who asked, and after how many seconds."""

    at: float
    status: int
    model: str
    caller: str
    seconds: float


class Callers:
    """Callers ask `path` so many times a second over kept-alive connections until they are told to stop.

    Each number of a row is drawn from 0 to 1. A status of 0 is a request that got no answer.
    """

    def __init__(self, url: str, *, rate: float, threads: int = 4, path: str = "/predict/toy") -> None:
        self.said: list[Said] = []
        self._address = urlsplit(url)
        self._path = path
        self._gap_s = threads / rate
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(threads)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

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
            body = json.dumps({"x": [draw.random(), draw.random()]})
            headers = {"content-type": "application/json", "x-user-id": caller}
            began = time.monotonic()
            status, model = 0, ""
            try:
                connection = connection or http.client.HTTPConnection(
                    str(self._address.hostname), self._address.port, timeout=10
                )
                connection.request("POST", self._path, body, headers)
                answer = connection.getresponse()
                answer.read()
                status, model = answer.status, answer.headers.get("cloche-model", "")
                keeps = answer.headers.get("connection") != "close"
            except (OSError, http.client.HTTPException):
                keeps = False
            if connection is not None and not keeps:
                connection.close()
                connection = None
            now = time.monotonic()
            self.said.append(Said(now, status, model, caller, now - began))
        if connection is not None:
            connection.close()


def history(folder: Path, cloche: Any, name: str = "toy") -> list[dict[str, Any]]:
    """What `cloche history` says of a deployment."""
    items: list[dict[str, Any]] = json.loads(cloche(folder, "history", name, "--json").stdout)["items"]
    return items
