"""A project with two versions, one served as far as the store knows, and the admin API on a real port."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import numpy as np
import pytest
from tests.served import hold_as_served

from cloche.app.admin.api import Api
from cloche.app.admin.server import AdminServer
from cloche.app.local import pack_into
from cloche.app.project import Project, open_project
from cloche.store.deployments import Deployments
from cloche.store.keys import Keys
from cloche.testing import toy_onnx

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)


class Desk(NamedTuple):
    """A Desk is an admin API that answers, and its project."""

    project: Project
    url: str

    def key(self, *scopes: str, name: str = "ci") -> str:
        return Keys(self.project.store).create(name, scopes=scopes).text

    def client(self, key: str | None = None) -> httpx2.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.url, headers=headers, trust_env=False, timeout=20)


@contextmanager
def answering(project: Project) -> Iterator[Desk]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    api = Api(project)
    died: list[str] = []
    server = AdminServer(api.app, [listener], None, lambda: died.append("died"))
    server.start()
    try:
        yield Desk(project, f"http://127.0.0.1:{port}")
    finally:
        server.close()
        api.close()
    assert not died


def pack(project: Project, folder: Path, columns: int, name: str = "toy") -> str:
    """Pack one more version; where it differs is how many columns it takes."""
    path = toy_onnx(folder / f"toy{columns}.onnx", inputs=columns)
    rows = np.random.default_rng(0).normal(size=(50, columns)).astype(np.float32)
    return str(pack_into(project, path, rows, None, name=name).reference)


@pytest.fixture
def project(folder: Path) -> Iterator[Project]:
    with open_project(folder) as opened:
        yield opened


@pytest.fixture
def desk(project: Project, folder: Path) -> Iterator[Desk]:
    for number in (1, 2):
        assert pack(project, folder, 3, "toy") == "toy:1"
        pack(project, folder, 3 + number, f"other{number}")
    with answering(project) as found:
        yield found


@pytest.fixture
def served(desk: Desk, folder: Path) -> Iterator[Desk]:
    """With toy:1 served, and toy:2 (the same answers by another name) beside it."""
    path = toy_onnx(folder / "again.onnx")
    pack_into(desk.project, path, 2 * X, None, name="toy")
    Deployments(desk.project.store).start("toy", "toy", "toy:1", 1, "ada")
    held = hold_as_served(desk.project)
    yield desk
    os.close(held)


Pack = Callable[[Project, Path, int], str]
