"""`cloche explain`: what an error code means and what to do about it."""

from __future__ import annotations

import difflib
import textwrap
from typing import Annotated

from cyclopts import Parameter

from cloche.cli.terminal import Terminal
from cloche.core.codes import CODES
from cloche.core.errors import NotFoundError

_WIDTH = 76


def explain(code: str, /, *, terminal: Annotated[Terminal, Parameter(parse=False)]) -> None:
    """Say what an error code means and what to do about it.

    Parameters
    ----------
    code
        The code that stands in the brackets of an error.
    """
    wanted = code.upper()
    if wanted not in CODES:
        close = difflib.get_close_matches(wanted, CODES, n=1)
        raise NotFoundError(
            f"there is no error code {code!r}",
            hint=f"did you mean {close[0]}?" if close else "codes look like CL-E104",
        )
    title, remedy = CODES[wanted]
    terminal.answer(
        "ErrorCode",
        {"code": wanted, "title": title, "remedy": remedy},
        [f"{wanted}: {title}", *(f"  {line}" for line in textwrap.wrap(remedy, _WIDTH, break_on_hyphens=False))],
    )
