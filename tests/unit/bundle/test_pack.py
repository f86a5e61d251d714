"""Packing: proven against the original, measured, described and sealed, or refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cloche.bundle.bundle import Bundle
from cloche.bundle.converters.base import Converted
from cloche.bundle.lineage import trace
from cloche.bundle.pack import PackOptions, build
from cloche.core.errors import ClocheError, ConfigError, ConflictError, ConversionError
from cloche.core.signature import Columns, Field, Signature
from cloche.runtimes.base import RuntimeSpec
from cloche.testing import toy_signer


def pack(converted: Converted, tmp_path: Path, **options: object) -> Bundle:
    lineage = trace(tmp_path)
    folder = tmp_path / "bundle"
    named = {"name": "toy", **options}
    return build(converted, folder=folder, signer=toy_signer(), lineage=lineage, **named)  # type: ignore[arg-type]


def columns_of(converted: Converted) -> Columns:
    assert converted.columns is not None
    return converted.columns


def test_all_that_a_bundle_promises_is_in_it(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.signature.inputs[0].minimum == pytest.approx(-3.9, abs=0.5)
    assert manifest.parity is not None
    assert manifest.parity.rows == 200
    assert manifest.quality is not None
    assert set(manifest.quality) == {"mae", "rmse", "r2"}
    assert manifest.rows == 200
    assert manifest.notes == ()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", manifest.created)
    assert manifest.lineage.packages["onnxruntime"]


def test_what_it_costs_was_measured(bundle: Bundle) -> None:
    found = bundle.manifest.measured
    assert found is not None
    assert 0 < found.row_p50_s <= found.row_p99_s < 1
    assert found.load_s > 0
    assert found.memory_bytes >= found.size_bytes > 0
    assert found.rows_per_s > 1000


def test_the_original_s_answers_are_the_golden_ones(bundle: Bundle, converted: Converted) -> None:
    golden = bundle.golden()
    np.testing.assert_array_equal(golden.outputs["value"], 2 * golden.inputs["x"].sum(axis=1))
    assert len(golden.inputs["x"]) == 64
    # The smallest and the largest answer are among them.
    assert converted.reference is not None
    assert golden.outputs["value"].max() == converted.reference["value"].max()


def test_a_model_that_answers_differently_is_refused(converted: Converted, tmp_path: Path) -> None:
    assert converted.reference is not None
    converted.reference["value"][17] += 0.01
    with pytest.raises(ConversionError) as caught:
        pack(converted, tmp_path)
    assert caught.value.code == "CL-E801"
    assert "17" in caught.value.message
    assert not (tmp_path / "bundle").exists()


def test_the_tolerance_can_be_set_and_is_recorded(converted: Converted, tmp_path: Path) -> None:
    assert converted.reference is not None
    converted.reference["value"][17] += 0.01
    bundle = pack(converted, tmp_path, options=PackOptions(golden=10, rtol=0.0, atol=0.02))
    assert msgspec.structs.asdict(bundle.manifest.golden) == {"rows": 10, "rtol": 0.0, "atol": 0.02}
    assert (bundle.golden().rtol, bundle.golden().atol) == (0.0, 0.02)
    assert bundle.manifest.parity is not None
    assert bundle.manifest.parity.max_difference == pytest.approx(0.01, abs=1e-5)


def test_without_rows_inputs_are_drawn_and_it_says_so(converted: Converted, tmp_path: Path) -> None:
    converted.columns = converted.reference = None
    bundle = pack(converted, tmp_path)
    assert bundle.profile() is None
    assert bundle.manifest.quality is None
    assert bundle.manifest.rows == 0
    assert bundle.manifest.signature == converted.signature
    assert len(bundle.golden().inputs["x"]) == 64
    assert any("without rows" in note for note in bundle.manifest.notes)
    assert "without rows" in (bundle.path / "card.md").read_text()
    assert "without rows" in repr(bundle)


def test_answers_that_could_not_be_served_are_noted(converted: Converted, tmp_path: Path) -> None:
    columns_of(converted)["x"][3, 0] = np.inf
    converted.reference = None
    bundle = pack(converted, tmp_path, y=np.zeros(200))
    assert any(note.startswith("1 of 200 rows get a number that is not finite") for note in bundle.manifest.notes)


def test_labels_that_can_t_be_used_are_noted(converted: Converted, tmp_path: Path) -> None:
    converted.task = "other"
    bundle = pack(converted, tmp_path, y=np.zeros(200))
    assert bundle.manifest.quality is None
    assert any("labels were given" in note for note in bundle.manifest.notes)


def test_without_labels_there_is_a_profile_but_no_quality(converted: Converted, tmp_path: Path) -> None:
    bundle = pack(converted, tmp_path)
    assert bundle.manifest.quality is None
    profile = bundle.profile()
    assert profile is not None
    assert profile.holdout is None
    assert any("without labels" in note for note in bundle.manifest.notes)


@pytest.mark.parametrize("labels", [[1.0], [], list(range(201))])
def test_labels_for_other_rows_are_refused(converted: Converted, tmp_path: Path, labels: list[float]) -> None:
    with pytest.raises(ConfigError) as caught:
        pack(converted, tmp_path, y=labels)
    assert caught.value.code == "CL-E204"


def test_labels_without_rows_are_refused(converted: Converted, tmp_path: Path) -> None:
    converted.columns = converted.reference = None
    with pytest.raises(ConfigError, match="no rows"):
        pack(converted, tmp_path, y=[1.0])


def test_no_row_at_all_is_refused(converted: Converted, tmp_path: Path) -> None:
    converted.columns = {"x": np.zeros((0, 3), dtype=np.float32)}
    converted.reference = None
    with pytest.raises(ConfigError, match="no rows"):
        pack(converted, tmp_path)


def test_one_row_is_enough(converted: Converted, tmp_path: Path) -> None:
    converted.columns = {"x": columns_of(converted)["x"][:1]}
    converted.reference = None
    assert pack(converted, tmp_path, y=[3.0]).manifest.rows == 1


@pytest.mark.parametrize("options", [{"golden": 0}, {"rtol": -1.0}, {"atol": -1.0}])
def test_a_senseless_tolerance_is_refused(converted: Converted, tmp_path: Path, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        pack(converted, tmp_path, options=msgspec.convert(options, PackOptions))


@pytest.mark.parametrize("name", ["Fraud", "", "a b", "a/b", "a:1", "-a", "x" * 64])
def test_a_name_that_is_none_is_refused(converted: Converted, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pack(converted, tmp_path, name=name)
    assert caught.value.code == "CL-E203"


def test_an_existing_folder_is_left_alone(bundle: Bundle, converted: Converted, tmp_path: Path) -> None:
    with pytest.raises(ConflictError):
        pack(converted, tmp_path)
    bundle.verify()


def test_a_model_that_looks_at_its_neighbours_is_refused(converted: Converted, tmp_path: Path) -> None:
    """Requests are joined when they are served: an answer must not depend on the other rows."""
    converted.files["model/model.onnx"] = centred_model()
    converted.reference = None
    with pytest.raises(ConversionError, match="alone"):
        pack(converted, tmp_path)


def centred_model() -> bytes:
    """`value` = the first column of `x` less its mean over all rows of the call."""
    from onnx import TensorProto, helper

    def floats(name: str, shape: list[int | str]) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["x", "first"], ["column"], axis=1),
            helper.make_node("ReduceMean", ["column", "rows"], ["mean"], keepdims=1),
            helper.make_node("Sub", ["column", "mean"], ["value"]),
        ],
        "centred",
        [floats("x", ["rows", 3])],
        [floats("value", ["rows", 1])],
        [
            helper.make_tensor("first", TensorProto.INT64, [1], [0]),
            helper.make_tensor("rows", TensorProto.INT64, [1], [0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def test_nothing_is_left_behind_when_it_fails(converted: Converted, tmp_path: Path) -> None:
    converted.files["model/model.onnx"] = b"no model"
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ClocheError):
        pack(converted, tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_path_that_no_bundle_holds_is_refused(converted: Converted, tmp_path: Path) -> None:
    converted.files["../evil"] = b""
    with pytest.raises(ClocheError, match="can't be a path"):
        pack(converted, tmp_path)
    assert not (tmp_path.parent / "evil").exists()


class Heard:
    """What a progress display was told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int, int]] = []

    def __call__(self, what: str, done: int = 0, total: int = 0, /) -> None:
        self.said.append((what, done, total))


