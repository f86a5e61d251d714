"""What `cloche.testing` offers is what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import cloche
from cloche import testing


def test_all_that_is_named_is_there() -> None:
    assert sorted(testing.__all__) == testing.__all__
    assert all(hasattr(testing, name) for name in testing.__all__)


def test_the_toy_onnx_doubles_the_sum_of_its_columns(tmp_path: Path) -> None:
    bundle = cloche.pack(testing.toy_onnx(tmp_path / "toy.onnx", inputs=4), name="toy", directory=tmp_path)
    with cloche.load(bundle) as loaded:
        assert loaded.predict(np.ones((2, 4), dtype=np.float32)).tolist() == [8.0, 8.0]


def test_rows_and_labels_are_the_same_for_the_same_seed() -> None:
    one, two, other = (testing.make_rows(50, seed) for seed in (1, 1, 2))
    np.testing.assert_equal(one, two)
    assert one[1].tolist() != other[1].tolist()
    assert np.isnan(testing.make_rows(500)[0]["age"]).any()


def test_the_toy_classifier_has_learnt_something() -> None:
    model, frame, labels = testing.toy_classifier(500)
    assert model.score(frame, labels) > 0.7
    assert set(labels) == {"no", "yes"}


def test_a_toy_signer_is_the_same_for_the_same_seed() -> None:
    assert testing.toy_signer(1).public_key == testing.toy_signer(1).public_key
    assert testing.toy_signer(1).public_key != testing.toy_signer(2).public_key
