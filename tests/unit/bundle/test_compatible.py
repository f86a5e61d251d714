"""Whether callers of one version can ask another without changing anything."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.bundle.compatible import breaks
from cloche.core.signature import Field, Signature

AGE = Field(name="age", datatype="INT64", shape=(-1,))
PAY = Field(name="pay", datatype="FP64", shape=(-1,), missing=True)
JOB = Field(name="job", datatype="BYTES", shape=(-1,), categories=("cook", "nurse"))
LABEL = Field(name="label", datatype="BYTES", shape=(-1,), classes=("no", "yes"))
CHANCES = Field(name="probabilities", datatype="FP32", shape=(-1, 2), classes=("no", "yes"))
BEFORE = Signature(inputs=(AGE, PAY, JOB), outputs=(LABEL, CHANCES))


def but(field: Field, **changes: object) -> Field:
    return msgspec.structs.replace(field, **changes)


@pytest.mark.parametrize(
    "inputs",
    [
        (AGE, PAY, JOB),
        (JOB, AGE, PAY),  # they go by their names
        (but(AGE, missing=True), PAY, JOB),
        (but(AGE, minimum=0.0, maximum=120.0), PAY, JOB),
        # values out of these are marked, and every version has seen others
        (AGE, PAY, but(JOB, categories=("pilot",))),
        (AGE, PAY, but(JOB, categories=None)),
        # who does not know of it does not send it
        (AGE, PAY, JOB, Field(name="height", datatype="FP64", shape=(-1,), missing=True)),
        (AGE, PAY, JOB, Field(name="town", datatype="BYTES", shape=(-1,), missing=True)),
    ],
)
def test_inputs_that_callers_need_not_know_of(inputs: tuple[Field, ...]) -> None:
    assert breaks(BEFORE, Signature(inputs=inputs, outputs=BEFORE.outputs)) == ()


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((AGE, PAY), ("input job is gone",)),
        ((AGE, PAY, but(JOB, name="work")), ("input job is gone", "input work is new and must be sent")),
        ((AGE, PAY, JOB, but(AGE, name="height")), ("input height is new and must be sent",)),
        # there is no null among whole numbers
        (
            (AGE, PAY, JOB, Field(name="height", datatype="INT64", shape=(-1,), missing=True)),
            ("input height is new and must be sent",),
        ),
        ((but(AGE, datatype="FP32"), PAY, JOB), ("input age was INT64 [-1], is FP32 [-1]",)),
        ((but(AGE, shape=(-1, 2)), PAY, JOB), ("input age was INT64 [-1], is INT64 [-1, 2]",)),
        ((AGE, but(PAY, missing=False), JOB), ("input pay may no longer be missing",)),
        # the type is told, and not what follows from it
        ((AGE, but(PAY, missing=False, datatype="FP32"), JOB), ("input pay was FP64 [-1], is FP32 [-1]",)),
        (
            (but(AGE, datatype="FP32"), JOB),
            ("input age was INT64 [-1], is FP32 [-1]", "input pay is gone"),
        ),
    ],
)
def test_inputs_that_callers_would_have_to_change(inputs: tuple[Field, ...], words: tuple[str, ...]) -> None:
    assert breaks(BEFORE, Signature(inputs=inputs, outputs=BEFORE.outputs)) == words


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ((LABEL, CHANCES), ()),
        ((CHANCES, LABEL), ()),
        ((LABEL, CHANCES, but(CHANCES, name="more")), ()),
        ((CHANCES,), ("output label is gone",)),
        ((LABEL, but(CHANCES, datatype="FP64")), ("output probabilities was FP32 [-1, 2], is FP64 [-1, 2]",)),
        (
            (but(LABEL, classes=("no", "perhaps")), CHANCES),
            ("the classes of output label differ",),
        ),
        # their order is that of the columns
        ((LABEL, but(CHANCES, classes=("yes", "no"))), ("the classes of output probabilities differ",)),
        ((but(LABEL, classes=None), CHANCES), ("the classes of output label differ",)),
        ((but(LABEL, missing=True), CHANCES), ("output label may be missing now",)),
        (
            (LABEL, but(CHANCES, shape=(-1, 3), classes=("no", "perhaps", "yes"))),
            (
                "output probabilities was FP32 [-1, 2], is FP32 [-1, 3]",
                "the classes of output probabilities differ",
            ),
        ),
    ],
)
def test_outputs_that_callers_read(outputs: tuple[Field, ...], words: tuple[str, ...]) -> None:
    assert breaks(BEFORE, Signature(inputs=BEFORE.inputs, outputs=outputs)) == words


def test_an_output_that_is_never_missing_any_more_breaks_nobody() -> None:
    before = Signature(inputs=(AGE,), outputs=(but(LABEL, missing=True),))
    assert breaks(before, Signature(inputs=(AGE,), outputs=(LABEL,))) == ()


FIELDS = st.lists(
    st.builds(
        Field,
        name=st.sampled_from(["a", "b", "c"]),
        datatype=st.sampled_from(["FP64", "INT64", "BYTES"]),
        shape=st.sampled_from([(-1,), (-1, 2)]),
        missing=st.booleans(),
    ),
    max_size=3,
    unique_by=lambda field: field.name,
).map(tuple)
SIGNATURES = st.builds(Signature, inputs=FIELDS, outputs=FIELDS)


@given(SIGNATURES)
def test_nothing_breaks_itself(signature: Signature) -> None:
    assert breaks(signature, signature) == ()


@given(SIGNATURES, SIGNATURES, SIGNATURES)
def test_what_breaks_nobody_twice_breaks_nobody(one: Signature, two: Signature, three: Signature) -> None:
    if not breaks(one, two) and not breaks(two, three):
        assert breaks(one, three) == ()
