"""A gRPC client's connection: frames become calls, replies frames; with bounds on what it sends and leaves."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error

from cloche.core.errors import BusyError, ClocheError
from cloche.serving.grpc.calls import WATCH
from cloche.serving.grpc.dialect import read
from cloche.serving.grpc.http2 import Http2
from cloche.serving.grpc.messages import HealthCheckRequest, HealthCheckResponse
from cloche.serving.grpc.status import DEADLINE_EXCEEDED, UNAVAILABLE, Reply
from cloche.serving.grpc.stream import PREFIX, Stream
from cloche.serving.http import MOST_BODIES
from cloche.serving.server import FIRST_WORD_S, HEADER_S, UNREAD_S

if TYPE_CHECKING:
    from cloche.serving.grpc.server import GrpcServer

#: Pings, resets, settings and the like that a connection may send in a second.
MOST_CONTROL = 1000
#: Who sends more must be one who may, where nobody may without a key.
EARLY_BYTES = 64 * 1024
#: Connections are kept for so long and up to a fifth longer: then their clients connect anew, where there is room.
AGE_S = 600.0
_PING = b"cloche--"
_TOO_SLOW = Reply(DEADLINE_EXCEEDED, b"", "the message came too slowly", [(b"cloche-error", b"CL-E119")])
_STOPPED = Reply(UNAVAILABLE, b"", "the worker stops; call again", [])


class Connection(asyncio.Protocol):
    """A Connection is one client's; its calls are `streams`."""

    transport: asyncio.Transport

    def __init__(self, server: GrpcServer) -> None:
        self.streams: dict[int, Stream] = {}
        self._server = server
        self._calls = server.calls
        self._http2 = Http2()
        self._waiting: set[int] = set()  # streams whose answers wait for room at the caller's
        self._control = 0  # frames in this second that ask for nothing
        self._is_reading = False  # what is written meanwhile goes at its end
        self._paused_since = 0.0
        self._leaving_since = 0.0
        self._is_heard = False  # that we leave
        self._since = time.monotonic()
        self._age_s = AGE_S * random.uniform(1.0, 1.2)
        self._has_spoken = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        if self._server.add(self):
            self._flush()
        else:
            transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._server.remove(self)
        for stream in list(self.streams.values()):
            self._drop(stream)

    def data_received(self, data: bytes) -> None:
        self._has_spoken = True
        self._is_reading = True
        try:
            for event in self._http2.receive_data(data):
                handle = _HANDLERS.get(type(event))
                if handle is None:
                    self._control += 1
                else:
                    handle(self, event)
        except H2Error:
            self._flush()  # h2 has said why
            self.transport.close()
        finally:
            self._is_reading = False
        if self._control > MOST_CONTROL:
            self._end(ErrorCodes.ENHANCE_YOUR_CALM)
        self._flush()
        self._end_if_done()

    # what came

    def _on_request(self, event: Any) -> None:
        headers = dict(event.headers)
        stream = Stream(event.stream_id, headers.get(b":path", b""), headers, time.monotonic())
        if not headers.get(b"content-type", b"").startswith(b"application/grpc"):
            self._http2.send_headers(stream.id, [(b":status", b"415")], end_stream=True)
            return
        self.streams[stream.id] = stream
        refusal = self._calls.refuse_early(stream.path, headers)
        if refusal is not None:
            self._reply(stream, refusal)
        if self._server.is_draining:
            self.leave()

    def _on_data(self, event: Any) -> None:
        self._http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if not event.data:
            self._control += 1
        stream = self.streams.get(event.stream_id)
        if stream is None or stream.reply is not None or stream.inference is not None:
            return
        stream.parts.append(event.data)
        stream.size += len(event.data)
        self._calls.app.held += len(event.data)
        refusal = self._refuse_size(stream, stream.size - len(event.data))
        if refusal is not None:
            self._reply(stream, refusal)

    def _refuse_size(self, stream: Stream, before: int) -> Reply | None:
        app = self._calls.app
        if stream.size > self._calls.limit(stream.path) + PREFIX.size:
            return self._calls.refuse(app.too_large(stream.size), stream.headers)
        if app.held > MOST_BODIES * app.max_body:
            busy = BusyError("too many large bodies at once", code="CL-E601", hint="send fewer at a time")
            return self._calls.refuse(busy, stream.headers)
        return self._calls.refuse_large(stream.headers) if before <= EARLY_BYTES < stream.size else None

    def _on_end(self, event: Any) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None or stream.reply is not None:
            return
        try:
            body, coding = stream.message()
            if coding is not None:
                body = self._calls.app.inflated(body, coding)
            if stream.path == WATCH:
                self._watch(stream, body)
                return
        except ClocheError as error:
            self._reply(stream, self._calls.refuse(error, stream.headers))
            return
        self._calls.ask(stream, body, self._reply)

    def _on_reset(self, event: Any) -> None:
        self._control += 1
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            self._drop(stream)

    def _on_room(self, event: Any) -> None:
        for stream_id in list(self._waiting):
            self._send(self.streams[stream_id])

    def _on_pong(self, event: Any) -> None:
        self._is_heard = self._is_heard or event.ping_data == _PING

    def _on_goaway(self, event: Any) -> None:
        self._leaving_since = self._leaving_since or time.monotonic()
        self._is_heard = True

    # what goes

    def _reply(self, stream: Stream, reply: Reply) -> None:
        if self.streams.get(stream.id) is not stream or self.transport.is_closing():
            return
        self._calls.app.held += len(reply.body) - stream.size
        stream.size = len(reply.body)
        stream.end_with(reply)
        self._send(stream)
        self._server.answered(time.monotonic())
        if not self._is_reading:
            self._flush()

    def _send(self, stream: Stream) -> None:
        """As much of an answer as the caller has room for, and at its end the status."""
        try:
            self._send_parts(stream)
        except H2Error:
            self._drop(stream)  # its caller gave up in what is being read

    def _send_parts(self, stream: Stream) -> None:
        http2 = self._http2
        if stream.answer and not stream.has_head:
            stream.has_head = True
            http2.head(stream.id)
        while stream.answer:
            room = min(http2.local_flow_control_window(stream.id), http2.max_outbound_frame_size)
            if room <= 0 or self._paused_since:
                self._waiting.add(stream.id)
                stream.unread_since = stream.unread_since or time.monotonic()
                return
            http2.send_data(stream.id, bytes(stream.answer[:room]))
            stream.answer = stream.answer[room:]
            stream.unread_since = 0.0
        self._waiting.discard(stream.id)
        if stream.reply is not None:
            http2.end(stream.id, stream.reply, has_head=stream.has_head)
            if not http2.streams[stream.id].closed:  # it still sends what nobody will read
                http2.reset_stream(stream.id, ErrorCodes.NO_ERROR)
            self._drop(stream)

    def _watch(self, stream: Stream, body: bytes) -> None:
        self._tell(stream, self._calls.health(read(HealthCheckRequest, body).service))

    def _tell(self, stream: Stream, status: int) -> None:
        stream.status = status
        stream.answer_with(HealthCheckResponse(status=status).SerializeToString())
        self._send(stream)

    def tell_health(self) -> None:
        """Say to those who watch what has changed."""
        status = self._calls.health("")
        for stream in list(self.streams.values()):
            if stream.status in (1, 2) and stream.status != status and not stream.answer:
                self._tell(stream, status)
        self._flush()

    def _drop(self, stream: Stream) -> None:
        if self.streams.pop(stream.id, None) is None:
            return
        self._waiting.discard(stream.id)
        self._calls.app.held -= stream.size
        if stream.inference is not None:
            stream.inference.abandon()
        self._end_if_done()

    def _flush(self) -> None:
        data = self._http2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def pause_writing(self) -> None:
        self._paused_since = time.monotonic()
        self.transport.pause_reading()  # who does not read its answers is asked for no more

    def resume_writing(self) -> None:
        self._paused_since = 0.0
        self.transport.resume_reading()
        self._on_room(None)
        self._flush()

    # its end

    def leave(self) -> None:
        """Send the client elsewhere; what it has called, or calls before it hears that, is answered."""
        if self._leaving_since or self.transport.is_closing():
            return
        self._leaving_since = time.monotonic()
        self._flush()
        self.transport.write(self._http2.goaway(every=True))
        self._http2.ping(_PING)  # its acknowledgement says that GOAWAY was heard
        self._flush()

    def is_owed(self, now: float) -> bool:
        """Whether a call is in flight, or may be on its way, or an answer is not taken yet."""
        if any(stream.status < 0 for stream in self.streams.values()):
            return True
        is_heard = self._is_heard or not self._leaving_since or now - self._leaving_since > FIRST_WORD_S
        return not is_heard or self.transport.get_write_buffer_size() > 0

    def close(self) -> None:
        """End who watches, say which calls were taken, and close."""
        for stream in list(self.streams.values()):
            if stream.status >= 0:
                stream.end_with(_STOPPED)
                self._send(stream)
        self._end(ErrorCodes.NO_ERROR)

    def _end(self, error: ErrorCodes) -> None:
        self._flush()
        if not self.transport.is_closing():
            self.transport.write(self._http2.goaway(every=False, error=error))
            self.transport.close()

    def _end_if_done(self) -> None:
        if self._is_heard and not self.streams and not self._is_reading:
            self._end(ErrorCodes.NO_ERROR)

    def tick(self, now: float) -> None:
        """Once a second: what comes or is read too slowly, and whose time is over."""
        self._control = 0
        is_mute = not self._has_spoken and now - self._since > HEADER_S
        if is_mute or (self._paused_since and now - self._paused_since > UNREAD_S):
            self.transport.abort()
            return
        for stream in list(self.streams.values()):
            if stream.unread_since and now - stream.unread_since > UNREAD_S:
                self._http2.reset_stream(stream.id, ErrorCodes.CANCEL)
                self._drop(stream)
            elif stream.is_too_slow(now):
                self._reply(stream, _TOO_SLOW)
        if now - self._since > self._age_s:
            self.leave()
        if self._leaving_since and not self.streams and now - self._leaving_since > HEADER_S:
            self._end(ErrorCodes.NO_ERROR)
        self._flush()


_HANDLERS: dict[type[Event], Callable[[Connection, Any], None]] = {
    RequestReceived: Connection._on_request,
    DataReceived: Connection._on_data,
    StreamEnded: Connection._on_end,
    StreamReset: Connection._on_reset,
    WindowUpdated: Connection._on_room,
    RemoteSettingsChanged: Connection._on_room,
    PingAckReceived: Connection._on_pong,
    ConnectionTerminated: Connection._on_goaway,
}
