"""A drill of overload: up to ten times what a model can carry, and how soon all is well again after it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from drill import Drill, Row, drill
from onnx import helper, numpy_helper
from tests.journeys.releases import Callers, packed
from tests.journeys.serving import Load, until

CONFIG = """
[serve]
workers = 1
allow_code = true
[online.toy]
model = "toy@champion"
[online.code]
model = "code@champion"
deadline = "500ms"
[online.layers]
model = "layers@champion"
deadline = "1s"
"""
_CODE = """
import time

class Code:
    def load(self):
        pass

    def predict(self, x: list[float]) -> list[float]:
        time.sleep(0.005 * len(x))
        return x
"""
#: Multiples of what is answered when each caller waits for its answer.
_RATES = (0.7, 1.0, 1.3, 2.0, 5.0, 10.0)
_WIDTH, _LAYERS = 512, 800
_MODELS = {
    "code": ("Python code in a host, 5 ms a row", {"x": 0.5}),
    "layers": (f"{_LAYERS} dense layers of {_WIDTH} in the worker", {"x": [0.5, 0.25]}),
}


def overload(scale: float) -> list[Row]:
    """Two models, each asked for more and more, up to ten times what it can carry."""
    with drill(CONFIG, scale, versions=1, prepare=_models) as one:
        return [row for name, (words, body) in _MODELS.items() for row in _overloaded(one, name, words, body)]


def _models(folder: Path) -> None:
    code = folder / "code.py"
    code.write_text(_CODE)
    packed(folder, f"{code}:Code", {"x": np.linspace(0.0, 1.0, 20)}, "code")
    rows = np.random.default_rng(0).random((100, 2), np.float32)
    packed(folder, str(_layers(folder)), {"x": rows}, "layers")


def _layers(folder: Path) -> Path:
    """An ONNX file of dense layers, each of the same weights, that answers a row in some milliseconds."""
    draw = np.random.default_rng(0)
    constants = [
        numpy_helper.from_array(draw.normal(0, 1, (2, _WIDTH)).astype(np.float32), "in"),
        numpy_helper.from_array(draw.normal(0, _WIDTH**-0.5, (_WIDTH, _WIDTH)).astype(np.float32), "layer"),
        numpy_helper.from_array(draw.normal(0, _WIDTH**-0.5, (_WIDTH, 1)).astype(np.float32), "out"),
    ]
    nodes = [helper.make_node("MatMul", ["x", "in"], ["a0"])]
    for number in range(_LAYERS):
        nodes.append(helper.make_node("MatMul", [f"a{number}", "layer"], [f"b{number}"]))
        nodes.append(helper.make_node("Tanh", [f"b{number}"], [f"a{number + 1}"]))
    nodes.append(helper.make_node("MatMul", [f"a{_LAYERS}", "out"], ["value"]))
    graph = helper.make_graph(
        nodes, "layers",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("value", onnx.TensorProto.FLOAT, ["rows", 1])],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path = folder / "layers.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _overloaded(one: Drill, name: str, words: str, body: dict[str, Any]) -> list[Row]:
    seconds = max(3.0, 10.0 * one.scale)
    closed = _load(one, name, body, seconds, "--connections", "16")
    capacity = closed["requests_per_second"]
    found = {rate: _load(one, name, body, seconds, *_open(rate * capacity)) for rate in _RATES[:-1]}
    rows = 0 if name == "code" else 2
    with Callers(one.serving.url, rate=20, threads=2, name=name, numbers=rows) as probes:
        load = _begin(one, name, body, seconds, *_open(_RATES[-1] * capacity))
        time.sleep(seconds / 2)
        refusals = [
            answer for _ in range(20) if (answer := one.serving.ask(f"/predict/{name}", body)).status == 503
        ]
        found[_RATES[-1]] = load.result()
        ended = found[_RATES[-1]]["ended_s"]
        until(lambda: len([said for said in probes.said if said.at > ended + 5.0]) > 10, "the calm", 30)
    peak = max((found[rate] for rate in _RATES), key=lambda one: one["requests_per_second"])
    calm_s = 2 * peak["p99_ms"] / 1000
    late = [said.at for said in probes.said if said.at > ended and (said.status != 200 or said.seconds > calm_s)]
    most = found[_RATES[-1]]
    shown = " · ".join(
        f"{rate:g}×: {each['requests_per_second']:g}/s, {each['p99_ms']:.0f} ms" for rate, each in found.items()
    )
    return [
        (f"{words}, which answers {capacity:g}/s to 16 callers; asked for, answered, p99 of those", shown),
        ("… goodput at 10×, of its peak", f"{most['requests_per_second'] / peak['requests_per_second']:.0%}"),
        (
            "… p99 of what is admitted at 10×, of that at the peak",
            f"{most['p99_ms'] / peak['p99_ms']:.2f}×",
        ),
        (
            "… refusals with Retry-After",
            f"{sum('retry-after' in one.headers for one in refusals)} of {len(refusals)}",
        ),
        ("… seconds after it until each is answered in time", f"{max(late, default=ended) - ended:.1f}"),
        ("… told only at its deadline that it was too late (504); other errors, resets, time-outs", _others(most)),
    ]


def _others(result: dict[str, Any]) -> str:
    strange = sum(count for status, count in result["statuses"].items() if status not in ("200", "503", "504"))
    lost = strange + result["resets"] + result["refused"] + result["timeouts"]
    return f"{result['statuses'].get('504', 0)}; {lost}"


def _open(rate: float) -> tuple[str, ...]:
    """As many requests a second, whatever the server does, on as many connections as that takes."""
    return "--rate", f"{rate:.0f}", "--connections", "2000", "--nap"


def _load(one: Drill, name: str, body: dict[str, Any], seconds: float, *options: str) -> dict[str, Any]:
    return _begin(one, name, body, seconds, *options).result()


def _begin(one: Drill, name: str, body: dict[str, Any], seconds: float, *options: str) -> Load:
    return Load(one.serving, f"/predict/{name}", body, "--duration", f"{seconds:g}", "--warmup", "1", *options)
