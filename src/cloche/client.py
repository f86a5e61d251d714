"""`cloche.Client`: what callers of a served model hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time, timedelta
from types import TracebackType
from typing import Any, overload

import httpx2
import msgspec
import narwhals as nw

from cloche.core.codes import CODES
from cloche.core.errors import (
    BusyError,
    ClocheError,
    ConfigError,
    ConflictError,
    InputError,
    ModelError,
    NotFoundError,
    RefusedError,
)
from cloche.core.units import parse_duration

Row = Mapping[str, Any]

#: The first digit of a code names the family that a caller catches.
_FAMILIES: Mapping[str, type[ClocheError]] = {
    "1": InputError,
    "2": ConfigError,
    "3": NotFoundError,
    "4": RefusedError,
    "5": ConflictError,
    "6": BusyError,
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
#: The connection broke before an answer. Predictions are pure, so asking once more is safe.
_BROKEN = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError, httpx2.CloseError)


class Prediction(dict[str, Any]):
    """A Prediction is what the model said of one row: output name -> value, and what to know it by.

    `id` names it for feedback, `model` is the version that answered (`fraud:4`), and `flags` are the
    values that validation let through but marked (`on_invalid = "flag"`).
    """

    def __init__(self, outputs: Row, *, id: str, model: str, flags: Iterable[Row] = ()) -> None:
        super().__init__(outputs)
        self.id = id
        self.model = model
        self.flags = tuple(flags)


class Client:
    """A Client sends rows to a server and gives predictions back; close it, or use it in a `with`.

    `timeout` is how long it waits for the server before it gives up, and is sent along as the deadline when
    `predict` is given none, so that the server does not work on what nobody waits for.
    """

    def __init__(self, url: str, *, key: str | None = None, timeout: str | float | timedelta = "10s") -> None:
        self._timeout_s = parse_duration(timeout)
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"the url {url!r} does not begin with http:// or https://", hint="write http://localhost:8080"
            )
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        # No proxies and no .netrc from the environment: the url and the key are all there is to it.
        self._http = httpx2.Client(base_url=url.rstrip("/"), headers=headers, trust_env=False)
        self._encoder = msgspec.json.Encoder(enc_hook=_plain)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({str(self._http.base_url)!r})"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @overload
    def predict(
        self,
        name: str,
        rows: Row,
        *,
        version: int | None = None,
        deadline: str | float | timedelta | None = None,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        name: str,
        rows: Any,
        *,
        version: int | None = None,
        deadline: str | float | timedelta | None = None,
    ) -> list[Prediction]: ...

    def predict(
        self,
        name: str,
        rows: Row | Sequence[Row] | Any,
        *,
        version: int | None = None,
        deadline: str | float | timedelta | None = None,
    ) -> Prediction | list[Prediction]:
        """What the deployment `name` says of one row (a mapping) or of many (a list of mappings, a frame).

        Missing values are `None` or NaN. Raises InputError when a value is wrong, BusyError (with
        `retry_after_s`) when the server is overloaded, late or out of reach, RefusedError when the key is
        not good, NotFoundError when nothing is deployed under the name, ModelError when the model failed.
        """
        seconds = self._timeout_s if deadline is None else parse_duration(deadline)
        one = isinstance(rows, Mapping)
        response = self._post(
            f"/predict/{name}",
            self._encode(_records([rows] if one else rows), one=one),
            params={} if version is None else {"version": str(version)},
            headers={"Cloche-Deadline": f"{max(1, math.ceil(seconds * 1000))}ms"},
        )
        if response.status_code != 200:
            raise _error(response)
        body = msgspec.json.decode(response.content)
        if one:
            return Prediction(
                body["prediction"], id=body["prediction_id"], model=body["model"], flags=body.get("flags", ())
            )
        return [
            Prediction(
                outputs,
                id=f"{body['prediction_id']}.{index}",
                model=body["model"],
                flags=[flag for flag in body.get("flags", ()) if flag["row"] == index],
            )
            for index, outputs in enumerate(body["predictions"])
        ]

    def ready(self) -> bool:
        """Whether the server would take a request now: models loaded, not draining."""
        try:
            return self._http.get("/readyz", timeout=self._timeout_s).status_code == 200
        except httpx2.TransportError:
            return False

    def _encode(self, rows: Sequence[Row], *, one: bool) -> bytes:
        for row in rows:
            for name, value in row.items():
                if isinstance(value, (date, time, timedelta)):
                    raise ConfigError(
                        f"`{name}` holds a {type(value).__name__}, which can't be sent",
                        hint="send it as text or a number, as the model was packed with",
                    )
        return self._encoder.encode(rows[0] if one else {"rows": rows})

    def _post(self, path: str, body: bytes, **options: Any) -> httpx2.Response:
        send = self._http.post
        try:
            try:
                return send(path, content=body, timeout=self._timeout_s, **options)
            except _BROKEN:
                return send(path, content=body, timeout=self._timeout_s, **options)
        except httpx2.TimeoutException as error:
            raise BusyError(
                f"no answer within {self._timeout_s:g} s",
                code="CL-E602",
                where=str(self._http.base_url),
                hint="give Client(..., timeout=) more, or ask the server's log what holds it",
            ) from error
        except httpx2.TransportError as error:
            raise BusyError(
                f"nothing answers at {self._http.base_url}: {error}",
                code="CL-E605",
                where=str(self._http.base_url),
                hint="is `cloche up` running, and is this its address?",
            ) from error


def _records(rows: Any) -> list[Row]:
    """The rows of a list of mappings or of any data frame."""
    frame = nw.from_native(rows, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        return list(frame.iter_rows(named=True))
    if isinstance(rows, (list, tuple)) and all(isinstance(row, Mapping) for row in rows):
        return list(rows)
    if isinstance(rows, (list, tuple)):
        odd = next(row for row in rows if not isinstance(row, Mapping))
        raise ConfigError(
            f"a row is a {type(odd).__name__}, not a mapping of field to value", hint='send [{"age": 41}, …]'
        )
    raise ConfigError(
        f"rows can't be sent from a {type(rows).__name__}",
        hint="give one mapping of field to value, a list of them, or a data frame",
    )


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy as Python's own, and the missing value of pandas as None."""
    if type(value).__name__ == "NAType":
        return None
    to_list = getattr(value, "tolist", None)
    if to_list is None:
        raise ConfigError(
            f"a value of type {type(value).__name__} can't be sent", hint="send numbers, strings, True or None"
        )
    return to_list()


