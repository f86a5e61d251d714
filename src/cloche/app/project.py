"""A project opened: its settings, store, registry, trusted keys and signing key."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from cloche.bundle.bundle import Bundle
from cloche.bundle.sign import KEY_FILE, Signer
from cloche.core.errors import ConfigError, NotFoundError
from cloche.core.reference import Reference
from cloche.registry import ModelVersion, Registry
from cloche.settings import Settings, load_settings
from cloche.store.blobs import BundleFolder
from cloche.store.database import Store
from cloche.store.trust import TrustedKeys

#: The folder of bundles in a data folder.
BUNDLES = "bundles"


class Project:
    """A Project is a data folder and what is in it; close it, or use it in a `with` statement."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self.bundles = BundleFolder(settings.storage or settings.data / BUNDLES)
        self.registry = Registry(store, self.bundles)
        self.trust = TrustedKeys(store)

    @cached_property
    def signer(self) -> Signer:
        """The data folder's own signer, made at first use; its public half is trusted from then on."""
        is_new = not (self.settings.data / KEY_FILE).exists()
        signer = Signer.of_folder(self.settings.data)
        if is_new or signer.public_key not in self.trust.public_keys():
            self.trust.add(signer.public_key, name="this data folder")
        return signer

    @cached_property
    def machine(self) -> str:
        """What tells this data folder from others that share its database; made at first use."""
        file = self.settings.data / "machine"
        if not file.exists():
            file.write_text(f"{socket.gethostname()[:40]}-{secrets.token_hex(4)}\n")
        return file.read_text().strip()

    def trusted(self) -> frozenset[str]:
        """The public keys whose seals are believed here."""
        return frozenset(self.trust.public_keys())

    def open(self, reference: Reference | str) -> Bundle:
        """The bundle of a registered version, under that name. Raises NotFoundError and RefusedError."""
        return self.open_version(self.registry.resolve(reference))

    def open_version(self, version: ModelVersion) -> Bundle:
        """The bundle of this version."""
        bundle = Bundle.open(self.bundles.path(version.digest), self.trusted(), digest=version.digest)
        bundle.reference = str(version)
        return bundle

    def acting_as(self, who: str) -> Project:
        """The same project, for what this process does for somebody else."""
        return Project(self.settings, self.store.acting_as(who))

    def register(self, bundle: Bundle, name: str | None = None, *, how: str = "registered") -> Bundle:
        """Keep a verified bundle and give it the next version of its model, or of `name`."""
        path = self.bundles.add(bundle.path, bundle.digest)
        manifest = bundle.manifest
        version = self.registry.register(
            bundle.digest,
            name or manifest.name,
            framework=manifest.framework,
            size_bytes=sum(entry.size for entry in manifest.files),
            metrics=manifest.quality,
            how=how,
        )
        kept = Bundle.open(path, {bundle.signer}, digest=bundle.digest)
        kept.reference = str(version)
        return kept

    def close(self) -> None:
        self.store.close()

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_project(
    directory: Path | str | None = None,
    *,
    config: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    create: bool = True,
) -> Project:
    """The project of the nearest `cloche.toml` upwards of `directory` (default: the current folder).

    With `create=False` nothing is written: a data folder that is not there reads as empty.
    """
    if directory is not None and not Path(directory).is_dir():
        raise NotFoundError(f"there is no folder {directory}", code="CL-E303", hint="make it, or check the path")
    settings = load_settings(
        directory=None if directory is None else Path(directory),
        config=config,
        environ=os.environ,
        overrides=overrides,
    )
    if create:
        _make_folder(settings.data)
    return Project(settings, Store(settings.database, create=create))


def _make_folder(data: Path) -> None:
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the data folder {data} can't be made: {error.strerror}",
            code="CL-E201",
            hint="set CLOCHE_DATA, or data under [project], to a folder that you can write to",
        ) from None
