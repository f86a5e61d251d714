"""A prediction from its headers to its answer, whatever carries it: guard, decode, prepare, batch, encode.

`http.App` carries it over ASGI, `exchange.Exchange` straight over the connection; both go through here.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from cloche.core.errors import ClocheError, InputError, ModelError, NotFoundError
from cloche.core.ids import PredictionIds
from cloche.core.signature import Columns
from cloche.core.units import parse_duration
from cloche.engine.batcher import Batcher
from cloche.engine.engine import Engine, Prepared
from cloche.engine.queue import Answer as Outcome
from cloche.engine.queue import Receiver
from cloche.monitoring.counters import DeploymentCounters
from cloche.serving.guard import Guard
from cloche.serving.protocols.base import Answer, Dialect, Headers, Live
from cloche.serving.split import Arm

#: A request id that is echoed: printable, without spaces.
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
#: The status that stands in the metrics where the caller went away.
GONE = 499
#: Stands for the times of an answer that came out of the cache.
_CACHED = -1.0
_log = logging.getLogger("cloche.serving")


class Deployment:
    """A Deployment is what answers under a name in this worker: engine, batcher, counters, deadline."""

    def __init__(
        self, live: Live, engine: Engine, batcher: Batcher, counters: DeploymentCounters, *, deadline_s: float
    ) -> None:
        self.live = live
        self.engine = engine
        self.batcher = batcher
        self.counters = counters
        self.deadline_s = deadline_s
        self.model_header = (b"cloche-model", live.ref.encode())
        self.version = str(live.version).encode()


class Asked(msgspec.Struct, gc=False):
    """Asked is one prediction on its way."""

    dialect: Dialect
    headers: Mapping[bytes, bytes]
    prediction_id: str
    start: float
    deadline: float
    #: Whose part of a rollout it is.
    arm: Arm | None = None
    prepared: Prepared | None = None
    #: The dialect's own, from decode to encode.
    wants: Any = None


class Predictions:
    """Predictions answers rows for one deployment, in any of its dialects.

    A carrier calls `begin`, `admit` (before it reads the body), `decode`, `submit` or `put`, with the outcome
    `answer`, or `refuse` with whatever any of them raised, and at the very end `finish`.
    """

    def __init__(
        self,
        deployment: Deployment,
        dialects: Sequence[Dialect],
        guard: Guard,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.dialects = tuple(dialects)
        self.deployment = deployment
        self.guard = guard
        self.ids = PredictionIds()
        self._clock = clock

    def begin(self, dialect: Dialect, headers: Mapping[bytes, bytes], arm: Arm | None = None) -> Asked:
        start = self._clock()
        self.deployment.counters.began()
        return Asked(dialect, headers, self.ids.next(), start, start + self.deployment.deadline_s, arm)

    def admit(self, asked: Asked, query: bytes) -> None:
        """Who calls, how often, what the headers and the query say, and is there time; raises ClocheError."""
        headers = asked.headers
        self.guard.admit_prediction(headers)
        if query:
            _check_query(query, self.deployment)
        given = headers.get(b"cloche-deadline")
        if given is not None:
            asked.deadline = asked.start + _deadline(given)
        self.deployment.batcher.check(asked.deadline, asked.start)

    def decode(self, asked: Asked, body: bytes) -> Columns:
        """The columns of a body; on whatever thread."""
        columns, asked.wants = asked.dialect.decode(body, asked.headers)
        return columns

    def submit(self, asked: Asked, columns: Columns) -> asyncio.Future[Outcome]:
        """`put` with a future, for who awaits the outcome."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.put(asked, columns, future)
        return future

    def put(self, asked: Asked, columns: Columns, receiver: Receiver) -> None:
        """Validate and queue; the receiver hears at once where the cache knows the answer."""
        deployment = self.deployment
        prepared = asked.prepared = deployment.engine.prepare(columns)
        if prepared.flags:
            deployment.counters.flagged(len(prepared.flags))
        if prepared.key is not None:
            deployment.counters.cache(prepared.cached is not None)
            if prepared.cached is not None:
                receiver.set_result((prepared.cached, _CACHED, _CACHED))
                return
        deployment.batcher.put(prepared, asked.deadline, self._clock(), receiver)

    def answer(self, asked: Asked, outcome: Outcome) -> Answer:
        """The wire form of an outcome, with every header but those of the connection."""
        if asked.arm is not None:
            asked.arm.answered(asked.prepared, outcome)
        outputs, queued, model = outcome
        flags = asked.prepared.flags if asked.prepared is not None else ()
        answer = asked.dialect.encode(outputs, flags, asked.wants, asked.prediction_id)
        if queued == _CACHED:
            timing = b"cache;desc=hit"
        else:
            timing = b"queue;dur=%.3f, model;dur=%.3f" % (queued * 1e3, model * 1e3)
        return self._with_headers(asked, answer, (b"server-timing", timing))

    def refuse(self, asked: Asked, error: Exception) -> Answer:
        """The wire form of an error, counted and logged. What is not a ClocheError is a bug of ours."""
        request_id = request_id_of(asked.headers) or asked.prediction_id
        known = error if isinstance(error, ClocheError) else bug(error, request_id)
        self.deployment.counters.failed(known.code)
        if isinstance(known, ModelError):
            extra = {"code": known.code, "request_id": request_id, "model": self.deployment.live.ref}
            _log.error(known.message, extra={"action": "prediction_failed", **extra})
        return self._with_headers(asked, asked.dialect.problem(known, request_id))

    def finish(self, asked: Asked, status: int) -> None:
        """Count the request, with the status that was sent or GONE."""
        seconds = self._clock() - asked.start
        self.deployment.counters.answered(asked.dialect.name, status, seconds)
        if asked.arm is not None and (asked.prepared is None or asked.prepared.cached is None):
            asked.arm.count(status, seconds, asked.headers)

    def _with_headers(self, asked: Asked, answer: Answer, *extra: tuple[bytes, bytes]) -> Answer:
        headers: Headers = [
            *answer.headers,
            (b"content-length", b"%d" % len(answer.body)),
            self.deployment.model_header,
            (b"cloche-prediction-id", asked.prediction_id.encode()),
            *extra,
        ]
        request_id = asked.headers.get(b"x-request-id")
        if request_id is not None and _REQUEST_ID.fullmatch(request_id):
            headers.append((b"x-request-id", request_id))
        return Answer(answer.status, headers, answer.body)


