"""`cloche.Client` and `cloche.AsyncClient`: what callers of a served model hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeAlias, TypeVar, overload

import httpx2
from narwhals.typing import IntoDataFrameT

from cloche.client.answers import Prediction
from cloche.client.predict import Link, Question
from cloche.client.rows import Row
from cloche.client.talk import BrokeOffError, Call, Pause, Talk
from cloche.core.errors import ConfigError
from cloche.core.signature import Array, Signature
from cloche.core.units import parse_duration

T = TypeVar("T")
Duration: TypeAlias = str | float | timedelta


class _Caller:
    """What both clients know: the server, the key, and how long to wait."""

    def __init__(self, url: str, key: str | None, timeout: Duration) -> None:
        self._timeout_s = parse_duration(timeout)
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"the url {url!r} does not begin with http:// or https://", hint="write http://localhost:8080"
            )
        self._link = Link(url.rstrip("/"))
        # No proxies and no .netrc from the environment: the url and the key are all there is to it.
        self._options: dict[str, Any] = {
            "base_url": self._link.origin,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "trust_env": False,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._link.origin!r})"

    def _question(self, name: str, version: int | None, deadline: Duration | None) -> Question:
        deadline_s = self._timeout_s if deadline is None else parse_duration(deadline)
        return Question(self._link, name, version, self._timeout_s, deadline_s)


class Client(_Caller):
    """A Client sends rows to a server and gives predictions back; close it, or use it in a `with`.

    `timeout` is how long it waits for the answer to one request before it gives up. It is sent along as the
    deadline when `predict` is given none, so that the server does not work on what nobody waits for. Durations
    are `"80ms"`, a number of seconds or a timedelta.
    """

    def __init__(self, url: str, *, key: str | None = None, timeout: Duration = "10s") -> None:
        super().__init__(url, key, timeout)
        self._http = httpx2.Client(**self._options)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @overload
    def predict(
        self, name: str, rows: Row, *, version: int | None = None, deadline: Duration | None = None
    ) -> Prediction: ...

    @overload
    def predict(
        self, name: str, rows: Sequence[Row], *, version: int | None = None, deadline: Duration | None = None
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self, name: str, rows: Array, *, version: int | None = None, deadline: Duration | None = None
    ) -> Array: ...

    @overload
    def predict(
        self, name: str, rows: IntoDataFrameT, *, version: int | None = None, deadline: Duration | None = None
    ) -> IntoDataFrameT: ...

    def predict(
        self, name: str, rows: Any, *, version: int | None = None, deadline: Duration | None = None
    ) -> Any:
        """What the deployment `name` says of the rows, in the kind that they came in.

        One mapping gives a Prediction, a list of mappings a list of them. A data frame (pandas, polars,
        pyarrow) gives such a frame with a column an output, in the order and with the index of the rows; an
        output of a number a class is a column a class (`probabilities.yes`). A numpy array, (rows, inputs) or
        the one tensor that the model takes, gives the array of labels, values, or the only output.

        Many rows go in chunks, each with the whole timeout and deadline. Missing values are `None` or NaN.
        A request is made once more where no byte of its answer came, or where the server says when to come back
        and that is within the timeout.

        Raises InputError, which names row and field, when a value is wrong; BusyError (with `retry_after_s`)
        when the server is overloaded, late or out of reach; RefusedError when the key is not good;
        NotFoundError when nothing is deployed under the name; ModelError when the model failed.
        """
        return self._run(self._question(name, version, deadline).predict(rows))

    def signature(self, name: str, *, version: int | None = None) -> Signature:
        """The names, types and shapes of what the deployment takes and gives; ranges and classes stay there."""
        return self._run(self._question(name, version, None).signature())

    def ready(self) -> bool:
        """Whether the server would take a request now: models loaded, not draining."""
        try:
            return self._http.get("/readyz", timeout=self._timeout_s).status_code == 200
        except httpx2.TransportError:
            return False

    def _run(self, talk: Talk[T]) -> T:
        try:
            step = next(talk)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = next(talk)
                    continue
                try:
                    response = self._send(step)
                except (httpx2.TransportError, BrokeOffError) as error:
                    step = talk.throw(error)
                else:
                    step = talk.send(response)
        except StopIteration as done:
            value: T = done.value
            return value

    def _send(self, call: Call) -> httpx2.Response:
        response = self._http.send(_request(self._http, call), stream=True)
        try:
            response.read()
        except (httpx2.NetworkError, httpx2.ProtocolError) as error:
            raise BrokeOffError from error
        finally:
            response.close()
        return response


class AsyncClient(_Caller):
    """An AsyncClient is the Client of asyncio: the same names, awaited; use it in an `async with`."""

    def __init__(self, url: str, *, key: str | None = None, timeout: Duration = "10s") -> None:
        super().__init__(url, key, timeout)
        self._http = httpx2.AsyncClient(**self._options)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @overload
    async def predict(
        self, name: str, rows: Row, *, version: int | None = None, deadline: Duration | None = None
    ) -> Prediction: ...

    @overload
    async def predict(
        self, name: str, rows: Sequence[Row], *, version: int | None = None, deadline: Duration | None = None
    ) -> list[Prediction]: ...

    @overload
    async def predict(
        self, name: str, rows: Array, *, version: int | None = None, deadline: Duration | None = None
    ) -> Array: ...

    @overload
    async def predict(
        self, name: str, rows: IntoDataFrameT, *, version: int | None = None, deadline: Duration | None = None
    ) -> IntoDataFrameT: ...

    async def predict(
        self, name: str, rows: Any, *, version: int | None = None, deadline: Duration | None = None
    ) -> Any:
        """`Client.predict`, awaited: the chunks of many rows go one after the other."""
        return await self._run(self._question(name, version, deadline).predict(rows))

    async def signature(self, name: str, *, version: int | None = None) -> Signature:
        """`Client.signature`, awaited."""
        return await self._run(self._question(name, version, None).signature())

    async def ready(self) -> bool:
        """Whether the server would take a request now: models loaded, not draining."""
        try:
            return (await self._http.get("/readyz", timeout=self._timeout_s)).status_code == 200
        except httpx2.TransportError:
            return False

    async def _run(self, talk: Talk[T]) -> T:
        try:
            step = next(talk)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = next(talk)
                    continue
                try:
                    response = await self._send(step)
                except (httpx2.TransportError, BrokeOffError) as error:
                    step = talk.throw(error)
                else:
                    step = talk.send(response)
        except StopIteration as done:
            value: T = done.value
            return value

    async def _send(self, call: Call) -> httpx2.Response:
        response = await self._http.send(_request(self._http, call), stream=True)
        try:
            await response.aread()
        except (httpx2.NetworkError, httpx2.ProtocolError) as error:
            raise BrokeOffError from error
        finally:
            await response.aclose()
        return response


def _request(http: httpx2.Client | httpx2.AsyncClient, call: Call) -> httpx2.Request:
    return http.build_request(
        call.method,
        call.path,
        params=dict(call.query) or None,
        headers=dict(call.headers),
        content=call.content,
        timeout=call.timeout_s,
    )
