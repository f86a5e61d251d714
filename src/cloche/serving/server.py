"""The HTTP server: uvicorn's protocol on inherited sockets, with limits of ours; the seam to another server."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Mapping, Sized
from email.utils import formatdate
from typing import Any

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from cloche.serving.exchange import LARGEST, Exchange
from cloche.serving.http import App
from cloche.serving.lookout import Lookout
from cloche.serving.problems import refusal_body
from cloche.serving.state import WorkerState
from cloche.serving.table import Way
from cloche.serving.tls import Certificates

HEADER_BYTES = 16 * 1024
HEADER_FIELDS = 100
URL_BYTES = 8 * 1024
HEADER_S = 10.0
#: A body must come at this rate once it is ten seconds old.
BODY_BYTES_PER_S = 1024
#: What is not body in a request once its head is read: the sizes of chunks, and fields behind the last one.
FRAMING_BYTES = 1024 * 1024
#: Who takes an answer at less than the rate of a body for so long is let go.
UNREAD_S = 30.0
#: A connection that came at the very end of a drain has so long to say what it came for.
FIRST_WORD_S = 1.0
#: At the very end of a drain, a handshake of TLS that has begun has so long.
HANDSHAKE_S = 0.5
MOST_CONNECTIONS = 4096
BACKLOG = 1024
KEEP_ALIVE_S = 75
_UPGRADE = re.compile(rb"\r\nupgrade(?=:)", re.IGNORECASE)


class _Flow(FlowControl):
    """A _Flow reads nothing new while requests wait behind the one that is answered.

    Uvicorn reads on at each answer, so that who sends faster than is answered fills the memory.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class _Cycle(RequestResponseCycle):
    """A _Cycle says nothing more to who is gone.

    The transport knows that before `connection_lost` says so, and then refuses what is written.
    """

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.transport.is_closing():
            self.disconnected = True
        await super().send(message)


