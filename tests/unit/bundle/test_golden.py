"""Golden examples: kept exactly, spread over the classes, and failed by a model that answers differently."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cloche.bundle.bundle import Bundle
from cloche.bundle.folder import write_folder
from cloche.bundle.golden import (
    Golden,
    check,
    decode_golden,
    encode_golden,
    fitting_rows,
    mismatch,
    sample_rows,
)
from cloche.core.errors import RefusedError
from cloche.core.signature import NUMPY_TYPES, Array, Field, Signature
from cloche.runtimes.base import RuntimePlace, load_runtime
from cloche.testing import toy_onnx, toy_signer


def again(column: Array, datatype: str) -> Array:
    field = Field(name="c", datatype=datatype, shape=(-1, *column.shape[1:]))
    golden = Golden(inputs={"c": column}, outputs={"c": column})
    read = decode_golden(encode_golden(golden), Signature(inputs=(field,), outputs=(field,)))
    np.testing.assert_array_equal(read.inputs["c"], read.outputs["c"])
    assert read.inputs["c"].dtype == column.dtype
    assert read.inputs["c"].shape == column.shape
    return read.inputs["c"]


@pytest.mark.parametrize("datatype", sorted(NUMPY_TYPES.keys() - {"BYTES"}))
@given(data=st.data())
def test_every_number_reads_back_as_itself(datatype: str, data: st.DataObject) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=3, max_side=4))
    column = data.draw(arrays.arrays(NUMPY_TYPES[datatype], shape))
    np.testing.assert_array_equal(again(column, datatype), column)


@given(st.lists(st.none() | st.text(max_size=8), min_size=1, max_size=8))
def test_every_string_reads_back_as_itself(words: list[str | None]) -> None:
    column = np.empty(len(words), dtype=object)
    column[:] = words
    assert again(column, "BYTES").tolist() == words


def test_a_table_without_rows_of_words_keeps_its_shape() -> None:
    assert again(np.empty((3, 0), dtype=object), "BYTES").shape == (3, 0)


def test_rare_classes_are_among_the_examples() -> None:
    labels = np.array(["common"] * 990 + ["rare"] * 8 + ["once"] * 2, dtype=object)
    picked = labels[sample_rows({"label": labels}, 64)].tolist()
    assert len(picked) == 64
    assert picked.count("rare") == 8
    assert picked.count("once") == 2


def test_classes_come_in_equal_parts() -> None:
    labels = np.arange(3000) % 3
    assert np.bincount(labels[sample_rows({"label": labels}, 63)]).tolist() == [21, 21, 21]


def test_values_are_spread_from_the_smallest_to_the_largest() -> None:
    values = np.random.default_rng(0).exponential(size=5000)
    picked = values[sample_rows({"value": values}, 64)]
    assert {values.min(), values.max()} <= set(picked.tolist())
    assert np.quantile(picked, 0.5) == pytest.approx(np.quantile(values, 0.5), rel=0.1)


def test_a_sample_is_sorted_without_repeats_and_the_same_each_time() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 1000)
    one, two = sample_rows({"label": labels}, 64), sample_rows({"label": labels}, 64)
    np.testing.assert_array_equal(one, two)
    assert sorted(set(one.tolist())) == one.tolist()


def test_few_rows_are_all_taken() -> None:
    assert sample_rows({"label": np.arange(10)}, 64).tolist() == list(range(10))


def test_large_rows_give_fewer_examples() -> None:
    assert fitting_rows({"x": np.zeros((9, 30))}, 64) == 64
    assert fitting_rows({"x": np.zeros((9, 3, 100, 100))}, 64) == 13
    assert fitting_rows({"x": np.zeros((9, 10_000_000), dtype=np.bool_)}, 64) == 1


def test_a_mismatch_says_where_and_how_much() -> None:
    words = mismatch({"value": np.arange(3.0)}, {"value": np.array([0.0, 1.0, 5.0])}, rtol=0, atol=0)
    assert words is not None
    assert "value differs in 1 of 3 rows" in words
    assert "row 2 gives 5.0, not 2.0" in words
    assert "shape" in (mismatch({"value": np.zeros(3)}, {}, rtol=0, atol=0) or "")
    assert "shape" in (mismatch({"value": np.zeros(3)}, {"value": np.zeros(2)}, rtol=0, atol=0) or "")


def run_golden(bundle: Bundle) -> None:
    place = RuntimePlace(digest=bundle.digest)
    runtime = load_runtime(bundle.manifest.runtime, bundle.signature, bundle, place)
    try:
        check(bundle, runtime)
    finally:
        runtime.close()


def test_the_packed_model_passes(bundle: Bundle) -> None:
    run_golden(bundle)


def test_another_model_in_its_place_fails_even_when_it_is_sealed(bundle: Bundle, tmp_path: Path) -> None:
    files = {entry.path: bundle.read(entry.path) for entry in bundle.manifest.files}
    model = files["model/model.onnx"]
    twice = np.float32(2).tobytes()
    assert twice in model
    changed = model.replace(twice, np.float32(2.01).tobytes(), 1)
    other = write_folder(tmp_path / "other", bundle.manifest, files | {"model/model.onnx": changed}, toy_signer())
    with pytest.raises(RefusedError) as caught:
        run_golden(other)
    assert caught.value.code == "CL-E410"
    assert "value differs" in caught.value.message


def test_the_tolerance_is_the_bundle_s_own(bundle: Bundle, tmp_path: Path) -> None:
    files = {entry.path: bundle.read(entry.path) for entry in bundle.manifest.files}
    loose = msgspec.structs.replace(bundle.golden(), rtol=0.1, atol=1.0)
    files["golden.json"] = encode_golden(loose)
    files["model/model.onnx"] = toy_onnx(tmp_path / "toy.onnx").read_bytes()
    changed = files["model/model.onnx"].replace(np.float32(2).tobytes(), np.float32(2.01).tobytes(), 1)
    run_golden(
        write_folder(tmp_path / "loose", bundle.manifest, files | {"model/model.onnx": changed}, toy_signer())
    )
