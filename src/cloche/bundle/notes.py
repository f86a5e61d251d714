"""What whoever uses a bundle should know of its packing: the notes of the manifest."""

from __future__ import annotations

from typing import Any

import numpy as np

from cloche.bundle.converters.base import Converted
from cloche.bundle.rows import as_array
from cloche.core.signature import Columns, Signature, count_rows
from cloche.core.words import listed

#: Below this what the rows say is chance.
_FEW_ROWS = 30
_NO_ROWS = "packed without rows: inputs were drawn, there is no profile and no baseline quality"
_NO_QUALITY = "labels were given, but there is no baseline quality for outputs of this kind"
_NO_LABELS = "packed without labels: there is no baseline quality"


def make_notes(converted: Converted, outputs: Columns, y: Any, *, has_quality: bool) -> tuple[str, ...]:
    """The notes; `outputs` are the answers to all rows and `y` their labels, None without."""
    notes = []
    given = converted.columns
    if given is None:
        notes.append(_NO_ROWS)
    elif y is None:
        notes.append(_NO_LABELS)
    elif not has_quality:
        notes.append(_NO_QUALITY)
    if given is not None and count_rows(given) < _FEW_ROWS:
        notes.append(f"only {count_rows(given)} rows were given: quality, ranges and categories mean little")
    if y is not None and (strangers := _never_known(converted.signature, y)):
        notes.append(f"the labels hold classes that the model never learnt: {listed(strangers, 5)}")
    if converted.unused:
        notes.append(f"columns that the model does not use were left out: {listed(converted.unused)}")
    odd = _not_finite(outputs)
    if odd:
        notes.append(f"{odd} of {count_rows(outputs)} rows get a number that is not finite: an error when served")
    return tuple(notes)


def _never_known(signature: Signature, y: Any) -> list[str]:
    """The labels that are none of the model's classes, as far as these are known."""
    label = signature.output("label")
    if label is None or label.classes is None or label.datatype.startswith("FP") or label.datatype == "BOOL":
        return []
    found = {
        str(int(each)) if isinstance(each, float) and each.is_integer() else str(each)
        for each in as_array(y).ravel().tolist()
    }
    known = set(label.classes)
    if not found & known:
        return []  # other names for the same classes, perhaps
    return sorted(found - known)


def _not_finite(outputs: Columns) -> int:
    """How many rows have an answer with a number that is not finite."""
    odd = np.zeros(count_rows(outputs), dtype=bool)
    for output in outputs.values():
        if output.dtype.kind == "f":
            odd |= ~np.isfinite(output).reshape(len(odd), -1).all(axis=1)
    return int(odd.sum())
