"""Passwords in what people see: none."""

from __future__ import annotations

import re

#: The password in a URL, before the host or among the options; rather too much than too little.
_PASSWORD = re.compile(r"(?<=//)([^:/@]*:).*@|([?&](?:ssl)?password=)[^&]*")


def masked(text: str) -> str:
    """A URL with `***` for its password; other texts as they are."""
    return _PASSWORD.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", text)
