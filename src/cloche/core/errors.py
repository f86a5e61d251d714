"""The error tree and the table of codes; standard library only, since the supervisor imports it.

ClocheError
├── InputError          a caller's values or body are wrong          (CL-E1xx)
├── ConfigError         settings, flags or an API call are wrong     (CL-E2xx)
├── NotFoundError       no such model, version, alias, key           (CL-E3xx)
├── RefusedError        policy or permission says no                 (CL-E4xx)
├── ConflictError       something else holds it                      (CL-E5xx)
├── BusyError           overloaded, late or not ready                (CL-E6xx)
├── MissingExtraError   an optional dependency or tool is missing    (CL-E7xx)
├── ConversionError     the model can't be packed exactly            (CL-E8xx)
└── ModelError          the model itself failed                      (CL-E9xx)

A transport maps these to its own codes at its edge (`serving.problems`, `cli.main`): nothing here knows HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from cloche.core.codes import CODES

_ROW = re.compile(r"\brow (\d+)")


class ClocheError(Exception):
    """Something that Cloche can explain: a code, what happened, where, and what to do next.

    `details` is a sequence of mappings (one a problem) that machines can read. `exit_code` is what
    the CLI returns. Subclasses fix the family; the code says which of it.
    """

    exit_code: ClassVar[int] = 70
    default_code: ClassVar[str] = "CL-E900"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        where: str | None = None,
        hint: str | None = None,
        details: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        if self.code not in CODES:
            raise ValueError(f"{self.code} is not in cloche.core.codes.CODES")
        self.message = message
        self.where = where
        self.hint = hint
        self.details = tuple(details)
        if hint:
            self.add_note(f"hint: {hint}")  # so that a traceback shows it as well

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def render(self) -> str:
        """The one shape that errors have everywhere (EXPERIENCE: code, what, where, hint, read)."""
        lines = [f"error[{self.code}]: {self.message}"]
        if self.where:
            lines.append(f"  --> {self.where}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        lines.append(f"  read: cloche explain {self.code}")
        return "\n".join(lines)


def _rebuild(kind: type[ClocheError], args: tuple[Any, ...], state: dict[str, Any]) -> ClocheError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InputError(ClocheError):
    """A caller's body or values are wrong; `details` has one entry a problem (row, field, code, message)."""

    exit_code = 2
    default_code = "CL-E100"

    def shifted(self, start: int) -> InputError:
        """The same, its rows counted on from `start`: for rows that came in chunks."""
        if start == 0:
            return self
        known = {detail["row"] for detail in self.details if isinstance(detail.get("row"), int)}

        def move(text: str) -> str:
            return _ROW.sub(lambda found: _moved(found, start, known), text)

        details = [
            {**detail, "row": detail["row"] + start, "message": move(str(detail.get("message", "")))}
            if isinstance(detail.get("row"), int)
            else detail
            for detail in self.details
        ]
        where = None if self.where is None else move(self.where)
        return InputError(move(self.message), code=self.code, where=where, hint=self.hint, details=details)


def _moved(found: re.Match[str], start: int, known: Collection[int]) -> str:
    """A row's number in a text, moved where it is one of those that are known (or none is)."""
    number = int(found[1])
    return f"row {number + start}" if not known or number in known else found[0]


class ConfigError(ClocheError):
    """Settings, flags or the arguments of an API call are wrong."""

    exit_code = 2
    default_code = "CL-E200"


class NotFoundError(ClocheError):
    """There is no such model, version, alias, key or file."""

    exit_code = 3
    default_code = "CL-E300"


class RefusedError(ClocheError):
    """A policy, a permission or a failed verification says no."""

    exit_code = 4
    default_code = "CL-E400"


class ConflictError(ClocheError):
    """Something else holds it, or it exists already."""

    exit_code = 5
    default_code = "CL-E500"


class BusyError(ClocheError):
    """Overloaded, too late, not ready or out of reach; `retry_after_s` says when to come back."""

    exit_code = 6
    default_code = "CL-E600"

    def __init__(self, message: str, *, retry_after_s: float = 1.0, **options: Any) -> None:
        super().__init__(message, **options)
        self.retry_after_s = retry_after_s


class MissingExtraError(ClocheError):
    """An optional dependency or an outside tool is missing."""

    exit_code = 7
    default_code = "CL-E700"


class ConversionError(ClocheError):
    """The model can't be packed so that it answers exactly as the original does."""

    exit_code = 1
    default_code = "CL-E800"


class ModelError(ClocheError):
    """The model itself failed: it raised, died or answered with the wrong shape."""

    exit_code = 1
    default_code = "CL-E900"
