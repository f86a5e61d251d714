"""The model card, `card.md`: what the model is, for whom, and how it was measured."""

from __future__ import annotations

from collections.abc import Iterable

from cloche.bundle.manifest import Manifest
from cloche.core.signature import Field
from cloche.core.units import format_duration, format_size

_NOT_SAID = "Not said. Write it with `pack(..., about=...)` before you give the bundle to others."


def make_card(manifest: Manifest) -> str:
    """The card as Markdown."""
    parts = [
        f"# {manifest.name}",
        f"{manifest.description}, {manifest.task}, from {manifest.framework}; packed {manifest.created}.",
        "## For whom, and for what",
        manifest.about.strip() if manifest.about else _NOT_SAID,
        f"Licence: {manifest.licence or 'not said'}.",
        "## What goes in, what comes out",
        _fields("input", manifest.signature.inputs),
        _fields("output", manifest.signature.outputs),
        "## How it was measured",
        *_quality(manifest),
        *_proof(manifest),
        *_cost(manifest),
        "## Where it comes from",
        _origin(manifest),
        *(f"Note: {note}." for note in manifest.notes),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """The text on one line, and not as the end of a cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _fields(what: str, fields: tuple[Field, ...]) -> str:
    rows = [(field.name, field.datatype, str(list(field.shape)), _seen(field)) for field in fields]
    return _table((what, "type", "shape", "seen"), rows)


def _seen(field: Field) -> str:
    words = []
    if field.minimum is not None and field.maximum is not None:
        words.append(f"{field.minimum:g} to {field.maximum:g}")
    names = field.classes or field.categories or ()
    if names:
        words.append(", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else ""))
    if field.missing:
        words.append("may be missing")
    return "; ".join(words)


def _quality(manifest: Manifest) -> list[str]:
    if manifest.quality is None:
        return ["Quality: not measured (no labels were given)."]
    rows = [(name, f"{value:.4f}") for name, value in manifest.quality.items()]
    return [
        f"On {manifest.rows:,} rows that were given as held out when it was packed:",
        _table(("metric", "value"), rows),
    ]


def _proof(manifest: Manifest) -> list[str]:
    golden = manifest.golden
    near = f"labels equal, numbers within {golden.atol:g} + {golden.rtol:g} of the value"
    words = [f"{golden.rows} golden examples are checked whenever it is loaded ({near})."]
    if manifest.parity is not None:
        compared = (
            "Its answers through a process of its own were compared with those of the class"
            if manifest.runtime.kind == "python"
            else "The conversion was compared with the original"
        )
        words.append(
            f"{compared} on {manifest.parity.rows:,} rows; the largest "
            f"difference of a number was {manifest.parity.max_difference:.2g}."
        )
    return words


def _cost(manifest: Manifest) -> list[str]:
    found = manifest.measured
    if found is None:
        return []
    return [
        f"On {manifest.lineage.platform}: {format_size(found.size_bytes)} of model, loaded in "
        f"{format_duration(found.load_s)}, {format_size(found.memory_bytes)} of memory; one row takes "
        f"{format_duration(found.row_p50_s)} (p50) and {format_duration(found.row_p99_s)} (p99), "
        f"{found.rows_per_s:,.0f} rows a second in bulk."
    ]


def _origin(manifest: Manifest) -> str:
    lineage = manifest.lineage
    commit = "no git repository"
    if lineage.git_commit:
        commit = f"git {lineage.git_commit}" + (" with uncommitted changes" if lineage.git_dirty else "")
    versions = ", ".join(f"{name} {version}" for name, version in lineage.packages.items())
    told = [f"{name}: `{value}`." for name, value in lineage.origin.items()]
    return "\n\n".join([f"{commit}; Cloche {lineage.cloche}, Python {lineage.python}, {versions}.", *told])