class Connection(HttpToolsProtocol):
    """A Connection is one client's, with bounds on the size and slowness of what it sends.

    A prediction whose body is small takes the short way (`Exchange`), all else uvicorn's own to the ASGI app.
    """

    ways: Mapping[bytes, Way]
    worker_state: WorkerState
    lookout: Lookout
    max_body: int
    _came = 0  # bytes of the request that is being read
    _body = 0  # those of them that are its body
    _since = 0.0  # when it began; 0.0 between requests
    _idle_since = 0.0  # when the last answer of the short way was written
    _unread = 0  # bytes that the client had not taken at `_unread_since`
    _unread_since = 0.0  # 0.0 while it takes them
    _in_head = True
    _refused = False
    _refusal = b""  # to be written when those before it are answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._since = time.monotonic()
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse(503, "CL-E601", "too many connections; try again in 1 s")

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._since == 0.0:
            self._since = time.monotonic()
            self._idle_since = 0.0
        self._came += len(data)
        if self._in_head and (b"pgrade" in data or b"PGRADE" in data):
            data = _without_upgrade(data)
        super().data_received(data)
        if self._in_head:
            if self._came > HEADER_BYTES:
                self._refuse(431, "CL-E117", "the headers are larger than 16 KiB")
        elif self._came - self._body > FRAMING_BYTES:
            self._refuse(431, "CL-E117", "what stands around the body is larger than 1 MiB")

    def on_message_begin(self) -> None:
        # uvicorn's scope is made once it is known that ASGI carries the request
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self.transport.is_closing():  # what was said behind the last request that is answered
            self._refused = True
            return
        # a large head in one piece, a small one with its body, or (0) one behind another request
        if self._came > HEADER_BYTES or self._came == 0:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > HEADER_BYTES:
                self._refuse(431, "CL-E117", "the headers are larger than 16 KiB")
        if len(self.headers) > HEADER_FIELDS:
            self._refuse(431, "CL-E117", f"more than {HEADER_FIELDS} header fields")
        if len(self.url) > URL_BYTES:
            self._refuse(414, "CL-E117", "the path is longer than 8 KiB")
        if not self._refused and not self._begin_exchange():
            url, headers, expects = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = url, expects
            self.headers += headers
            super().on_headers_complete()
            self.cycle.__class__ = _Cycle  # uvicorn has no place to name another

    def _begin_exchange(self) -> bool:
        if self.parser.get_method() != b"POST" or not (self.cycle is None or self.cycle.response_complete):
            return False
        path, _, query = self.url.partition(b"?")
        way = self.ways.get(path)
        if way is None or self.expect_100_continue or self.flow.write_paused:
            return False  # who does not read its answers takes the way on which writing waits
        headers = dict(self.headers)
        if b"content-encoding" in headers:
            return False  # what it inflates to may be large
        if int(headers.get(b"content-length", LARGEST + 1)) > min(LARGEST, self.max_body):
            return False
        # HTTP/1.0 is kept alive on request only, and then wants to be told so: uvicorn's way is to close it
        keeps = self.parser.should_keep_alive()
        if b"connection" in headers and self.parser.get_http_version() == "1.0":
            keeps = False
        if way.fork is not None:
            way = way.fork.choose(way, headers, query)
        exchange = Exchange(way, self.worker_state, self.transport, self._on_exchanged, keep_alive=keeps)
        self._asked = (headers, query)
        self.cycle = exchange  # type: ignore[assignment]  # to uvicorn it is a cycle of its own
        return True

    def _on_exchanged(self) -> None:
        now = self._idle_since = time.monotonic()
        self.lookout.answered(now)
        if self.pipeline or self._refused:
            self.on_response_complete()

    def on_response_complete(self) -> None:
        if self._refused and not self.pipeline:
            self._say_refusal()
        else:
            super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._came = self._body = 0
        self._since = 0.0
        self._in_head = True
        if self._refused:
            return
        exchange: object = self.cycle
        if isinstance(exchange, Exchange):
            exchange.run(*self._asked)
        else:
            super().on_message_complete()

    def is_about_to_ask(self, now: float) -> bool:
        """Whether its first request is on the way: begun, or so new that it may not have come yet."""
        cycle: Any = self.cycle  # uvicorn's annotation knows no None
        if cycle is not None or self._refused or self.transport.is_closing():
            return False
        return self._came > 0 or now - self._since < FIRST_WORD_S

    def is_owed(self, now: float) -> bool:
        """Whether something of it is still to be read, answered, or taken by the client."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        return is_answering or self.is_about_to_ask(now) or self.transport.get_write_buffer_size() > 0

    def is_idle(self, now: float) -> bool:
        """Whether nothing was asked on this connection for longer than it is kept."""
        return self._since == 0.0 and 0.0 < self._idle_since < now - KEEP_ALIVE_S

    def is_too_slow(self, now: float) -> bool:
        """Whether a request has been coming for too long."""
        age = now - self._since if self._since else 0.0
        if age <= HEADER_S or self.pipeline:  # behind a request that is answered, nothing is read
            return False
        return self._in_head or self._came < age * BODY_BYTES_PER_S

    def is_not_read(self, now: float) -> bool:
        """Whether the client has not taken its answers, or hardly, for too long."""
        size = self.transport.get_write_buffer_size()
        if size == 0:
            self._unread_since = 0.0
            return False
        if self._unread_since == 0.0 or size > self._unread:
            self._unread, self._unread_since = size, now
        age = now - self._unread_since
        return age > UNREAD_S and self._unread - size < age * BODY_BYTES_PER_S

    def refuse_slow(self) -> None:
        self._refuse(408, "CL-E119", "the request came too slowly")

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "CL-E120", "the request can't be read, or could be read in two ways")

    def _refuse(self, status: int, code: str, words: str) -> None:
        if self._refused:
            return
        self._refused = True
        body = refusal_body(status, code, words)
        head = b"content-type: application/problem+json\r\nconnection: close\r\n"
        retry = b"retry-after: 1\r\n" if status == 503 else b""
        length = b"content-length: %d\r\n\r\n" % len(body)
        self._refusal = b"".join([STATUS_LINE[status], head, retry, length, body])
        cycle: Any = self.cycle
        is_partial = cycle is not None and cycle.more_body
        is_owed = cycle is not None and not cycle.response_complete and not is_partial
        if self.pipeline:
            is_owed = True
            if is_partial:
                self.pipeline.popleft()  # the one that is refused
        if not is_owed:
            self._say_refusal()

    def _say_refusal(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(self._refusal)
            self.transport.close()


def _without_upgrade(data: bytes) -> bytes:
    """The same request without the wish to go on in another protocol.

    The parser takes what follows such a head for the other protocol, so that the body would be lost; Java's
    client asks for HTTP/2 in this way with its first request.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-upgrade", head) + end + rest


