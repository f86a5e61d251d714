"""ONNX files are taken when they are safe and can be served, with data beside them brought in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import Ridge

from cloche.bundle.converters.base import Converted, ConvertOptions
from cloche.bundle.converters.onnx import OnnxConverter
from cloche.core.errors import ConversionError, InputError, NotFoundError
from cloche.runtimes.onnx import open_session

X = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
WEIGHTS = np.ones((3, 2), np.float32)


def convert(path: Path, rows: Any = None) -> Converted:
    return OnnxConverter().convert(path, rows, ConvertOptions())


def outputs(converted: Converted) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(field.name, field.datatype, field.shape) for field in converted.signature.outputs]


def save(folder: Path, node: Any = None, rows: Any = "n", weights: Any = None, **model: Any) -> Path:
    graph = helper.make_graph(
        [node or helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 2])],
        [weights or numpy_helper.from_array(WEIGHTS, "w")],
        doc_string="made on a laptop",
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("somebody.else", 1)]
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=domains, ir_version=8, **model).SerializeToString())
    return path


def external(location: str, length: int = 24) -> TensorProto:
    tensor = numpy_helper.from_array(WEIGHTS, "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def test_names_are_kept_where_nobody_knows_better(tmp_path: Path) -> None:
    converted = convert(save(tmp_path, producer_name="torch", producer_version="2.13"), X)
    assert [(f.name, f.datatype, f.shape) for f in converted.signature.inputs] == [("x", "FP32", (-1, 3))]
    assert outputs(converted) == [("y", "FP32", (-1, 2))]
    assert converted.framework == "torch 2.13"
    assert converted.task == "other"
    assert converted.reference is None and converted.columns is not None


def test_leftovers_are_stripped(tmp_path: Path) -> None:
    converted = convert(save(tmp_path))
    model = onnx.load_from_string(converted.files["model/model.onnx"])
    assert not model.graph.doc_string
    assert [each.domain for each in model.opset_import] == [""]
    assert converted.original_bytes > len(converted.files["model/model.onnx"])


@pytest.mark.parametrize("options", [None, {"zipmap": False}], ids=["zipmap", "tensors"])
def test_a_classifier_of_skl2onnx_gets_the_names_of_a_classifier(tmp_path: Path, options: Any) -> None:
    model = GradientBoostingClassifier(n_estimators=5).fit(X, np.where(X[:, 0] > 0, "yes", "no"))
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(model, X[:1], options=options).SerializeToString())
    converted = convert(path, X)
    assert outputs(converted) == [("label", "BYTES", (-1,)), ("probabilities", "FP32", (-1, 2))]
    assert converted.signature.outputs[1].classes == ("no", "yes")
    assert converted.task == "classification"


def test_a_regressor_of_skl2onnx_gives_value(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(Ridge().fit(X, X[:, 0]), X[:1]).SerializeToString())
    converted = convert(path, pd.DataFrame(X.astype(np.float64)))
    assert outputs(converted) == [("value", "FP32", (-1,))]
    assert converted.columns is not None and converted.columns["X"].dtype == np.float32


def test_data_beside_the_model_is_brought_in(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHTS.tobytes())
    converted = convert(save(tmp_path, weights=external("weights.bin")))
    inner = onnx.load_from_string(converted.files["model/model.onnx"]).graph.initializer[0]
    np.testing.assert_array_equal(numpy_helper.to_array(inner), WEIGHTS)


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/hostname", "a/weights.bin", "", "none.bin", "link.bin"]
)
def test_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path.parent / "weights.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "link.bin").symlink_to("/etc/hostname")
    with pytest.raises(ConversionError) as caught:
        convert(save(tmp_path, weights=external(location)))
    assert caught.value.code == "CL-E803"


def test_data_that_ends_early_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHTS.tobytes()[:10])
    with pytest.raises(ConversionError, match="ends before the data of 'w'"):
        convert(save(tmp_path, weights=external("weights.bin")))


def test_custom_operators_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Anything", ["x"], ["y"], domain="somebody.else")
    with pytest.raises(ConversionError, match=r"operators of somebody\.else"):
        convert(save(tmp_path, node))


def test_a_fixed_number_of_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="first axis of input 'x' is fixed at 1") as caught:
        convert(save(tmp_path, rows=1))
    assert "dynamic" in (caught.value.hint or "")


def test_an_output_without_rows_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    with pytest.raises(ConversionError, match="output 'y'"):
        convert(save(tmp_path, node))


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08\x08"])
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(ConversionError) as caught:
        convert(tmp_path / "model.onnx")
    assert caught.value.code == "CL-E803"


def test_rows_must_be_the_models(tmp_path: Path) -> None:
    path = save(tmp_path)
    with pytest.raises(InputError, match="the rows lack x"):
        convert(path, {"a": [1.0], "b": [2.0]})
    with pytest.raises(InputError, match="`x` is 'a' in row 0"):
        convert(path, [["a", "b", "c"]])
    with pytest.raises(NotFoundError):
        convert(tmp_path / "none.onnx")


def lower(folder: Path, locale: str | None) -> Path:
    named = {} if locale is None else {"locale": locale}
    node = helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER", **named)
    strings = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in "xy"]
    graph = helper.make_graph([node], "g", strings[:1], strings[1:])
    path = folder / "text.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("locale", [None, "en_US", "en_GB.UTF-8", "C.UTF-8"])
def test_english_text_steps_need_no_locale_that_a_machine_may_lack(tmp_path: Path, locale: str | None) -> None:
    converted = convert(lower(tmp_path, locale), {"x": ["\u00c4B", "c"]})
    data = converted.files["model/model.onnx"]
    (node,) = onnx.load_from_string(data).graph.node
    assert [each.s for each in node.attribute if each.name == "locale"] == [b"C.UTF-8"]
    assert open_session(data, 1).run(None, {"x": ["\u00c4B", "c"]})[0].tolist() == ["\u00e4b", "c"]


def test_a_text_step_in_a_language_that_is_not_here_is_refused_by_its_locale(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="needs the locale xx_XX, and this machine has none") as caught:
        convert(lower(tmp_path, "xx_XX"), {"x": ["A"]})
    assert caught.value.code == "CL-E803"
    assert "C.UTF-8" in (caught.value.hint or "")
