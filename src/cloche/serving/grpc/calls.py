"""Calls of the Open Inference Protocol over gRPC, from a whole message to a reply; it knows no HTTP/2.

Who may call what is decided where HTTP's requests are: a method passes the guard of the REST path that answers
the same, and a prediction takes the way that `/v2/models/NAME/infer` has in the worker's table.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from cloche.core.errors import ClocheError, NotFoundError
from cloche.core.ids import PredictionIds
from cloche.serving.grpc import messages as pb
from cloche.serving.grpc.dialect import GrpcDialect, read
from cloche.serving.grpc.inference import INFER, Inference
from cloche.serving.grpc.status import OK, Reply, refusal
from cloche.serving.grpc.stream import Stream
from cloche.serving.guard import check_path
from cloche.serving.http import App
from cloche.serving.predictions import Predictions, bug, request_id_of
from cloche.serving.protocols.base import Live
from cloche.serving.state import WorkerState
from cloche.serving.table import Way

Metadata: TypeAlias = Mapping[bytes, bytes]
_SERVICE = "inference.GRPCInferenceService"
_HEALTH = "grpc.health.v1.Health"
WATCH = f"/{_HEALTH}/Watch".encode()
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


class _Method(NamedTuple):
    """A _Method is what is read, the REST path that stands for it at the guard, and who answers."""

    request: Any
    path: Callable[[Any], bytes]
    answer: Callable[[Calls, Any], Any]


class Calls:
    """A Calls answers every method for one worker; `ask` gives a reply now or, for a prediction, later."""

    def __init__(self, app: App, state: WorkerState) -> None:
        self.app = app
        self._state = state
        self._ids = PredictionIds()
        self._dialects: weakref.WeakKeyDictionary[Predictions, GrpcDialect] = weakref.WeakKeyDictionary()
        self.running: set[asyncio.Task[None]] = set()

    def limit(self, path: bytes) -> int:
        """How many bytes a message to a method may have."""
        return self.app.max_body if path == INFER else 64 * 1024

    def refuse_early(self, path: bytes, headers: Metadata) -> Reply | None:
        """A refusal for a call whose message has not come: no such method, no key where all need one."""
        try:
            if path not in _METHODS and path not in (INFER, WATCH):
                self._admit(path, headers)
                shown = path.decode("latin-1")[:80]
                raise NotFoundError(f"there is no method {shown}", code="CL-E306", hint=f"call {_SERVICE}")
        except Exception as error:  # noqa: BLE001 - the edge of the process: a bug is one caller's failure
            return self.refuse(error, headers)
        return None

    def refuse_large(self, headers: Metadata) -> Reply | None:
        """A refusal for one who sends much: where every deployment needs a key, before all of it is there."""
        try:
            if all(one.guard.keys_required for one in self.app.table.predictions):
                self._admit(b"/v2", headers)
        except ClocheError as error:
            return self.refuse(error, headers)
        return None

    def ask(self, stream: Stream, body: bytes, tell: Callable[[Stream, Reply], None]) -> None:
        """Answer a whole message by `tell`: at once or, a prediction, later."""
        if stream.path == INFER:
            stream.inference = Inference(self, stream.headers, stream.deadline, partial(tell, stream))
            stream.inference.run(body)
            return
        try:
            method = _METHODS[stream.path]
            message = read(method.request, body)
            self._admit(method.path(message), stream.headers)
            reply = Reply(OK, method.answer(self, message).SerializeToString(), "", [])
        except Exception as error:  # noqa: BLE001 - the edge of the process, as above
            reply = self.refuse(error, stream.headers)
        tell(stream, reply)

    def refuse(self, error: Exception, headers: Metadata) -> Reply:
        """The reply for what was refused before a deployment was found; counted by its code."""
        request_id = request_id_of(headers) or self._ids.next()
        known = error if isinstance(error, ClocheError) else bug(error, request_id)
        if self._state.refused is not None:
            self._state.refused(known.code)
        return refusal(known)

    def way(self, name: str, version: str, headers: Metadata) -> tuple[Way, GrpcDialect]:
        """Where a prediction goes; its own guard is still to be passed.

        NotFoundError CL-E305 where nothing has this name and version, for those who may know what has.
        """
        try:
            way = self._find(name, version)
        except NotFoundError:
            self._admit(b"/v2", headers)
            raise
        if way.fork is not None:
            way = way.fork.choose(way, headers)
        return way, self._dialect(way.predictions)

    def _dialect(self, predictions: Predictions) -> GrpcDialect:
        dialect = self._dialects.get(predictions)
        if dialect is None:
            dialect = self._dialects[predictions] = GrpcDialect(predictions.deployment.live)
        return dialect

    def live(self, request: Any) -> Live:
        return self._find(request.name, request.version).predictions.deployment.live

    def health(self, service: str) -> int:
        if service not in ("", _SERVICE, _HEALTH):
            return SERVICE_UNKNOWN
        return SERVING if self._state.answers() else NOT_SERVING

    def is_ready(self) -> bool:
        return self._state.answers()

    def _find(self, name: str, version: str) -> Way:
        way = self.app.ways.get(_model_path(name, version) + b"/infer") if "/" not in name + version else None
        if way is None:
            shown = f"{name[:60]!r}" + (f" version {version[:20]!r}" if version else "")
            live = ", ".join(one.deployment.live.deployment for one in self.app.table.predictions)
            raise NotFoundError(f"no model {shown} is live", code="CL-E305", hint=f"live: {live}")
        return way

    def _admit(self, path: bytes, headers: Metadata) -> None:
        path = check_path(path)
        self.app.table.guard(path).admit(path, headers)


def _model_path(name: str, version: str) -> bytes:
    return f"/v2/models/{name}{'/versions/' + version if version else ''}".encode()


def _metadata(calls: Calls, request: Any) -> Any:
    live = calls.live(request)
    message = pb.ModelMetadataResponse(name=live.deployment, versions=[str(live.version)], platform=live.platform)
    for place, fields in ((message.inputs, live.signature.inputs), (message.outputs, live.signature.outputs)):
        for field in fields:
            place.add(name=field.name, datatype=field.datatype, shape=field.shape)
    return message


def _health(calls: Calls, request: Any) -> Any:
    status = calls.health(request.service)
    if status == SERVICE_UNKNOWN:
        raise NotFoundError(f"there is no service {request.service[:80]!r}", code="CL-E305", hint=_SERVICE)
    return pb.HealthCheckResponse(status=status)


def _of_model(rest: str) -> Callable[[Any], bytes]:
    return lambda request: _model_path(request.name, request.version) + rest.encode()


_METHODS = {
    f"/{name}".encode(): method
    for name, method in {
        f"{_SERVICE}/ServerLive": _Method(
            pb.Nothing, lambda _: b"/v2/health/live", lambda *_: pb.ServerLiveResponse(live=True)
        ),
        f"{_SERVICE}/ServerReady": _Method(
            pb.Nothing,
            lambda _: b"/v2/health/ready",
            lambda calls, _: pb.ServerReadyResponse(ready=calls.is_ready()),
        ),
        f"{_SERVICE}/ServerMetadata": _Method(
            pb.Nothing,
            lambda _: b"/v2",
            lambda *_: pb.ServerMetadataResponse(name="cloche", version="2", extensions=["binary_tensor_data"]),
        ),
        f"{_SERVICE}/ModelReady": _Method(
            pb.ModelReadyRequest,
            _of_model("/ready"),
            lambda calls, request: pb.ModelReadyResponse(ready=calls.live(request).is_ready()),
        ),
        f"{_SERVICE}/ModelMetadata": _Method(pb.ModelMetadataRequest, _of_model(""), _metadata),
        f"{_HEALTH}/Check": _Method(pb.HealthCheckRequest, lambda _: b"/livez", _health),
    }.items()
}