def _error(response: httpx2.Response) -> ClocheError:
    """The error that the server answered with, as the class that its code belongs to."""
    try:
        problem = msgspec.json.decode(response.content, type=dict[str, Any])
    except msgspec.DecodeError:
        problem = {}
    code = str(problem.get("code", ""))
    family = _FAMILIES.get(code[4:5]) or _STATUSES.get(response.status_code, ClocheError)
    options: dict[str, Any] = {
        "code": code if code in CODES else None,  # a newer server may know more
        "where": problem.get("where") or str(response.url),
        "hint": problem.get("hint"),
        "details": problem.get("errors", ()),
    }
    if family is BusyError:
        options["retry_after_s"] = _seconds(response.headers.get("Retry-After"))
    message = str(
        problem.get("detail")
        or problem.get("title")
        or f"the answer was {response.status_code} {response.reason_phrase}"
    )
    retry = response.headers.get("Retry-After")
    if family is BusyError and retry is not None and "try again in" not in message:
        message += f"; try again in {options['retry_after_s']:g} s"
    return family(message + _listed(options["details"]), **options)


def _listed(problems: Any) -> str:
    """The first three of several problems, a line each, as the CLI lists them."""
    if not isinstance(problems, list) or len(problems) < 2:
        return ""
    shown = [problem for problem in problems[:3] if isinstance(problem, dict)]
    lines = [f"\n  {one.get('field') or 'row'}: {one.get('message') or one.get('code')}" for one in shown]
    more = f"\n  and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "".join(lines) + more


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 1))
    except ValueError:
        return 1.0  # a date: not worth a parser, since ours are seconds