def test_it_says_what_it_does(converted: Converted, tmp_path: Path) -> None:
    heard = Heard()
    pack(converted, tmp_path, progress=heard)
    steps = list(dict.fromkeys(what for what, _, _ in heard.said))
    assert steps == ["comparing answers", "measuring quality", "measuring speed", "sealing"]


def test_it_says_how_many_rows_are_done(converted: Converted, tmp_path: Path) -> None:
    converted.columns = {"x": np.zeros((1000, 3), np.float32)}
    converted.reference = None
    heard = Heard()
    pack(converted, tmp_path, progress=heard)
    assert [(done, total) for what, done, total in heard.said if what == "running the rows"] == [
        (0, 1000),
        (256, 1000),
        (768, 1000),
    ]


def test_names_with_line_breaks_and_bars_stay_in_their_cell(converted: Converted, tmp_path: Path) -> None:
    odd = Field(name="a | b\nc", datatype="FP32", shape=(-1, 3))
    converted.signature = Signature(inputs=(odd,), outputs=converted.signature.outputs)
    converted.columns = {odd.name: columns_of(converted)["x"]}
    card = (pack(converted, tmp_path).path / "card.md").read_text()
    assert "\n| a \\| b c | FP32 |" in card


def test_the_card_tells_what_for_whom_and_how_measured(converted: Converted, tmp_path: Path) -> None:
    options = PackOptions(about="For tests. It adds | numbers.", licence="MIT")
    bundle = pack(converted, tmp_path, options=options, y=np.zeros(200))
    card = (bundle.path / "card.md").read_text()
    for words in ("# toy", "For tests.", "Licence: MIT", "| x | FP32 | [-1, 3] |", "mae", "64 golden"):
        assert words in card


