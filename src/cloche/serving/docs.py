"""The page at /docs: what can be asked of the model, a real example, and a place to try it; works offline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cloche.core.signature import FLOATS, INTEGERS, Field
from cloche.engine.validate import describe
from cloche.serving.protocols.base import Live
from cloche.serving.protocols.schema import example_row, example_value
from cloche.serving.templates import render


def index_page(lives: Sequence[Live]) -> bytes:
    """The page that leads to the others, where there are several deployments."""
    return render("index.html", lives=lives)


def docs_page(live: Live) -> bytes:
    """The whole page of a deployment: at /docs, or where it is not the only one below that."""
    row = example_row(live.examples, live.signature)
    compact = msgspec.json.encode(row).decode()
    example = msgspec.json.format(msgspec.json.encode(row), indent=2)
    return render(
        "docs.html",
        live=live,
        root="../" if live.neighbours else "",
        inputs=[_row(field) for field in live.signature.inputs],
        outputs=[_row(field) for field in live.signature.outputs],
        example=example.decode(),
        compact=compact,
        quoted="'" + compact.replace("'", "'\\''") + "'",
        python=repr(row),
        answer=_answer(live),
    )


def _row(field: Field) -> dict[str, Any]:
    told = describe(field)
    if field.classes is not None:
        told = f"{'probability of each of' if len(field.shape) == 2 else 'one of'} {', '.join(field.classes)}"
    return {
        "name": field.name, "type": field.datatype, "shape": list(field.shape), "takes": told,
        "kind": _kind(field), "size": _size(field),
    }  # fmt: skip


def _kind(field: Field) -> str:
    words = {"BYTES": "text", "BOOL": "true or false"}
    return words.get(field.datatype) or ("whole number" if field.datatype in INTEGERS else "number")


def _size(field: Field) -> str:
    tail = field.shape[1:]
    if not tail:
        return "one value a row"
    return f"{' × '.join('any number' if size < 0 else str(size) for size in tail)} values a row"


def _answer(live: Live) -> str | None:
    """What the model answered to the example, as our own dialect writes it; its numbers rounded for reading."""
    if live.answers is None:
        return None
    prediction: dict[str, Any] = {}
    for field in live.signature.outputs:
        value = example_value(live.answers[field.name][0])
        if field.datatype in FLOATS and not isinstance(value, str):
            value = _rounded(value)
        if field.classes is not None and isinstance(value, list):
            value = dict(zip(field.classes, value, strict=True))
        prediction[field.name] = value
    body = {"model": live.ref, "prediction_id": "0" * 24, "prediction": prediction}
    return msgspec.json.format(msgspec.json.encode(body), indent=2).decode()


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
