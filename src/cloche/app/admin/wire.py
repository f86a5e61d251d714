"""The admin API, wired."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cloche.app.admin.api import Api
from cloche.app.admin.guard import certificate_names
from cloche.app.admin.server import AdminServer
from cloche.app.project import Project
from cloche.app.refusals import is_loopback
from cloche.serving.tls import Certificates
from cloche.settings.carry import from_json
from cloche.store.database import Store


@contextmanager
def admin(
    told: dict[str, Any] | None, sockets: Sequence[socket.socket], on_death: Callable[[], None]
) -> Iterator[None]:
    """The admin API on these sockets, where there are any; `told` are the settings."""
    if told is None or not sockets:
        yield
        return
    settings = from_json(told)
    tls = settings.serve.tls
    certificates = None if tls is None else Certificates(tls.cert, tls.key)
    names = frozenset() if tls is None else certificate_names(tls.cert)
    if not is_loopback(settings.serve.host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    with Project(settings, Store(settings.database)) as project:
        api = Api(project, names)
        server = AdminServer(api.app, sockets, certificates, on_death)
        server.start()
        try:
            yield
        finally:
            server.close()
            api.close()
