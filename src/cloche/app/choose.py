"""What `cloche up` is to serve: a registered version, or a file that is packed or imported first."""

from __future__ import annotations

import hashlib
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cloche import __version__
from cloche.app.archives import import_bundle
from cloche.app.project import Project
from cloche.bundle.archive import SUFFIX
from cloche.bundle.bundle import Bundle
from cloche.bundle.manifest import MANIFEST
from cloche.core.errors import ConfigError, NotFoundError, RefusedError
from cloche.registry import ModelVersion
from cloche.settings import Online, default_online
from cloche.settings.kinds import looks_like_path

if TYPE_CHECKING:
    from cloche.bundle.pack import Progress

_FILES = (".onnx", ".pkl", ".joblib", SUFFIX)


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """A Chosen is what is to be served: a deployment, and the version that `asked` names now."""

    online: Online
    asked: str
    version: ModelVersion
    bundle: Bundle


def choose_all(project: Project, progress: Progress | None = None) -> list[Chosen]:
    """What every [online.NAME] of cloche.toml names. Raises ConfigError where there is none."""
    if not project.settings.online:
        raise ConfigError(
            "there is nothing to serve: no model is named, and no cloche.toml has an [online.NAME]",
            hint="cloche up fraud@champion, or cloche up model.onnx",
        )
    chosen = []
    for online in project.settings.online:
        version, bundle = _find(project, online.model, online.name, progress)
        chosen.append(Chosen(online=online, asked=online.model, version=version, bundle=bundle))
    return chosen


def choose(project: Project, model: str, *, progress: Progress | None = None) -> Chosen:
    """What to serve for one model; a file or class that is not packed yet is packed and registered.

    Its deployment has the model's name, and is run as the table of that name says.
    """
    version, bundle = _find(project, model, None, progress)
    described = next((one for one in project.settings.online if one.name == version.model), None)
    if described is not None:
        online = msgspec.structs.replace(described, model=str(version))
    else:
        online = default_online(version.model, str(version))
    return Chosen(online=online, asked=model, version=version, bundle=bundle)


def no_code(what: str) -> RefusedError:
    return RefusedError(
        f"{what} carries Python code, and code is not allowed here",
        code="CL-E406",
        hint="if you trust it: --allow-code, or allow_code = true under [serve] in cloche.toml",
    )


def _find(
    project: Project, model: str, name: str | None, progress: Progress | None
) -> tuple[ModelVersion, Bundle]:
    path = Path(model)
    is_class = ".py:" in model
    if is_class and not project.settings.serve.allow_code:
        raise no_code(model)  # before it is run, which packing does
    if not (looks_like_path(model) or is_class or path.is_file()):
        if path.suffix in _FILES:
            raise NotFoundError(f"there is no file {model}", code="CL-E303", hint="check the path")
        version = project.registry.resolve(model)
        return version, project.open_version(version)
    if path.is_dir() and (path / MANIFEST).exists():
        found = Bundle.open(path, project.trusted() | {project.signer.public_key})
        found.verify()
        bundle = project.register(found, name)
    elif path.suffix == SUFFIX and path.is_file():
        bundle = import_bundle(project, path, name)
    else:
        bundle = _pack(project, model, name or name_of(model), progress)
    assert bundle.reference is not None
    return project.registry.resolve(bundle.reference), bundle


def _pack(project: Project, model: str, name: str, progress: Progress | None) -> Bundle:
    """The bundle of a model file or class: made now, unless this very file was packed under this name before.

    Otherwise each `up` of the same file would be another version, and could take over nothing that runs.
    """
    memo = _memo(project, model, name)
    if memo is not None and memo.exists() and (digest := memo.read_text()) in project.bundles:
        return project.register(Bundle.open(project.bundles.path(digest), project.trusted(), digest=digest), name)
    # what packs imports much that serving needs not
    pack_into = import_module("cloche.app.local").pack_into
    bundle: Bundle = pack_into(project, model, None, None, name=name, progress=progress)
    if memo is not None:
        memo.parent.mkdir(mode=0o700, exist_ok=True)
        memo.write_text(bundle.digest)
    return bundle


def _memo(project: Project, model: str, name: str) -> Path | None:
    """Where it is written down what became of this file or folder; another Cloche may pack it better."""
    stem, is_class, inner = model.partition(".py:")
    path = Path(f"{stem}.py" if is_class else model)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        return None
    content = hashlib.sha256(f"{__version__} {inner}\n".encode())
    for file in files:
        content.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                content.update(block)
    return project.settings.data / "packed" / f"{name}-{content.hexdigest()}"


def name_of(model: str) -> str:
    """Where none was given: `sentiment` for `code/Sentiment.py:Model`, `fraud-v2` for `./Fraud v2.onnx`."""
    stem = Path(model.partition(".py:")[0] if ".py:" in model else Path(model).stem).name
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:63] or "model"
