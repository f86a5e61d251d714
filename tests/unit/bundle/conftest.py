"""A small bundle, made as `pack` makes one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cloche.bundle.bundle import Bundle
from cloche.bundle.converters.base import Converted
from cloche.bundle.lineage import trace
from cloche.bundle.pack import build
from cloche.core.signature import Field, Signature
from cloche.runtimes.base import RuntimeSpec
from cloche.testing import toy_onnx, toy_signer

SIGNATURE = Signature(
    inputs=(Field(name="x", datatype="FP32", shape=(-1, 3)),),
    outputs=(Field(name="value", datatype="FP32", shape=(-1,)),),
)


@pytest.fixture
def converted(tmp_path: Path) -> Converted:
    return convert_toy(tmp_path)


def convert_toy(folder: Path) -> Converted:
    """A model that answers twice the sum of three numbers, and 200 rows for it."""
    model = toy_onnx(folder / "toy.onnx").read_bytes()
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    return Converted(
        framework="ONNX 17",
        description="toy",
        task="regression",
        signature=SIGNATURE,
        runtime=RuntimeSpec(kind="onnx", entry="model/model.onnx"),
        files={"model/model.onnx": model},
        columns={"x": x},
        reference={"value": 2 * x.sum(axis=1)},
        original_bytes=len(model),
    )


def pack_toy(converted: Converted, folder: Path) -> Bundle:
    assert converted.columns is not None
    return build(
        converted,
        name="toy",
        y=2 * converted.columns["x"].sum(axis=1) + 0.5,
        folder=folder,
        signer=toy_signer(),
        lineage=trace(folder.parent),
    )


@pytest.fixture(scope="session")
def _packed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("packed")
    return pack_toy(convert_toy(folder), folder / "bundle")


@pytest.fixture
def bundle(_packed: Bundle, tmp_path: Path) -> Bundle:
    """A copy of the toy bundle that a test may spoil."""
    shutil.copytree(_packed.path, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle", {_packed.signer})
