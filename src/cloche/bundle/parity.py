"""Parity: does the bundle answer as the original did, row by row?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cloche.bundle.manifest import ParityFacts
from cloche.core.errors import ConversionError
from cloche.core.signature import Array, Columns, count_rows

Mask = npt.NDArray[np.bool_]

#: So many rows are named in an error.
NAMED = 5


def compare(
    reference: Columns,
    answers: Columns,
    *,
    rtol: float,
    atol: float,
    inputs: Columns | None = None,
    trees: bool = False,
) -> ParityFacts:
    """How many rows were compared, and the largest |answer - reference| of a number (0.0 without numbers).

    `reference` and `answers` have the same outputs and rows. Floats must be within atol + rtol * |reference|,
    with NaN and infinities in the same places; everything else must be equal. Raises
    ConversionError (CL-E801) that names rows, the distance and a likely reason, for which it helps to know the
    `inputs` of these rows, and whether the model has `trees`.
    """
    rows = count_rows(reference)
    if wrong := reference.keys() - answers.keys():
        raise ConversionError(f"the bundle does not answer {', '.join(sorted(wrong))}", code="CL-E801")
    largest = 0.0
    for name, expected in reference.items():
        found = answers[name]
        if found.shape != expected.shape:
            raise ConversionError(
                f"{name} has the shape {list(found.shape)}, the original's {list(expected.shape)}",
                code="CL-E801",
            )
        differs, difference = differences(expected, found, rtol=rtol, atol=atol)
        if differs.any():
            raise _mismatch(name, expected, found, differs, difference, inputs, trees)
        largest = max(largest, difference)
    return ParityFacts(rows=rows, max_difference=largest)


def differences(expected: Array, found: Array, *, rtol: float, atol: float) -> tuple[Mask, float]:
    """Which rows differ, a bool each, and the largest distance of a finite number."""
    if expected.dtype.kind == "f" or found.dtype.kind == "f":
        wide, other = expected.astype(np.float64), found.astype(np.float64)
        close = np.asarray(np.isclose(other, wide, rtol=rtol, atol=atol, equal_nan=True))
        both = np.isfinite(wide) & np.isfinite(other)
        distance = float(np.max(np.abs(wide[both] - other[both]), initial=0.0))
    else:
        close = np.asarray(expected == found, dtype=np.bool_)
        distance = 0.0
    differs: Mask = np.logical_not(close.reshape(close.shape[0], -1).all(axis=1))
    return differs, distance


def _mismatch(
    name: str,
    expected: Array,
    found: Array,
    differs: Mask,
    distance: float,
    inputs: Columns | None,
    trees: bool,
) -> ConversionError:
    rows = np.flatnonzero(differs)
    shown = ", ".join(str(row) for row in rows[:NAMED]) + (", …" if len(rows) > NAMED else "")
    first = int(rows[0])
    numbers = expected.dtype.kind == "f"
    far = f", up to {distance:.3g} apart" if numbers else ""
    return ConversionError(
        f"{name} differs on {len(rows)} of {len(expected)} rows (row {shown}){far}: "
        f"row {first} was {_show(expected[first])} and is {_show(found[first])}",
        code="CL-E801",
        hint=_reason(expected, found, differs, numbers, inputs, trees),
        details=[
            {"row": int(row), "output": name, "expected": _show(expected[row]), "found": _show(found[row])}
            for row in rows[:NAMED]
        ],
    )


def _reason(
    expected: Array, found: Array, differs: Mask, numbers: bool, inputs: Columns | None, trees: bool
) -> str:
    share = float(differs.mean())
    if numbers and not np.array_equal(np.isnan(expected), np.isnan(found.astype(np.float64))):
        return "a missing value is handled differently; impute missing values in the pipeline, before the model"
    if share > 0.5:
        return "most rows differ, so a step is converted wrongly; pack the model as a Python class instead"
    if inputs is not None and (name := _missing_string(inputs, differs)) is not None:
        return (
            f"the rows that differ have a missing string in {name!r}: scikit-learn tells None (a category of its "
            "own) from NaN (missing); use one of them throughout, and fit again"
        )
    if trees and share < 0.05:
        return (
            "few rows differ, so they may lie at a split point of a tree, where float32 and float64 decide "
            "differently; fit on float32 rows, or pack the model as a Python class"
        )
    return "a step treats these rows differently as ONNX; pack the model as a Python class instead"


def _missing_string(inputs: Columns, differs: Mask) -> str | None:
    """The column of strings in which every row that differs has nothing, if there is one."""
    for name, column in inputs.items():
        if column.dtype == object and all(value is None for value in column[: len(differs)][differs].flat):
            return name
    return None


def _show(value: object) -> str:
    text = np.array2string(value, precision=9, threshold=8) if isinstance(value, np.ndarray) else repr(value)
    return text if len(text) <= 120 else text[:117] + "…"
