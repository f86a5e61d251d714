"""A bundle as a notebook shows it: one small piece of HTML, its pictures inline, without scripts."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from cloche.bundle.profile import Categorical, Column, Numeric, Scores
from cloche.core.signature import Field
from cloche.core.units import format_duration, format_size

if TYPE_CHECKING:
    from cloche.bundle.bundle import Bundle

#: Inputs that are listed; a notebook's cell is no place for a thousand.
_MOST_FIELDS = 24
_MOST_WORDS = 12
_WIDTH, _HEIGHT = 120, 24
#: Of a column of numbers, the picture shows the middle 96 %.
_TAIL = 0.02
_STYLE = (
    ".cloche{font:13px/1.45 system-ui,sans-serif;max-width:46rem}.cloche h4{margin:0;font-size:1.15em}"
    ".cloche p{margin:.2em 0 .6em;opacity:.75}.cloche table{border-collapse:collapse;margin:.4em 0}"
    ".cloche th,.cloche td{padding:.15em .8em .15em 0;text-align:left;background:none;vertical-align:middle}"
    ".cloche svg{display:block}.cloche .f{fill:#12806a}.cloche .t{fill:#8886}"
)


def bundle_html(bundle: Bundle) -> str:
    """The whole piece; below 50 kB."""
    what = bundle.manifest
    profile = bundle.profile()
    title = escape(bundle.reference or bundle.name)
    size = format_size(sum(entry.size for entry in what.files))
    head = f"<h4>{title}</h4><p>{escape(what.framework)} {escape(what.description)} · {size} · "
    head += f"<code>sha256:{bundle.digest[:12]}</code></p>"
    parts = [head, _facts(bundle), _quality(what.quality or {})]
    parts.append(_fields("input", what.signature.inputs, profile.inputs if profile else {}))
    parts.append(_fields("output", what.signature.outputs, profile.outputs if profile else {}))
    return f'<div class="cloche"><style>{_STYLE}</style>{"".join(parts)}</div>'


def _facts(bundle: Bundle) -> str:
    what = bundle.manifest
    rows: list[tuple[str, str]] = []
    if what.parity is not None:
        rows.append(("parity", f"equal answers on {what.parity.rows:,} rows"))
    cost = what.measured
    if cost is not None:
        one = f"{format_duration(cost.row_p50_s)} (p99 {format_duration(cost.row_p99_s)})"
        if cost.original_row_s:
            one += f", {cost.original_row_s / cost.row_p50_s:.0f}x as fast as the original"
        rows += [("one row", one), ("in bulk", f"{cost.rows_per_s:,.0f} rows/s")]
        rows.append(("memory", format_size(cost.memory_bytes)))
    rows += [("note", note) for note in what.notes]
    return _table([f"<th>{name}</th><td>{escape(words)}</td>" for name, words in rows])


def _quality(quality: dict[str, float]) -> str:
    rows = []
    for name, value in quality.items():
        is_share = 0.0 <= value <= 1.0 and name not in ("mae", "rmse")
        rows.append(f"<th>{escape(name)}</th><td>{_bar(value) if is_share else ''}</td><td>{value:.4g}</td>")
    return _table(rows)


def _fields(kind: str, fields: tuple[Field, ...], columns: dict[str, Column]) -> str:
    """A line a field, and one for each of the columns that a field of several has in the profile."""
    rows = []
    for field in fields:
        shape = "" if len(field.shape) == 1 else f" {list(field.shape[1:])}"
        null = ", may be null" if field.missing else ""
        rows.append(_field(kind, field.name, f"{field.datatype}{shape}{null}", columns.get(field.name)))
        parts = [name for name in columns if name.startswith(f"{field.name}[")]
        rows += [_field("", name, "", columns[name]) for name in parts]
    more = len(rows) - _MOST_FIELDS
    return _table(rows[:_MOST_FIELDS] + ([f"<th></th><td>and {more:,} more</td>"] if more > 0 else []))


def _field(kind: str, name: str, type_: str, column: Column | None) -> str:
    picture = "" if column is None else _picture(column)
    return f"<th>{kind}</th><th>{escape(name[:60])}</th><td>{type_}</td><td>{picture}</td>"


def _table(rows: list[str]) -> str:
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>" if rows else ""


def _bar(share: float) -> str:
    filled = f'<rect class="f" width="{share * _WIDTH:.1f}" height="8"/>'
    return _svg(f'<rect class="t" width="{_WIDTH}" height="8"/>{filled}', 8, f"{share:.0%}")


def _picture(column: Column) -> str:
    """How the held-out values lie: numbers by density, words by frequency."""
    if isinstance(column, Numeric):
        return _numbers(column)
    if isinstance(column, Categorical):
        shown = list(zip(column.values, column.counts, strict=True))[:_MOST_WORDS]
        return _columns([count for _, count in shown], ", ".join(word[:20] for word, _ in shown))
    assert isinstance(column, Scores)
    step = len(column.counts) // 20
    return _columns([sum(column.counts[at : at + step]) for at in range(0, len(column.counts), step)], "0 to 1")


def _numbers(column: Numeric) -> str:
    """A bin's area is its count: the bins are of equal probability, so narrow ones are high."""
    ends = [column.minimum, *column.ends]
    total = sum(column.counts)
    bins = []
    seen = 0
    for low, high, count in zip(ends, ends[1:], column.counts[1:-1], strict=False):
        seen += count
        is_middle = _TAIL * total <= seen <= (1 - _TAIL) * total
        if low is not None and high is not None and high > low and (is_middle or len(ends) < 10):
            bins.append((low, high, count / (high - low)))
    if not bins:
        return ""
    left, right, top = bins[0][0], bins[-1][1], max(density for *_, density in bins)
    scale = _WIDTH / (right - left)
    drawn = [
        f'<rect class="f" x="{(low - left) * scale:.1f}" y="{_HEIGHT - density / top * _HEIGHT:.1f}" '
        f'width="{max((high - low) * scale, 0.5):.1f}" height="{density / top * _HEIGHT:.1f}"/>'
        for low, high, density in bins
    ]
    return _svg("".join(drawn), _HEIGHT, f"{column.minimum:g} to {column.maximum:g}")


def _columns(counts: list[int], words: str) -> str:
    top = max(counts, default=0)
    if top == 0:
        return ""
    width = _WIDTH / len(counts)
    drawn = [
        f'<rect class="f" x="{at * width:.1f}" y="{_HEIGHT - count / top * _HEIGHT:.1f}" '
        f'width="{max(width - 1, 0.5):.1f}" height="{count / top * _HEIGHT:.1f}"/>'
        for at, count in enumerate(counts)
    ]
    return _svg("".join(drawn), _HEIGHT, words)


def _svg(inner: str, height: int, words: str) -> str:
    said = escape(words, quote=True)
    size = f'width="{_WIDTH}" height="{height}"'
    return f'<svg {size} role="img" aria-label="{said}"><title>{said}</title>{inner}</svg>'
