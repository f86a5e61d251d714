"""`cloche.asgi`: a model inside an app of one's own, with every dialect and the docs, without workers."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, overload
from urllib.parse import quote

import msgspec

from cloche.app.choose import Chosen, choose
from cloche.app.describe import describe_deployment, features_of
from cloche.app.desired import DeploymentConfig, Desired, Wished
from cloche.app.project import Project, open_project
from cloche.app.refusals import check_code
from cloche.app.versions import Loaded, Versions, load
from cloche.app.wish import describe_worker
from cloche.app.worker import WorkerConfig
from cloche.bundle.bundle import Bundle
from cloche.bundle.rows import to_columns
from cloche.core.aside import giving_way, in_short_turns
from cloche.core.board import Board, Role, Slot
from cloche.core.errors import ClocheError, ConfigError
from cloche.core.platform import process_start
from cloche.serving.http import App
from cloche.serving.keyring import FollowedKeys
from cloche.serving.pages import Pages
from cloche.serving.protocols.schema import predictions
from cloche.serving.state import WorkerState
from cloche.settings.kinds import looks_like_path

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def asgi(model: Bundle | str | Path, *, allow_code: bool = False, directory: Path | str | None = None) -> ModelApp:
    """A model as an ASGI app, to be mounted: `app.mount("/models", cloche.asgi("sentiment@champion"))`.

    `model` is what `cloche up` takes: a reference, a Bundle, or the path of a bundle or model file. It answers
    below the mount as it does there, `/models/predict/sentiment` and `/models/docs` among others, with deadline,
    cache, look-up, keys and limits of its table in the nearest `cloche.toml`; who may ask at all is the app's to
    say. The version is resolved and verified now and loaded with the first request, or by `start`.

    Raises NotFoundError, RefusedError and ConfigError as `cloche up` does.
    """
    if isinstance(model, Bundle):
        if model.reference is None:
            raise ConfigError("this bundle is not registered", code="CL-E203", hint="import or pack it first")
        model = model.reference
    name = str(model)
    overrides = {"serve.allow_code": allow_code or None}
    with open_project(directory, overrides=overrides, create=looks_like_path(name)) as project:
        return ModelApp(*_config(project, choose(project, name)))


def _config(project: Project, chosen: Chosen) -> tuple[WorkerConfig, DeploymentConfig]:
    check_code(chosen.bundle, allowed=project.settings.serve.allow_code)
    chosen.bundle.verify()
    version = chosen.version
    known = project.registry.aliases(version.model)
    deployed = describe_deployment(
        chosen.online,
        version,
        chosen.bundle.path,
        aliases=[name for name, number in known.items() if number == version.version],
        features=features_of(chosen.online, chosen.bundle),
        keys_required=chosen.online.access.keys,
    )
    worker = describe_worker(project, loopback=True) | {"tls": None}
    return msgspec.convert(worker, WorkerConfig), deployed


class _Place:
    """A place is a board of this process's own, in a folder that goes with the app."""

    def __init__(self, owner: object) -> None:
        folder = tempfile.mkdtemp(prefix="cloche-")
        weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
        self.board = Board(Path(folder) / "board")
        self.slot: Slot = self.board.claim(0, Role.WORKER, os.getpid(), process_start(os.getpid()))


class ModelApp:
    """A ModelApp is one model as an ASGI app, mounted in another or served by itself.

    It is loaded once a process, and joins the requests of each event loop in batches.
    """

    def __init__(self, config: WorkerConfig, deployed: DeploymentConfig) -> None:
        self._config = config
        self._deployed = deployed
        self._desired = Desired(revision=0, deployments=(Wished(stable=deployed),))
        self._lock = threading.Lock()
        self._loaded: Loaded | None = None
        self._keys = FollowedKeys(config.keys, config.database)
        self._apps: dict[asyncio.AbstractEventLoop, App] = {}

    def __repr__(self) -> str:
        return f"<ModelApp {self._deployed.ref} as {self._deployed.deployment}>"

    async def start(self) -> None:
        """Load the model now, so that the first request finds it ready; Starlette tells no mounted app to."""
        await self._app()

    async def stop(self) -> None:
        """Give back what it holds; a later request loads it anew."""
        # a load that is under way is waited for, on a side thread as well
        await asyncio.get_running_loop().run_in_executor(None, self._give_up)

    def _give_up(self) -> None:
        with self._lock:
            for app in self._apps.values():
                app.close()
            self._apps.clear()
            self._keys.close()
            if self._loaded is not None:
                self._loaded.runtime.close()
                self._loaded = None

    @overload
    async def predict(self, rows: Mapping[str, Any]) -> dict[str, Any]: ...

    @overload
    async def predict(self, rows: Any) -> list[dict[str, Any]]: ...

    async def predict(self, rows: Any) -> Any:
        """What the model says of one row (a mapping) or of many, for an endpoint of one's own.

        Rows of concurrent callers are joined in batches, under the deadline of the deployment; answers are as over
        HTTP. Raises InputError, BusyError, ModelError.
        """
        deployment = (await self._app()).table.predictions[0].deployment
        is_one = isinstance(rows, Mapping)
        prepared = deployment.engine.prepare(to_columns([rows] if is_one else rows, deployment.engine.signature))
        outputs = prepared.cached
        if outputs is None:
            now = time.monotonic()
            outputs, _, _ = await deployment.batcher.submit(prepared, now + deployment.deadline_s, now)
        answers = predictions(outputs, deployment.engine.signature)
        return answers[0] if is_one else answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            app = await self._app()
            self._place.slot.beat()
            await app(_inner(scope), receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return
            try:
                await self.start()
            except ClocheError as error:
                await send({"type": "lifespan.startup.failed", "message": error.render()})
                return
            await send({"type": "lifespan.startup.complete"})

    async def _app(self) -> App:
        loop = asyncio.get_running_loop()
        app = self._apps.get(loop)
        if app is not None:
            return app
        # whoever asked first makes it, on a side thread: others in this process are answered meanwhile
        return await loop.run_in_executor(None, self._make, loop)

    def _make(self, loop: asyncio.AbstractEventLoop) -> App:
        with self._lock, in_short_turns():
            app = self._apps.get(loop)
            if app is None:
                for ended in [each for each in self._apps if each.is_closed()]:
                    self._apps.pop(ended).close()
                loaded, state = self._load(), WorkerState()
                versions = Versions(lambda _: loaded, self._place, state, self._keys, loop, loopback=True)
                table = versions.table(self._desired)
                pages = Pages(table, self._place.board, state)
                app = self._apps[loop] = App(table, pages, state, max_body=self._config.max_body)
                state.is_ready = True
            return app

    def _load(self) -> Loaded:
        if self._loaded is None:
            self._place = _Place(self)
            self._keys = FollowedKeys(self._config.keys, self._config.database)
            timeout_s = self._config.load_timeout_s
            self._loaded = giving_way(partial(load, self._deployed, self._config.trusted, timeout_s))
        return self._loaded


def _inner(scope: Scope) -> Scope:
    """The scope as if the model stood at the root; `app_root_path` says where it is mounted."""
    root, path, raw = scope.get("root_path", ""), scope["path"], scope.get("raw_path")
    if root and path.startswith(root):
        path = path[len(root) :]
    encoded = quote(root).encode()
    if raw is None or not raw.startswith(encoded):
        raw = quote(path).encode()
    else:
        raw = raw.partition(b"?")[0][len(encoded) :]
    return {**scope, "path": path or "/", "raw_path": raw or b"/", "root_path": "", "app_root_path": root}
