"""TLS for the listening sockets: a certificate and its key from two files, read again when they change."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

from cloche.core.errors import ConfigError

_log = logging.getLogger("cloche.serving")


class Certificates:
    """A Certificates is the context that all connections begin with, and the pair of files behind it.

    Each handshake takes the pair that was read last (`refresh`), so that a renewed certificate is used without a
    restart; connections that are open keep theirs. TLS 1.2 and 1.3.
    """

    def __init__(self, cert: Path, key: Path, speaks: str = "http/1.1") -> None:
        """`speaks` is the protocol's name in ALPN.

        Raises ConfigError CL-E207 where the two are not a certificate and its key.
        """
        self._speaks = speaks
        self._cert = cert
        self._key = key
        self._seen = self._look()
        self._current = _read(cert, key, speaks)
        self.context = _read(cert, key, speaks)
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        # called at each handshake, whether the client names a host or not
        connection.context = self._current

    def refresh(self) -> None:
        """Read the files again where they changed; a pair that does not fit is logged, and the one before kept."""
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._current = _read(self._cert, self._key, self._speaks)
        except ConfigError as error:
            extra = {"action": "certificate_kept", "code": error.code}
            _log.warning("the old certificate stays: %s", error.message, extra=extra)
        else:
            _log.info("a new certificate", extra={"action": "certificate_renewed"})

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_identity(self._cert), _identity(self._key)]


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(cert: Path, key: Path, speaks: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([speaks])
    try:
        # an empty password: a key that has one is refused here rather than asked for on a terminal
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        reason = "don't belong together" if error.reason == "KEY_VALUES_MISMATCH" else f"can't be used ({error})"
        raise ConfigError(
            f"the certificate {cert} and the key {key} {reason}",
            code="CL-E207",
            hint="both are PEM; the certificate's file holds its whole chain, the key has no password",
        ) from None
    except OSError as error:
        missing = next((path for path in (cert, key) if not os.access(path, os.R_OK)), cert)
        raise ConfigError(
            f"{missing} can't be read: {error.strerror}", code="CL-E207", hint="check the path and its rights"
        ) from None
    return context