def test_the_bill_of_materials_is_cyclonedx(converted: Converted, tmp_path: Path) -> None:
    converted.requirements = ("Scikit_Learn>=1; python_version > '3'", "no-such-package-here")
    bundle = pack(converted, tmp_path)
    bill = json.loads((bundle.path / "sbom.json").read_bytes())
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    parts = {part["name"]: part for part in bill["components"]}
    assert parts["onnxruntime"]["purl"] == f"pkg:pypi/onnxruntime@{parts['onnxruntime']['version']}"
    assert parts["scikit-learn"]["version"]
    assert parts["no-such-package-here"]["purl"] == "pkg:pypi/no-such-package-here"
    model = next(entry for entry in bundle.manifest.files if entry.path == "model/model.onnx")
    assert parts["model/model.onnx"]["hashes"] == [{"alg": "SHA-256", "content": model.sha256}]
    references = [part["bom-ref"] for part in bill["components"]]
    assert len(set(references)) == len(references)


def test_a_runtime_that_nobody_has_is_refused(converted: Converted, tmp_path: Path) -> None:
    converted.runtime = RuntimeSpec(kind="abacus", entry="model/model.onnx")
    with pytest.raises(ConfigError, match="abacus"):
        pack(converted, tmp_path)


def test_a_signature_that_is_not_the_model_s_is_refused(converted: Converted, tmp_path: Path) -> None:
    wrong = Field(name="x", datatype="FP64", shape=(-1, 3))
    converted.signature = Signature(inputs=(wrong,), outputs=converted.signature.outputs)
    with pytest.raises(ClocheError):
        pack(converted, tmp_path)
