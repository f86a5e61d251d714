"""The templates of the pages, compiled once in a process."""

from __future__ import annotations

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(name: str, **values: Any) -> bytes:
    """A page of `static`, filled in."""
    return _environment().get_template(name).render(**values).encode()


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("cloche.serving", "static"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
