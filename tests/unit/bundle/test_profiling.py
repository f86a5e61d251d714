"""Profiles: bins of equal probability, categories by name, and nothing lost on the way to JSON."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cloche.bundle.profile import (
    Categorical,
    Numeric,
    Scores,
    bin_numbers,
    decode_profile,
    encode_profile,
)
from cloche.bundle.profiling import (
    BINS,
    MAX_NUMBERS,
    make_profile,
    profile_numbers,
    profile_scores,
    profile_words,
    with_facts,
)
from cloche.core.signature import Array, Columns, Field, Signature


def words(*values: str | None) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def test_twenty_bins_hold_exactly_a_twentieth_each() -> None:
    found = profile_numbers(np.random.default_rng(0).normal(size=2000))
    assert len(found.ends) == BINS
    assert found.counts == (0, *[100] * BINS, 0)


def test_ties_are_merged_into_fewer_bins() -> None:
    found = profile_numbers(np.array([0] * 90 + [1] * 10))
    assert found.ends == (0.0, 1.0)
    assert found.counts == (0, 90, 10, 0)


def test_one_value_is_one_bin() -> None:
    found = profile_numbers(np.full(50, 7))
    assert (found.ends, found.counts) == ((7.0,), (0, 50, 0))


@pytest.mark.parametrize(
    ("value", "place"),
    [(-0.001, 0), (0.0, 1), (4.0, 1), (4.001, 2), (99.0, BINS), (99.001, BINS + 1), (1e300, BINS + 1)],
)
def test_a_value_falls_into_the_bin_that_ends_above_it(value: float, place: int) -> None:
    profile = profile_numbers(np.arange(100))
    assert profile.ends[:2] == (4.0, 9.0)
    counts = bin_numbers(np.array([value]), profile)
    assert counts.tolist().index(1) == place


@given(arrays.arrays(np.float64, st.integers(0, 300)))
def test_every_value_is_counted_once(values: Array) -> None:
    found = profile_numbers(values)
    assert sum(found.counts) + found.missing + found.infinite == found.rows == len(values)
    assert len(found.counts) == len(found.ends) + 2
    assert found.counts[0] == found.counts[-1] == 0
    assert list(found.ends) == sorted(set(found.ends))


def test_missing_and_infinite_numbers_are_counted_apart() -> None:
    found = profile_numbers(np.array([1.0, np.nan, np.inf, -np.inf, 2.0]))
    assert (found.missing, found.infinite) == (1, 2)
    assert (found.minimum, found.maximum, found.mean, found.variance) == (1.0, 2.0, 1.5, 0.25)


def test_a_column_of_nothing_has_no_bins() -> None:
    found = profile_numbers(np.full(4, np.nan))
    assert (found.missing, found.ends, found.minimum) == (4, (), None)
    assert bin_numbers(np.array([1.0]), found).tolist() == [0, 0]


def test_quantiles_are_those_of_the_rows() -> None:
    found = profile_numbers(np.arange(1001))
    assert found.quantiles["0.5"] == 500
    assert found.quantiles["0.99"] == 990


def test_categories_are_counted_by_name_the_most_frequent_first() -> None:
    found = profile_words(words("b", "a", "b", None, ""))
    assert found.values == ("b", "", "a")
    assert found.counts == (2, 1, 1)
    assert (found.missing, found.other, found.distinct, found.unseen) == (1, 0, 3, 0)


def test_the_tail_beyond_254_categories_is_other() -> None:
    found = profile_words(words(*(f"c{number:03}" for number in range(300) for _ in range(2))))
    assert len(found.values) == 254
    assert found.other == 92
    assert found.distinct == 300
    assert sum(found.counts) + found.other == 600


def test_a_text_is_not_a_category() -> None:
    found = profile_words(words("x" * 201, "short"))
    assert found.values == ("short",)
    assert found.other == 1


def test_truth_values_are_words() -> None:
    assert profile_words(np.array([True, False, True])).values == ("true", "false")


def test_scores_are_counted_on_two_hundred_bins() -> None:
    found = profile_scores(np.array([0.0, 0.0049, 0.005, 0.5, 1.0]))
    assert len(found.counts) == 200
    assert (found.counts[0], found.counts[1], found.counts[100], found.counts[199]) == (2, 1, 1, 1)


SIGNATURE = Signature(
    inputs=(
        Field(name="age", datatype="FP64", shape=(-1,)),
        Field(name="plan", datatype="BYTES", shape=(-1,)),
        Field(name="x", datatype="FP32", shape=(-1, 2)),
        Field(name="member", datatype="BOOL", shape=(-1,)),
    ),
    outputs=(
        Field(name="label", datatype="INT64", shape=(-1,), classes=("0", "1")),
        Field(name="probabilities", datatype="FP32", shape=(-1, 2), classes=("0", "1")),
    ),
)
COLUMNS: Columns = {
    "age": np.array([1.0, np.nan, 3.0, 4.0]),
    "plan": words("pro", "free", "pro", "free"),
    "x": np.arange(8, dtype=np.float32).reshape(4, 2),
    "member": np.array([True, True, True, True]),
}
OUTPUTS: Columns = {
    "label": np.array([0, 1, 1, 0]),
    "probabilities": np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]], dtype=np.float32),
}


def test_each_column_has_the_kind_that_fits_it() -> None:
    profile = make_profile(SIGNATURE, COLUMNS, OUTPUTS)
    assert {name: type(column) for name, column in {**profile.inputs, **profile.outputs}.items()} == {
        "age": Numeric,
        "plan": Categorical,
        "x[0]": Numeric,
        "x[1]": Numeric,
        "member": Categorical,
        "label": Categorical,
        "probabilities[0]": Scores,
        "probabilities[1]": Scores,
    }


def test_it_reads_back_as_it_was_written() -> None:
    profile = make_profile(SIGNATURE, COLUMNS, OUTPUTS)
    assert decode_profile(encode_profile(profile)) == profile


def test_the_rows_tell_ranges_categories_and_what_may_be_missing() -> None:
    age, plan, x, member = with_facts(SIGNATURE, COLUMNS).inputs
    assert (age.minimum, age.maximum, age.missing) == (1.0, 4.0, True)
    assert (plan.categories, plan.missing) == (("free", "pro"), False)
    assert (x.minimum, x.maximum, x.missing) == (0.0, 7.0, False)
    # To have seen only one truth value makes the other no error.
    assert member.categories is None


@pytest.mark.parametrize(
    "values",
    [
        [f"c{number}" for number in range(255) for _ in range(2)],  # too many
        ["nice film", "bad film", "so so", "so so"],  # texts: most come once
        ["x" * 201, "x" * 201],  # too long
    ],
)
def test_words_that_are_no_categories_are_not_made_ones(values: list[str]) -> None:
    signature = Signature(inputs=(Field(name="c", datatype="BYTES", shape=(-1,)),), outputs=())
    assert with_facts(signature, {"c": words(*values)}).inputs[0].categories is None


def test_what_the_converter_knows_is_kept() -> None:
    known = Field(name="c", datatype="BYTES", shape=(-1,), missing=True, categories=("a", "z"))
    signature = Signature(inputs=(known,), outputs=())
    field = with_facts(signature, {"c": words("a", "b", "a", "b")}).inputs[0]
    assert field.categories == ("a", "b", "z")
    assert field.missing


def test_of_many_images_a_sample_is_counted_and_the_range_is_exact() -> None:
    images = np.random.default_rng(0).normal(size=(30, 3, 224, 224)).astype(np.float32)
    images[7, 1, 2, 3] = 99.0
    field = Field(name="pixels", datatype="FP32", shape=(-1, 3, 224, 224))
    signature = Signature(inputs=(field,), outputs=())
    column = make_profile(signature, {"pixels": images}, {}).inputs["pixels"]
    assert isinstance(column, Numeric)
    assert column.rows == MAX_NUMBERS < images.size
    assert column.quantiles["0.5"] == pytest.approx(0.0, abs=0.01)
    assert with_facts(signature, {"pixels": images}).inputs[0].maximum == 99.0
