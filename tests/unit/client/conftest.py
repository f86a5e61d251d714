"""A real server on a real socket that answers what the test says."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

#: Status, headers, body (bytes, text, or what becomes JSON); or None, which breaks the connection.
Answer = tuple[int, dict[str, str], Any] | None
Serve = Callable[..., "Server"]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    #: What to answer, one after the other, the last for ever.
    answers: list[Answer]
    seen: list[dict[str, Any]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        seen = {"path": self.path, "headers": dict(self.headers), "body": body}
        if self.headers["Content-Type"] == "application/json":
            seen["json"] = json.loads(body)
        self.server.seen.append(seen)
        self._answer()

    def do_GET(self) -> None:
        self.server.seen.append({"path": self.path, "headers": dict(self.headers)})
        self._answer()

    def _answer(self) -> None:
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            # A reset, as from a process that was killed.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        status, headers, body = answer
        data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = "Content-Length" in headers

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that gives these answers, one after the other, the last for ever."""
    servers: list[Server] = []

    def start(*answers: Answer) -> Server:
        server = Server(("127.0.0.1", 0), _Handler)
        server.answers, server.seen = list(answers), []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
