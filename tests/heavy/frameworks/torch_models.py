"""PyTorch modules become bundles that answer as they do; run by pytest in an environment with PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.conformance.checks import check_converter
from tests.heavy.frameworks.journey import check_journey
from torch import nn

import cloche
from cloche.bundle.converters.base import find_converter

SHAPE = (3, 64, 64)


class Cnn(nn.Module):
    """A small network with all that behaves otherwise in training: normalisation over rows, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(16, 5)

    def forward(self, pixels):
        return self.head(self.body(pixels))


class Words(nn.Module):
    """Two inputs of different types, one that may be left out, and two answers by name."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 4)
        self.head = nn.Linear(5, 2)

    def forward(self, ids, weight, scale=None):
        joined = torch.cat([self.embedding(ids).mean(1), weight[:, None]], 1)
        return {"scores": self.head(joined), "hidden": joined}


class MeanLess(nn.Module):
    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class AlwaysDrops(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True)


class Flat(nn.Module):
    def forward(self, x):
        return x.reshape(-1)


class Pairs(nn.Module):
    def forward(self, x):
        return x.reshape(2, -1, 4)[0] if x.shape[0] == 2 else x


class Branches(nn.Module):
    def forward(self, x):
        return x if x[0, 0] > -100 else -x


class Texts(nn.Module):
    def forward(self, x):
        return "text"


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, *SHAPE)).astype(np.float32)


@pytest.fixture
def numbers() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)


def original(module: nn.Module, *tensors: object) -> np.ndarray:
    module.eval()
    with torch.no_grad():
        return module(*(torch.as_tensor(each) for each in tensors)).numpy()


def test_a_module_keeps_the_promises(images: np.ndarray) -> None:
    module = Cnn()
    check_converter(find_converter(module), module, images)


def test_a_module_answers_the_same_packed_exported_imported_and_served(images: np.ndarray, tmp_path: Path) -> None:
    module = Cnn().train()
    bundle = cloche.pack(module, images, name="cnn", directory=tmp_path)
    assert module.training and all(part.training for part in module.modules()), "it is left as it was"
    assert [(field.name, field.datatype, field.shape) for field in bundle.signature.inputs] == [
        ("pixels", "FP32", (-1, *SHAPE))
    ]
    check_journey(bundle, tmp_path, {"pixels": images}, original(module, images))
    parity = bundle.manifest.parity
    assert parity is not None and parity.rows == 40 and parity.max_difference < 1e-5


@pytest.mark.parametrize(
    ("dtype", "datatype"), [(torch.uint8, "UINT8"), (torch.float32, "FP32"), (torch.float64, "FP32")]
)
def test_pixels_are_sent_as_they_were_given(dtype: torch.dtype, datatype: str, tmp_path: Path) -> None:
    class Scaled(Cnn):
        def forward(self, pixels):
            return super().forward(pixels.float() / 255)

    pixels = torch.randint(0, 256, (30, *SHAPE)).to(dtype)
    module = Scaled()
    bundle = cloche.pack(module, pixels, name="pixels", directory=tmp_path)
    assert bundle.signature.inputs[0].datatype == datatype
    with cloche.load(bundle, directory=tmp_path) as loaded:
        np.testing.assert_allclose(loaded.predict(pixels.numpy()), original(module, pixels), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["tuple", "by forward's names", "by other names"])
def test_several_inputs_are_a_tuple_or_a_dict(form: str, tmp_path: Path) -> None:
    ids, weight = torch.randint(0, 20, (30, 7)), torch.rand(30)
    rows = {
        "tuple": (ids, weight),
        "by forward's names": {"weight": weight, "ids": ids},
        "by other names": {"words": ids.numpy(), "share": weight.numpy()},
    }[form]
    bundle = cloche.pack(Words(), rows, name="words", directory=tmp_path)
    names = ["words", "share"] if form == "by other names" else ["ids", "weight"]
    assert [(field.name, field.shape) for field in bundle.signature.inputs] == [
        (names[0], (-1, 7)),
        (names[1], (-1,)),
    ]
    assert [(field.name, field.shape) for field in bundle.signature.outputs] == [
        ("scores", (-1, 2)),
        ("hidden", (-1, 5)),
    ]


def test_a_frame_is_a_matrix(numbers: np.ndarray, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    frame = pd.DataFrame(numbers.astype(np.float64), columns=list("abcd"))
    bundle = cloche.pack(module, frame, name="price", directory=tmp_path)
    with cloche.load(bundle, directory=tmp_path) as loaded:
        np.testing.assert_allclose(loaded.predict(frame), original(module, numbers), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "end",
    [
        nn.Linear(4, 3),
        nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=-1)),
        nn.Linear(4, 1),
        nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()),
        nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)),
    ],
    ids=["logits", "softmax", "one logit", "sigmoid", "one logit, flat"],
)
def test_scores_of_classes_become_label_and_probabilities(
    end: nn.Module, numbers: np.ndarray, tmp_path: Path
) -> None:
    scores = original(end, numbers).reshape(len(numbers), -1)
    if scores.shape[1] == 1:
        share = (
            scores
            if isinstance(end, nn.Sequential) and isinstance(end[-1], nn.Sigmoid)
            else 1 / (1 + np.exp(-scores))
        )
        wanted = np.concatenate([1 - share, share], axis=1)
    else:
        raised = scores if isinstance(end, nn.Sequential) else np.exp(scores)
        wanted = raised / raised.sum(axis=1, keepdims=True)
    labels = wanted.argmax(axis=1)
    bundle = cloche.pack(end, numbers, labels, name="kinds", task="classification", directory=tmp_path)
    assert bundle.manifest.quality is not None and bundle.manifest.quality["accuracy"] == 1.0
    with cloche.load(bundle, directory=tmp_path) as loaded:
        assert loaded.predict(numbers).tolist() == labels.tolist()
        np.testing.assert_allclose(loaded.predict_proba(numbers), wanted, rtol=1e-4, atol=1e-6)


def test_an_exported_program_is_packed_as_it_is(numbers: np.ndarray, tmp_path: Path) -> None:
    module = nn.Linear(4, 2).eval()
    rows = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(module, (torch.as_tensor(numbers),), dynamic_shapes=rows)
    bundle = cloche.pack(program, numbers, name="program", directory=tmp_path)
    with cloche.load(bundle, directory=tmp_path) as loaded:
        np.testing.assert_allclose(loaded.predict(numbers), original(module, numbers), rtol=1e-4, atol=1e-6)
    fixed = torch.export.export(module, (torch.as_tensor(numbers[:3]),))
    with pytest.raises(cloche.ConversionError, match="one number of rows") as caught:
        cloche.pack(fixed, numbers, name="program", directory=tmp_path)
    assert "dynamic_shapes" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (MeanLess, "differently when it comes alone"),
        (AlwaysDrops, "differently when it comes alone"),
        (Flat, r"has the shape \[160\] for 40 rows"),
        (Pairs, "Pairs works for one number of rows only"),
        (Branches, "what Branches does depends on values"),
        (Texts, "forward returns str, and a tensor is wanted"),
        (lambda: nn.Linear(4, 2).bfloat16(), "bfloat16"),
        (lambda: nn.Linear(4, 2).state_dict(), "weights without the module"),
    ],
)
def test_what_is_not_exact_is_refused_with_a_reason(make, said: str, numbers: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(cloche.ConversionError, match=said) as caught:
        cloche.pack(make(), numbers, name="bad", directory=tmp_path)
    assert caught.value.code == "CL-E802"
    assert caught.value.hint


def test_torchscript_is_refused(numbers: np.ndarray, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Linear(4, 2))
    with pytest.raises(cloche.ConversionError, match="TorchScript"):
        cloche.pack(scripted, numbers, name="bad", directory=tmp_path)


def test_rows_that_do_not_fit_are_told(numbers: np.ndarray, tmp_path: Path) -> None:
    module = nn.Linear(4, 2)
    for rows, said in [
        (numbers[:, :3], "the module itself fails on these rows"),
        ({"input": numbers, "other": numbers}, "has no input other"),
        (np.array(["a", "b"]), "rows of numbers are wanted"),
    ]:
        with pytest.raises(cloche.InputError, match=said):
            cloche.pack(module, rows, name="bad", directory=tmp_path)
    with pytest.raises(cloche.ConversionError, match="without rows"):
        cloche.pack(module, name="bad", directory=tmp_path)
