"""HTTP/2 as a gRPC server speaks it: the h2 library with bounds of ours, and a GOAWAY that leaves calls alone."""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, Event
from h2.settings import SettingCodes, Settings
from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import GoAwayFrame

from cloche.serving.grpc.status import OK, Reply

#: Calls at a time on one connection.
MOST_STREAMS = 100
HEADER_BYTES = 16 * 1024
#: What may be on the way to us before we have said that we took it.
STREAM_WINDOW = 1024 * 1024
CONNECTION_WINDOW = 4 * 1024 * 1024
_ANY_STREAM = 2**31 - 1
_CONFIG = H2Configuration(
    client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
)
_HEAD = [
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity,deflate,gzip"),
]
_ENDED = (b"grpc-status", b"0")
#: Bytes that a grpc-message shows as they are; others are percent-encoded.
_PLAIN = frozenset(range(0x20, 0x7F)) - {0x25}
#: Trailing metadata that is the same for many calls, and so worth a place in the table of headers.
_REPEATED = frozenset({b"cloche-model", b"cloche-error", b"cloche-flags"})


class _Encoder(Encoder):
    """An _Encoder spares the Huffman coding, which costs more time than the bytes are worth."""

    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        return super().encode(headers, huffman=False)


class Http2(H2Connection):
    """An Http2 is one connection's state, the server's side of it."""

    #: Each is remembered so that what comes late for it is no error.
    MAX_CLOSED_STREAMS = 1024
    DEFAULT_MAX_HEADER_LIST_SIZE = HEADER_BYTES

    def __init__(self) -> None:
        super().__init__(_CONFIG)
        self.encoder = _Encoder()
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_BYTES,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            },
        )
        self.initiate_connection()
        self.increment_flow_control_window(CONNECTION_WINDOW - self.inbound_flow_control_window)

    def goaway(self, *, every: bool, error: int = 0) -> bytes:
        """A GOAWAY: no new calls from now on (`every` that was begun is taken), or none after those that came.

        h2's own ends the connection for it, so that nothing in flight could be answered.
        """
        frame = GoAwayFrame(0)
        frame.last_stream_id = _ANY_STREAM if every else self.highest_inbound_stream_id
        frame.error_code = error
        return frame.serialize()

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Any], list[Event]]:
        # who says so still waits for the answers to its calls (Java's channel.shutdown); h2 would end it all
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        return [], [event]

    def head(self, stream_id: int) -> None:
        """The beginning of an answer that has a message."""
        self.send_headers(stream_id, _HEAD)

    def end(self, stream_id: int, reply: Reply, *, has_head: bool) -> None:
        """The end of an answer: status, words and metadata; the beginning as well where there was none."""
        trailers = [
            header if header[0] in _REPEATED else NeverIndexedHeaderTuple(*header) for header in reply.trailers
        ]
        status = [_ENDED]
        if reply.code != OK:
            words = NeverIndexedHeaderTuple(b"grpc-message", _encoded(reply.words))
            status = [(b"grpc-status", str(reply.code).encode()), words]
        head = [] if has_head else _HEAD
        self.send_headers(stream_id, [*head, *status, *trailers], end_stream=True)


def _encoded(words: str) -> bytes:
    return b"".join(b"%c" % one if one in _PLAIN else b"%%%02X" % one for one in words.encode())
