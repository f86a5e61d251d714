"""The ONNX runtime answers in the signature's shapes, and turns what ONNX Runtime raises into ModelError."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from cloche.core.errors import MissingExtraError, ModelError
from cloche.core.machine import usable_cores
from cloche.core.signature import Field, Signature
from cloche.runtimes.base import RuntimePlace, RuntimeSpec
from cloche.runtimes.files import Held
from cloche.runtimes.onnx import OnnxRuntime, fill_strings, open_session

PLACE = RuntimePlace(digest="0" * 64)


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return built.SerializeToString()


def load(data: bytes, signature: Signature, **place: Any) -> OnnxRuntime:
    spec = RuntimeSpec(kind="onnx", entry="model/model.onnx", threads=1, bulk_threads=2)
    return OnnxRuntime.load(spec, signature, Held({"model/model.onnx": data}), PLACE)


def tensor(name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def field(name: str, datatype: str, *rest: int) -> Field:
    return Field(name=name, datatype=datatype, shape=(-1, *rest))


ADD = model(
    [helper.make_node("Add", ["a", "b"], ["sum"])],
    [tensor("a", TensorProto.DOUBLE, ["n", 1]), tensor("b", TensorProto.DOUBLE, ["n", 1])],
    [tensor("sum", TensorProto.DOUBLE, ["n", 1])],
)
ADD_SIGNATURE = Signature(
    inputs=(field("left", "FP64"), field("right", "FP64")), outputs=(field("value", "FP64"),)
)


def test_columns_go_by_position_and_get_the_axis_that_the_graph_wants() -> None:
    answers = load(ADD, ADD_SIGNATURE).run({"right": np.array([10.0, 20.0]), "left": np.array([1.0, 2.0])})
    assert answers["value"].tolist() == [11.0, 22.0]


def test_no_rows_are_answered_with_none() -> None:
    assert load(ADD, ADD_SIGNATURE).run({"left": np.zeros(0), "right": np.zeros(0)})["value"].shape == (0,)


def test_a_missing_string_is_an_empty_one() -> None:
    data = model(
        [helper.make_node("Identity", ["s"], ["t"])],
        [tensor("s", TensorProto.STRING, ["n"])],
        [tensor("t", TensorProto.STRING, ["n"])],
    )
    given = np.array(["a", None, "é"], dtype=object)
    runtime = load(data, Signature(inputs=(field("s", "BYTES"),), outputs=(field("t", "BYTES"),)))
    assert runtime.run({"s": given})["t"].tolist() == ["a", "", "é"]
    assert given.tolist() == ["a", None, "é"]


def test_strings_that_are_all_there_are_not_copied() -> None:
    whole = np.array(["a", "b"], dtype=object)
    assert fill_strings(whole) is whole


def test_what_onnx_runtime_refuses_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="ONNX Runtime failed"):
        load(ADD, ADD_SIGNATURE).run({"left": np.zeros(2), "right": np.zeros(3)})


@pytest.mark.parametrize("data", [b"", b"junk"])
def test_what_is_no_model_does_not_load(data: bytes) -> None:
    with pytest.raises(ModelError, match="can't load the model") as caught:
        load(data, ADD_SIGNATURE)
    assert "/proc" not in caught.value.message


def test_an_unknown_operator_does_not_load() -> None:
    data = model([helper.make_node("Nonsense", ["a"], ["b"])], [tensor("a", 1, ["n"])], [tensor("b", 1, ["n"])])
    with pytest.raises(ModelError, match="Nonsense"):
        open_session(data, 1)


def test_a_signature_that_is_not_the_graphs_is_refused() -> None:
    wrong = Signature(inputs=(field("left", "FP32"), field("right", "FP64")), outputs=ADD_SIGNATURE.outputs)
    with pytest.raises(
        ModelError, match=r"input 'left' is FP32 in the signature and tensor\(double\) in the graph"
    ):
        load(ADD, wrong)
    with pytest.raises(ModelError, match="the signature has 1 inputs, the graph 2"):
        load(ADD, Signature(inputs=(field("left", "FP64"),), outputs=ADD_SIGNATURE.outputs))


def test_an_output_that_is_not_one_for_each_row_is_refused() -> None:
    data = model(
        [helper.make_node("ReduceSum", ["a"], ["s"], keepdims=1)],
        [tensor("a", TensorProto.DOUBLE, ["n", 2])],
        [tensor("s", TensorProto.DOUBLE, [1, 1])],
    )
    runtime = load(data, Signature(inputs=(field("a", "FP64", 2),), outputs=(field("s", "FP64"),)))
    with pytest.raises(ModelError, match=r"output 's' has the shape \[1, 1\] for 3 rows") as caught:
        runtime.run({"a": np.ones((3, 2))})
    assert caught.value.code == "CL-E901"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux lets a process be kept on cores")
def test_no_more_threads_than_cores_to_run_on_whatever_the_machine_that_packed_it_had() -> None:
    def living() -> int:
        return sum(1 for _ in Path("/proc/self/task").iterdir())

    def threads_of(session_threads: int) -> int:
        spec = RuntimeSpec(kind="onnx", entry="m", threads=session_threads, bulk_threads=session_threads)
        before = living()
        runtime = OnnxRuntime.load(spec, ADD_SIGNATURE, Held({"m": ADD}), PLACE)
        more = living() - before
        runtime.close()
        return more + 1  # the caller computes as well

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert threads_of(8) == 1
    finally:
        os.sched_setaffinity(0, cores)
    assert threads_of(8) == min(8, usable_cores())


def test_threads_that_wait_do_not_burn_the_processor() -> None:
    data = model(
        [helper.make_node("MatMul", ["a", "a"], ["b"])],
        [tensor("a", TensorProto.FLOAT, ["n", 400])],
        [tensor("b", TensorProto.FLOAT, ["n", 400])],
    )
    session = open_session(data, 2)
    session.run(None, {"a": np.ones((400, 400), np.float32)})
    start, used = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < 0.3:
        time.sleep(0.05)
    assert time.process_time() - used < 0.1


# -- device ----------------------------------------------------------------------------------------------------


def test_cuda_where_there_is_none_is_told_with_what_to_install() -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(MissingExtraError, match=r"the one that is installed has .*CPU") as caught:
        open_session(ADD, 1, "cuda")
    assert caught.value.code == "CL-E701"
    assert "cloche[gpu]" in (caught.value.hint or "")


class Session:
    """A Session of an ONNX Runtime with CUDA, which remembers what it was asked for."""

    asked: tuple[Any, ...] = ()
    used = ("CUDAExecutionProvider", "CPUExecutionProvider")

    def __init__(self, model: bytes, options: Any, providers: Any) -> None:
        type(self).asked = tuple(providers)

    def get_providers(self) -> list[str]:
        return list(self.used)


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> type[Session]:
    class Fresh(Session):
        pass

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", Fresh)
    return Fresh


def test_cuda_is_asked_for_before_the_processor_and_in_full_precision(with_cuda: type[Session]) -> None:
    open_session(ADD, 1, "cuda")
    assert with_cuda.asked == (("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider")
    open_session(ADD, 1)
    assert with_cuda.asked == ("CPUExecutionProvider",)


def test_a_session_that_fell_back_to_the_processor_is_refused(with_cuda: type[Session]) -> None:
    with_cuda.used = ("CPUExecutionProvider",)
    with pytest.raises(MissingExtraError, match="can't use CUDA here"):
        open_session(ADD, 1, "cuda")
