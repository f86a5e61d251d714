"""Diff: what a caller, a judge and an operator want to know of a new version."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from cloche.bundle.bundle import Bundle
from cloche.bundle.diff import BundleDiff, diff
from cloche.bundle.folder import write_folder
from cloche.bundle.profile import encode_profile
from cloche.bundle.profiling import make_profile
from cloche.core.signature import Array, Columns, Field, Signature
from cloche.testing import toy_signer


def change(bundle: Bundle, folder: Path, **fields: object) -> Bundle:
    """The same bundle with other words in its manifest."""
    manifest = msgspec.structs.replace(bundle.manifest, **fields)
    files = {entry.path: bundle.read(entry.path) for entry in bundle.manifest.files}
    return write_folder(folder, manifest, files, toy_signer())


def inputs(*fields: Field) -> Signature:
    return Signature(inputs=fields, outputs=())


def sentences(bundle: Bundle, tmp_path: Path, old: Signature, new: Signature) -> tuple[str, ...]:
    before = change(bundle, tmp_path / "before", signature=old)
    return diff(before, change(bundle, tmp_path / "after", signature=new)).signature


def test_a_bundle_does_not_differ_from_itself(bundle: Bundle) -> None:
    found = diff(bundle, bundle)
    assert found.same
    assert (found.signature, found.other) == ((), ())
    assert all(shift.distance == 0 for shift in found.profile)
    assert all(before == after for before, after in {**found.quality, **found.costs}.values())


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ([], [Field(name="age", datatype="FP64", shape=(-1,))], "input age is new: FP64 [-1]"),
        ([Field(name="age", datatype="FP64", shape=(-1,))], [], "input age is gone"),
        (
            [Field(name="age", datatype="INT64", shape=(-1,))],
            [Field(name="age", datatype="FP64", shape=(-1, 2))],
            "input age was INT64 [-1], is FP64 [-1, 2]",
        ),
        (
            [Field(name="age", datatype="FP64", shape=(-1,))],
            [Field(name="age", datatype="FP64", shape=(-1,), missing=True)],
            "input age may now be missing",
        ),
        (
            [Field(name="plan", datatype="BYTES", shape=(-1,), categories=("a", "b"))],
            [Field(name="plan", datatype="BYTES", shape=(-1,), categories=("b", "c"))],
            "categories of input plan: no longer a; new c",
        ),
    ],
)
def test_a_changed_signature_is_told(
    bundle: Bundle, tmp_path: Path, old: list[Field], new: list[Field], says: str
) -> None:
    assert sentences(bundle, tmp_path, inputs(*old), inputs(*new)) == (says,)


def test_changed_ranges_are_no_change_for_callers(bundle: Bundle, tmp_path: Path) -> None:
    one = Field(name="age", datatype="FP64", shape=(-1,), minimum=0, maximum=90)
    assert sentences(bundle, tmp_path, inputs(one), inputs(msgspec.structs.replace(one, maximum=95.0))) == ()


def test_quality_stands_side_by_side(bundle: Bundle, tmp_path: Path) -> None:
    before = change(bundle, tmp_path / "before", quality={"mae": 1.0, "r2": 0.5})
    after = change(bundle, tmp_path / "after", quality={"mae": 0.5, "rmse": 2.0})
    assert diff(before, after).quality == {"mae": (1.0, 0.5), "r2": (0.5, None), "rmse": (None, 2.0)}


def test_costs_carry_their_unit(bundle: Bundle) -> None:
    assert {"size_bytes", "row_p99_s", "rows_per_s"} <= diff(bundle, bundle).costs.keys()


def test_another_framework_or_commit_is_told(bundle: Bundle, tmp_path: Path) -> None:
    found = diff(bundle, change(bundle, tmp_path / "after", framework="scikit-learn 2", rows=9))
    assert found.other == ("framework: ONNX 17 -> scikit-learn 2", "rows: 200 -> 9")
    assert not found.same


MIXED = Signature(
    inputs=(
        Field(name="age", datatype="FP64", shape=(-1,)),
        Field(name="plan", datatype="BYTES", shape=(-1,)),
    ),
    outputs=(Field(name="probabilities", datatype="FP64", shape=(-1, 1), classes=("yes",)),),
)


def profiled(bundle: Bundle, folder: Path, age: Array, plan: list[str | None], scores: Array) -> Bundle:
    words = np.empty(len(plan), dtype=object)
    words[:] = plan
    columns: Columns = {"age": age, "plan": words}
    profile = make_profile(MIXED, columns, {"probabilities": scores.reshape(-1, 1)})
    files = {entry.path: bundle.read(entry.path) for entry in bundle.manifest.files}
    files["profile.json"] = encode_profile(profile)
    return write_folder(folder, bundle.manifest, files, toy_signer())


def shifted(bundle: Bundle, tmp_path: Path, by: float) -> BundleDiff:
    age = np.random.default_rng(0).normal(size=1000)
    scores = np.linspace(0, 0.9, 1000)
    before = profiled(bundle, tmp_path / "before", age, ["a"] * 500 + ["b"] * 500, scores)
    plan = ["a"] * 400 + ["b"] * 400 + ["c"] * 100 + [None] * 100
    return diff(before, profiled(bundle, tmp_path / "after", age + by, plan, scores))


def test_distances_are_told_the_farthest_first(bundle: Bundle, tmp_path: Path) -> None:
    found = shifted(bundle, tmp_path, by=1.0).profile
    assert [shift.column for shift in found] == ["age", "plan", "probabilities[yes]"]
    # A normal column moved by one standard deviation: 2·Φ(1/2) - 1 = 0.383.
    assert found[0].distance == pytest.approx(0.383, abs=0.06)
    assert found[1].distance == pytest.approx(1 / 9)
    assert found[1].missing == (0.0, pytest.approx(0.1))
    assert found[2].distance == 0


def test_nothing_in_common_is_one(bundle: Bundle, tmp_path: Path) -> None:
    assert shifted(bundle, tmp_path, by=100.0).profile[0].distance == pytest.approx(1.0, abs=0.05)


def test_without_a_profile_nothing_is_compared(bundle: Bundle, tmp_path: Path) -> None:
    files = {entry.path: bundle.read(entry.path) for entry in bundle.manifest.files}
    del files["profile.json"]
    bare = write_folder(tmp_path / "bare", bundle.manifest, files, toy_signer())
    assert diff(bundle, bare).profile == ()
