"""Listening sockets: bound in words that say what is wrong, and shut without a reset."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from cloche.control.listeners import address, bind, shut
from cloche.core.errors import ConfigError, ConflictError, RefusedError


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_port_0_takes_a_free_one(host: str) -> None:
    with bind(host, 0) as listener:
        port = listener.getsockname()[1]
        assert port > 0
        assert not listener.getblocking()
        assert not listener.get_inheritable()
        with socket.create_connection((host, port)):
            pass
        shown = address(listener)
    assert shown in (f"http://127.0.0.1:{port}", f"http://[::1]:{port}")


def test_a_taken_port_is_a_conflict() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ConflictError) as caught:
        bind("127.0.0.1", other.getsockname()[1])
    assert caught.value.code == "CL-E503"


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_this_machines_is_said(host: str) -> None:
    with pytest.raises(ConfigError, match=host):
        bind(host, 0)


@pytest.mark.skipif(os.getuid() == 0, reason="root may listen anywhere")
def test_a_port_that_needs_root_is_refused() -> None:
    with pytest.raises(RefusedError, match="may not listen on port 1"):
        bind("127.0.0.1", 1)


def test_a_port_can_be_bound_again_at_once() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            first.accept()[0].close()  # leaves a connection in TIME_WAIT
    bind("127.0.0.1", port).close()


@pytest.mark.skipif(sys.platform != "linux", reason="packet filters are Linux's")
def test_shut_lets_nothing_in_and_leaves_what_is_queued() -> None:
    listener = bind("127.0.0.1", 0)
    name = listener.getsockname()
    workers = listener.dup()  # as a worker holds it
    queued = socket.create_connection(name)
    shut(listener)
    assert listener.fileno() == -1
    late = socket.socket()
    late.settimeout(0.2)
    with pytest.raises(TimeoutError):
        late.connect(name)
    accepted, _ = workers.accept()
    queued.sendall(b"still heard")
    assert accepted.recv(64) == b"still heard"
    workers.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(name)
    for open_still in (queued, late, accepted):
        open_still.close()
