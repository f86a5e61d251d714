"""What a server answers: predictions, or a problem as the error that its code belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import httpx2
import msgspec

from cloche.core.codes import CODES
from cloche.core.errors import (
    BusyError,
    ClocheError,
    ConfigError,
    ConflictError,
    InputError,
    MissingExtraError,
    ModelError,
    NotFoundError,
    RefusedError,
)

#: The first digit of a code names the family that a caller catches.
_FAMILIES: Mapping[str, type[ClocheError]] = {
    "1": InputError,
    "2": ConfigError,
    "3": NotFoundError,
    "4": RefusedError,
    "5": ConflictError,
    "6": BusyError,
    "7": MissingExtraError,
    "9": ModelError,
}
#: The same for an answer that is no problem of ours, as a proxy in between may give.
_STATUSES: Mapping[int, type[ClocheError]] = {
    401: RefusedError,
    403: RefusedError,
    404: NotFoundError,
    429: BusyError,
    502: BusyError,
    503: BusyError,
    504: BusyError,
}


class Prediction(dict[str, Any]):
    """A Prediction is what the model said of one row: output name -> value, and what to know it by.

    `id` names it for feedback, `model` is the version that answered (`fraud:4`), and `flags` are the
    values that validation let through but marked (`on_invalid = "flag"`).
    """

    def __init__(
        self, outputs: Mapping[str, Any], *, id: str, model: str, flags: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        super().__init__(outputs)
        self.id = id
        self.model = model
        self.flags = tuple(flags)


def one_prediction(body: Mapping[str, Any]) -> Prediction:
    """The prediction of an answer to one object."""
    return Prediction(
        body["prediction"], id=body["prediction_id"], model=body["model"], flags=body.get("flags", ())
    )


def many_predictions(body: Mapping[str, Any], start: int) -> list[Prediction]:
    """The predictions of an answer to many; `start` is the number of the first of them among all rows."""
    flags: dict[int, list[Mapping[str, Any]]] = {}
    for flag in body.get("flags", ()):
        flags.setdefault(flag["row"], []).append({**flag, "row": flag["row"] + start})
    return [
        Prediction(outputs, id=f"{body['prediction_id']}.{row}", model=body["model"], flags=flags.get(row, ()))
        for row, outputs in enumerate(body["predictions"])
    ]


def error_of(response: httpx2.Response, start: int = 0) -> ClocheError:
    """The error that the server answered with; rows that it names are counted on from `start`."""
    try:
        problem = msgspec.json.decode(response.content, type=dict[str, Any])
    except msgspec.DecodeError:
        problem = {}
    code = str(problem.get("code") or response.headers.get("Cloche-Error", ""))
    family = _FAMILIES.get(code[4:5]) or _STATUSES.get(response.status_code, ClocheError)
    options: dict[str, Any] = {
        "code": code if code in CODES else None,  # a newer server may know more
        "where": problem.get("where") or str(response.url),
        "hint": problem.get("hint"),
        "details": problem.get("errors", ()),
    }
    if family is BusyError:
        options["retry_after_s"] = retry_after(response) or 1.0
    message = str(
        problem.get("detail")
        or problem.get("error")
        or problem.get("title")
        or f"the answer was {response.status_code} {response.reason_phrase}"
    )
    if family is BusyError and "Retry-After" in response.headers and "try again in" not in message:
        message += f"; try again in {options['retry_after_s']:g} s"
    error = family(message + _listed(options["details"]), **options)
    return error.shifted(start) if isinstance(error, InputError) else error


def retry_after(response: httpx2.Response) -> float | None:
    """Seconds until the server wants to be asked again; None where it does not say, or by a date."""
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _listed(problems: Any) -> str:
    """The first three of several problems, a line each, as the CLI lists them."""
    if not isinstance(problems, list) or len(problems) < 2:
        return ""
    shown = [problem for problem in problems[:3] if isinstance(problem, dict)]
    lines = [f"\n  {one.get('field') or 'row'}: {one.get('message') or one.get('code')}" for one in shown]
    more = f"\n  and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "".join(lines) + more
