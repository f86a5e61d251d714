"""Parity passes what is within the tolerance and tells where and how far the rest is."""

from __future__ import annotations

import numpy as np
import pytest

from cloche.bundle.parity import compare, differences
from cloche.core.errors import ConversionError

TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}


def test_numbers_within_the_tolerance_pass_and_the_largest_distance_is_kept() -> None:
    reference = {"value": np.array([1.0, 100.0, np.nan, np.inf])}
    parity = compare(reference, {"value": np.array([1.0, 100.001, np.nan, np.inf], np.float32)}, **TOLERANCE)
    assert parity.rows == 4
    assert parity.max_difference == pytest.approx(0.001, rel=0.01)


def test_labels_must_be_equal() -> None:
    reference = {"label": np.array(["a", "b", "b"], dtype=object)}
    assert compare(reference, reference, **TOLERANCE).max_difference == 0.0
    with pytest.raises(ConversionError, match=r"label differs on 1 of 3 rows \(row 2\): row 2 was 'b' and is 'a'"):
        compare(reference, {"label": np.array(["a", "b", "a"], dtype=object)}, **TOLERANCE)


def test_a_mismatch_names_the_rows_and_how_far() -> None:
    reference = {"value": np.zeros(100)}
    answers = {"value": np.where(np.arange(100) % 10 == 3, 0.5, 0.0)}
    with pytest.raises(
        ConversionError, match=r"on 10 of 100 rows \(row 3, 13, 23, 33, 43, …\), up to 0\.5"
    ) as caught:
        compare(reference, answers, **TOLERANCE)
    assert caught.value.code == "CL-E801"
    assert [each["row"] for each in caught.value.details] == [3, 13, 23, 33, 43]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (np.where(np.arange(100) == 7, 1.0, 0.0), "a step treats these rows differently"),
        (np.ones(100), "converted wrongly"),
        (np.where(np.arange(100) == 7, np.nan, 0.0), "missing value is handled differently"),
    ],
)
def test_a_likely_reason_is_told(answers: np.ndarray, words: str) -> None:
    with pytest.raises(ConversionError) as caught:
        compare({"value": np.zeros(100)}, {"value": answers}, **TOLERANCE)
    assert words in (caught.value.hint or "")


def test_shapes_and_names_must_fit() -> None:
    with pytest.raises(ConversionError, match=r"shape \[2, 1\], the original's \[2\]"):
        compare({"value": np.zeros(2)}, {"value": np.zeros((2, 1))}, **TOLERANCE)
    with pytest.raises(ConversionError, match="does not answer value"):
        compare({"value": np.zeros(2)}, {}, **TOLERANCE)


def test_split_points_are_spoken_of_for_trees_only() -> None:
    answers = {"value": np.where(np.arange(100) == 7, 1.0, 0.0)}
    with pytest.raises(ConversionError) as caught:
        compare({"value": np.zeros(100)}, answers, **TOLERANCE, trees=True)
    assert "split point" in (caught.value.hint or "")


def test_missing_strings_in_all_rows_that_differ_are_the_reason() -> None:
    port = np.array(["S", None, "C", None], dtype=object)
    answers = {"value": np.array([0.0, 1.0, 0.0, 1.0])}
    with pytest.raises(ConversionError) as caught:
        compare({"value": np.zeros(4)}, answers, **TOLERANCE, inputs={"port": port}, trees=True)
    assert "'port'" in (caught.value.hint or "") and "tells None" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("wanted", "given_", "wrong"),
    [
        ([1.0], [1.0 + 9e-5], False),  # within rtol
        ([1.0], [1.0 + 2e-4], True),
        ([0.0], [9e-7], False),  # within atol
        ([0.0], [2e-6], True),
        ([np.nan], [np.nan], False),
        ([np.nan], [0.0], True),
        ([np.inf], [np.inf], False),
        ([np.inf], [1e300], True),
    ],
)
def test_numbers_must_be_near(wanted: list[float], given_: list[float], wrong: bool) -> None:
    assert differences(np.array(wanted), np.array(given_), **TOLERANCE)[0].tolist() == [wrong]


def test_a_row_whose_label_is_another_differs() -> None:
    wanted, got = np.array(["a", "b"], dtype=object), np.array(["a", "c"], dtype=object)
    assert differences(wanted, got, rtol=1, atol=1)[0].tolist() == [False, True]
    assert differences(np.array([1, 2]), np.array([1, 3]), rtol=1, atol=9)[0].tolist() == [False, True]