class Server:
    """A Server accepts on sockets that it was given and does not own."""

    def __init__(
        self,
        app: App,
        state: WorkerState,
        sockets: list[socket.socket],
        certificates: Certificates | None = None,
    ) -> None:
        self._config = uvicorn.Config(
            app, interface="asgi3", ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, timeout_keep_alive=KEEP_ALIVE_S, proxy_headers=False, log_level="error",
        )  # fmt: skip
        self._config.load()
        self._worker_state = state
        self._state = ServerState()
        self._app = app
        self._sockets = sockets
        self._certificates = certificates
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._lookout = Lookout(loop)
        self.tick()
        tls: dict[str, Any] = {}
        if self._certificates is not None:
            tls = {"ssl": self._certificates.context, "ssl_handshake_timeout": HEADER_S}
        for listening in self._sockets:
            server = await loop.create_server(self._protocol, sock=listening, backlog=BACKLOG, **tls)
            self._servers.append(server)

    def _protocol(self) -> Connection:
        connection = Connection(self._config, self._state, {})
        connection.ways = self._app.ways
        connection.worker_state = self._worker_state
        connection.lookout = self._lookout
        connection.max_body = self._app.max_body
        return connection

    @property
    def connections(self) -> int:
        return len(self._state.connections)

    def tick(self) -> None:
        """Once a second: the Date header, the certificate, what comes or is read too slowly, what nobody uses."""
        date = formatdate(usegmt=True).encode()
        self._state.default_headers = [(b"date", date)]
        self._worker_state.date_line = b"date: %b\r\n" % date
        if self._certificates is not None:
            self._certificates.refresh()
        now = time.monotonic()
        for connection in list(self._state.connections):
            if isinstance(connection, Connection):
                if connection.is_not_read(now):
                    connection.transport.abort()
                elif connection.is_too_slow(now):
                    connection.refuse_slow()
                elif connection.is_idle(now):
                    connection.transport.close()

    def drain(self) -> None:
        """Nothing: each answer sends its connection's caller elsewhere while the worker drains."""

    async def stop(self, grace_s: float) -> None:
        """Accept no more, let what is in flight finish (at most `grace_s`), close."""
        # a loop that was held up has not seen yet who is in the queue, nor who is shaking hands
        await asyncio.sleep(0.01 if self._certificates is None else HANDSHAKE_S)
        for server in self._servers:
            server.close()
        now = time.monotonic()
        ends = now + grace_s
        for connection in list(self._state.connections):
            if not (isinstance(connection, Connection) and connection.is_about_to_ask(now)):
                connection.shutdown()
        while self._is_answering() and time.monotonic() < ends:
            await asyncio.sleep(0.01)
        for connection in list(self._state.connections):
            connection.transport.close()
        await asyncio.sleep(0)

    def _is_answering(self) -> bool:
        now = time.monotonic()
        connections = [one for one in self._state.connections if isinstance(one, Connection)]
        return bool(self._state.tasks) or any(one.is_owed(now) for one in connections)
