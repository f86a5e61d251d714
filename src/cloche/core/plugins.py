"""What is installed for an entry-point group: converters, runtimes, dialects and body formats."""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points


@functools.cache
def plugins(group: str) -> dict[str, EntryPoint]:
    """Every entry point of a group by its name, in order of names; looked for once in a process."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda point: point.name)}