def request_id_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The caller's own id of the request, where it sent one that can be echoed."""
    request_id = headers.get(b"x-request-id")
    if request_id is not None and _REQUEST_ID.fullmatch(request_id):
        return request_id.decode("ascii")
    return None


def bug(error: Exception, request_id: str) -> ClocheError:
    """What a caller is told of an error inside Cloche; the log has the rest."""
    extra = {"action": "bug", "code": "CL-E999", "request_id": request_id}
    _log.error("a bug in Cloche", exc_info=error, extra=extra)
    return ClocheError("an error inside Cloche; it is in the log under the request id", code="CL-E999")


def _deadline(given: bytes) -> float:
    """Seconds of a Cloche-Deadline header; InputError when it is not one."""
    text = given.decode("latin-1")
    try:
        seconds = parse_duration(text)
    except ClocheError:
        seconds = 0.0
    if not 0.0 < seconds <= 3600.0:
        raise InputError(f"Cloche-Deadline is {text[:40]!r}", code="CL-E117", hint="write 80ms or 2s, at most 1h")
    return seconds


def _check_query(query: bytes, deployment: Deployment) -> None:
    """`?version=4` must name the version that answers; nothing else is taken."""
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if name != b"version":
            shown = name.decode("latin-1")[:40]
            raise InputError(f"the query parameter {shown!r} is not known", code="CL-E117", hint="?version=4")
        if value != deployment.version:
            raise NotFoundError(
                f"version {value.decode('latin-1')[:20]!r} of {deployment.live.deployment} is not live",
                code="CL-E305",
                hint=f"{deployment.live.ref} is",
            )
