"""What callers are told in plain words: misspelt names, bodies that are not JSON, types."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import msgspec

from cloche.core.errors import InputError

#: Names that are compared to find what was meant; more would cost too much.
_MOST_COMPARED = 500
#: What is said of a type or a form.
_LONGEST = 200
_AT = re.compile(r"\(byte (\d+)\)")
_NOT_A_NUMBER = re.compile(rb"-?(?:nan|inf(?:inity)?)\b", re.IGNORECASE)
_PYTHON = re.compile(rb"'|(?:None|True|False)\b")
_TYPE = re.compile(r"`([^`$]+)`")
_TYPES = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "array": "a list",
    "object": "an object", "null": "null",
}  # fmt: skip


def meant(given: str, names: Sequence[str]) -> str | None:
    """The one of `names` that `given` is most like, if any is."""
    if len(given) > 60:
        return None
    near = difflib.get_close_matches(given, names[:_MOST_COMPARED], n=1)
    return near[0] if near else None


def not_json(body: bytes, error: Exception) -> str:
    """Why a body is not JSON."""
    if isinstance(error, RecursionError):
        return "the body is not JSON: it is nested too deeply"
    reason = str(error).removeprefix("JSON is malformed: ")
    found = _AT.search(reason)
    if found is not None:
        at = int(found[1])
        if _PYTHON.match(body, at):
            return "this is not JSON (Python's quotes?)"
        # of a word like null the position is that of its end
        if any(_NOT_A_NUMBER.match(body, start) for start in range(max(at - 4, 0), at + 1)):
            return "JSON has no NaN: send null for a missing number"
    return f"the body is not JSON: {reason}"


def unread(body: bytes, error: Exception) -> InputError:
    """The error for a request that msgspec can't read: not JSON, or of another form."""
    code = "CL-E102" if isinstance(error, msgspec.ValidationError) else "CL-E101"
    said = not_json(body, error) if code == "CL-E101" else plain(error)
    return InputError(f"the request can't be read: {said}", code=code, where="request body")


def plain(error: Exception) -> str:
    """The words of msgspec about a type or a form, without the names that Python has for types."""
    text = str(error)
    text = _TYPE.sub(lambda found: _name(found[1]), text)
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"  # it may name a caller's member
    return text.replace("Object missing required field", "there is no").replace("Expected", "expected")


def _name(name: str) -> str:
    if set(name.split(" | ")) <= set(_TYPES):
        return " or ".join(_TYPES[part] for part in name.split(" | "))
    return f"`{name}`"
