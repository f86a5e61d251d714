"""The page at /docs: what can be asked of the model, a real example, and a place to try it; works offline."""

from __future__ import annotations

from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined

from cloche.core.signature import Field
from cloche.engine.validate import describe
from cloche.serving.protocols.base import Live
from cloche.serving.protocols.schema import example_row


def docs_page(live: Live) -> bytes:
    """The whole page, rendered once at the start of a worker."""
    environment = Environment(
        loader=PackageLoader("cloche.serving", "static"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    example = msgspec.json.format(msgspec.json.encode(example_row(live.examples, live.signature)), indent=2)
    return (
        environment.get_template("docs.html")
        .render(
            live=live,
            inputs=[_row(field) for field in live.signature.inputs],
            outputs=[_row(field) for field in live.signature.outputs],
            example=example.decode(),
            compact=msgspec.json.encode(example_row(live.examples, live.signature)).decode(),
        )
        .encode()
    )


def _row(field: Field) -> dict[str, Any]:
    takes = describe(field)
    if field.classes is not None:
        takes = f"{'probability of each of' if len(field.shape) == 2 else 'one of'} {', '.join(field.classes)}"
    return {"name": field.name, "type": field.datatype, "shape": list(field.shape), "takes": takes}
