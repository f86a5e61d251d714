"""A good version goes out under load, a bad one comes back by itself:  python examples/rollout/run.py

A shop predicts which orders come back, from the product and the price. Version 2 is trained on newer orders.
Version 3 was exported with an older catalogue: it has never heard of the newest fifth of the products, and its own
test data has none of them either.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

import cloche

HERE = Path(__file__).resolve().parent
PORT = int(os.environ.get("PORT", "8080"))
CLOCHE = [str(Path(sys.executable).with_name("cloche")), "-C", str(HERE)]
PRODUCTS, OLDER = 1000, 800


def main() -> int:
    """Run the example; 0 when the good version was promoted and the bad one taken back."""
    shutil.rmtree(HERE / ".cloche", ignore_errors=True)
    for number, (seed, catalogue) in enumerate(((1, PRODUCTS), (2, PRODUCTS), (3, OLDER)), 1):
        print(f"packing returns:{number}", flush=True)
        pack_a_model(seed, catalogue)
    server = subprocess.Popen([*CLOCHE, "up", "--port", str(PORT), "--json"], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        if not server.stdout.readline():
            return server.wait()
        callers = Callers()
        print("\n$ cloche deploy returns:2 --wait", flush=True)
        good = subprocess.run([*CLOCHE, "deploy", "returns:2", "--wait"], check=False).returncode
        print("\n$ cloche deploy returns:3 --wait", flush=True)
        bad = subprocess.run([*CLOCHE, "deploy", "returns:3", "--wait"], check=False).returncode
        time.sleep(1)
        callers.stop()
        print(f"\nanswers by version: {dict(sorted(callers.models.items()))}; failed: {callers.failed}")
        print("\n$ cloche history returns", flush=True)
        subprocess.run([*CLOCHE, "history", "returns"], check=True)
        return 0 if (good, bad) == (0, 1) else 1
    finally:
        server.terminate()
        server.wait()


def pack_a_model(seed: int, catalogue: int) -> None:
    """Fit one number a product and one for the price, by least squares, and register the next version."""
    rng = np.random.default_rng(seed)
    product = rng.integers(0, catalogue, 40_000)
    price = rng.lognormal(3, 1, len(product)).astype(np.float32)
    truth = (
        np.random.default_rng(0).normal(0, 1, PRODUCTS)[product] + 0.01 * price + rng.normal(0, 1, len(product))
    )
    sums = np.bincount(product, truth - 0.01 * price, catalogue)
    table = (sums / np.maximum(np.bincount(product, minlength=catalogue), 1)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "product"], ["taste"]),
        helper.make_node("Mul", ["price", "rate"], ["cost"]),
        helper.make_node("Add", ["taste", "cost"], ["value"]),
    ]
    graph = helper.make_graph(
        nodes,
        "returns",
        [
            helper.make_tensor_value_info("product", onnx.TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("price", onnx.TensorProto.FLOAT, ["rows"]),
        ],
        [helper.make_tensor_value_info("value", onnx.TensorProto.FLOAT, ["rows"])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.float32(0.01), "rate")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    file = HERE / "returns.onnx"
    onnx.save(model, file)
    held_out = {"product": product[:500], "price": price[:500]}
    cloche.pack(file, held_out, truth[:500], name="returns", directory=HERE)
    file.unlink()


class Callers:
    """Callers ask 200 times a second, from four threads, until they are told to stop."""

    def __init__(self) -> None:
        self.models: Counter[str] = Counter()
        self.failed = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(seed,), daemon=True) for seed in range(4)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, seed: int) -> None:
        draw = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
        while not self._stop.wait(0.02):
            row = {"product": draw.randrange(PRODUCTS), "price": round(draw.lognormvariate(3, 1), 2)}
            connection.request("POST", "/predict/returns", json.dumps(row), {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            self.models[answer.headers["cloche-model"]] += 1
            self.failed += answer.status != 200
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
