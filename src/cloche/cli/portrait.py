"""Bundles in words: what `pack`, `models show` and `diff` print of them."""

from __future__ import annotations

from cloche.bundle.diff import BundleDiff
from cloche.bundle.manifest import Manifest, Measured
from cloche.cli.terminal import table
from cloche.core.signature import Field, Signature
from cloche.core.units import format_duration, format_size

#: More than this of a column's categories does not fit beside its type.
_SEEN_WIDTH = 60
#: The farthest columns of a comparison; the rest is in `--json`.
_SHIFTS = 10
#: The words for what is measured.
_NAMES = {
    "size_bytes": "size",
    "memory_bytes": "memory",
    "load_s": "load",
    "row_p50_s": "one row, p50",
    "row_p99_s": "one row, p99",
    "rows_per_s": "rows/s in bulk",
    "roc_auc": "ROC AUC",
    "f1": "F1",
    "r2": "R²",
    "mae": "MAE",
    "rmse": "RMSE",
}
#: What depends on the machine and the moment, and how much of it then says nothing.
_TIMINGS = {"load_s", "row_p50_s", "row_p99_s", "rows_per_s"}
_NOISE = 0.3


def describe(what: Manifest) -> dict[str, str]:
    """The facts of a bundle, name -> words."""
    cost, runtime = what.measured, what.runtime
    quality = ", ".join(f"{name} {value:.4g}" for name, value in (what.quality or {}).items())
    facts = {
        "framework": f"{what.framework}, {what.description}",
        "parity": _parity(what),
        **(_costs(cost) if cost is not None else {}),
        "runtime": f"{runtime.kind}, threads: {runtime.threads} for a row, {runtime.bulk_threads} in bulk",
        "quality": quality or "not measured",
        "packed": f"{what.created}, {what.rows:,} rows, {what.golden.rows} golden examples",
    }
    return facts | {f"note {number}": note for number, note in enumerate(what.notes, 1)}


def signature_table(signature: Signature) -> list[str]:
    """One line a field: which way, name, type, shape, and what the data showed of it."""
    rows = [["in", *_field(field)] for field in signature.inputs]
    rows += [["out", *_field(field)] for field in signature.outputs]
    return table(["WAY", "FIELD", "TYPE", "SHAPE", "SEEN"], rows)


def difference(found: BundleDiff) -> list[str]:
    """What changed, a line each; one line when nothing did. What is equal to three digits is not shown."""
    if found.same:
        return [f"{found.before} and {found.after} are the same bundle"]
    numbers = [
        [kind, _NAMES.get(name, name), _number(name, before), _number(name, after), _change(name, before, after)]
        for kind, measured in (("quality", found.quality), ("cost", found.costs))
        for name, (before, after) in measured.items()
        if _differs(before, after)
    ]
    numbers += [
        ["profile", shift.column, "", "", f"moved {shift.distance:.3f}"]
        for shift in found.profile[:_SHIFTS]
        if round(shift.distance, 3)
    ]
    signature = [f"signature: {change}" for change in found.signature] or ["signature: the same"]
    if found.quality and not any(row[0] == "quality" for row in numbers):
        signature.append("quality: the same to three digits")
    shown = ["", *table(["", "WHAT", found.before, found.after, "CHANGE"], numbers)] if numbers else []
    return [*signature, *found.other, *shown]


def _parity(what: Manifest) -> str:
    found, is_code = what.parity, what.runtime.kind == "python"
    if found is None:
        return f"not compared: the {'class' if is_code else 'file'} is its own original"
    rows = f"{found.rows:,} rows (largest difference {found.max_difference:.2g})"
    if is_code:
        return f"not converted: in a process of its own the class answers as it does here, on {rows}"
    return f"same answers on {rows}"


def _costs(cost: Measured) -> dict[str, str]:
    original = f" (the original: {format_duration(cost.original_row_s)})" if cost.original_row_s else ""
    return {
        "size": f"{format_size(cost.original_bytes)} before, {format_size(cost.size_bytes)} packed",
        "one row": f"p50 {format_duration(cost.row_p50_s)}, p99 {format_duration(cost.row_p99_s)}{original}",
        "in bulk": f"{cost.rows_per_s:,.0f} rows/s",
        "load": f"{format_duration(cost.load_s)}, {format_size(cost.memory_bytes)} of memory",
    }


def _field(field: Field) -> list[str]:
    seen = ""
    if named := field.categories or field.classes:
        seen = ", ".join(named)
    elif field.minimum is not None and field.maximum is not None:
        seen = f"{field.minimum:g} to {field.maximum:g}"
    if len(seen) > _SEEN_WIDTH:
        seen = f"{seen[: _SEEN_WIDTH - 1]}…"
    if field.missing:
        seen = f"{seen} or missing".strip()
    return [field.name, field.datatype, str(list(field.shape)), seen]


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name.endswith("_bytes"):
        return format_size(value)
    if name.endswith("_s") and not name.endswith("per_s"):
        return format_duration(value)
    return f"{value:,.0f}" if name.endswith("per_s") else f"{value:.4g}"


def _differs(before: float | None, after: float | None) -> bool:
    """Whether they differ in what a reader takes in: three digits."""
    if before is None or after is None:
        return before is not after
    return f"{before:.3g}" != f"{after:.3g}"


def _change(name: str, before: float | None, after: float | None) -> str:
    if before is None or after is None or not before:
        return ""
    change = (after - before) / abs(before)
    noisy = name in _TIMINGS and abs(change) <= _NOISE
    return f"{change:+.1%}{'  within noise' if noisy else ''}"
