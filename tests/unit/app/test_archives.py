"""A bundle on its way from one project to another: exported, trusted, imported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cloche
from cloche.app.archives import export_bundle, import_bundle, verify_bundle
from cloche.app.local import open_bundle
from cloche.app.project import Project, open_project
from cloche.core.errors import ConfigError, NotFoundError, RefusedError

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)


@pytest.fixture
def ours(folder: Path, toy: Path) -> Iterator[Project]:
    cloche.pack(toy, X, name="toy")
    with open_project(folder) as project:
        yield project


@pytest.fixture
def theirs(folder: Path) -> Iterator[Project]:
    (folder / "theirs").mkdir()
    with open_project(folder / "theirs") as project:
        yield project


def test_what_was_exported_is_imported_under_the_same_digest(ours: Project, folder: Path) -> None:
    bundle = ours.open("toy:1")
    file = export_bundle(ours, "toy")
    assert file.name == "toy-1.cloche"
    assert verify_bundle(ours, str(file)) == bundle.digest
    again = import_bundle(ours, file)
    assert (again.digest, again.reference) == (bundle.digest, "toy:1")
    assert import_bundle(ours, file, name="other").reference == "other:1"


def test_an_unknown_key_is_refused_until_it_is_trusted(ours: Project, theirs: Project) -> None:
    file = export_bundle(ours, "toy")
    with pytest.raises(RefusedError) as caught:
        import_bundle(theirs, file)
    assert caught.value.code == "CL-E405"
    assert f"cloche verify {file} --trust" in str(caught.value.hint)
    with pytest.raises(RefusedError) as refused:
        open_bundle(theirs, ours.open("toy").path)
    assert f"cloche verify {ours.open('toy').path} --trust" in str(refused.value.hint)
    assert theirs.registry.models() == ()
    verify_bundle(theirs, str(file), trust=ours.signer.public_key)
    assert import_bundle(theirs, file).reference == "toy:1"
    own, other = theirs.trust.public_keys()
    assert (own, other) == (theirs.signer.public_key, ours.signer.public_key)
    with cloche.load("toy", directory=theirs.settings.root) as loaded:
        np.testing.assert_allclose(loaded.predict(X), 2 * X.sum(axis=1), rtol=1e-4, atol=1e-5)


def test_a_key_that_did_not_sign_it_is_not_trusted(ours: Project, theirs: Project) -> None:
    file = export_bundle(ours, "toy")
    with pytest.raises(RefusedError, match="you expected abab") as caught:
        verify_bundle(theirs, str(file), trust="ab" * 32)
    assert ours.signer.public_key in caught.value.message
    assert "--trust" not in str(caught.value.hint)  # whoever swapped the file would be believed
    assert "do not use it" in str(caught.value.hint)
    assert "ab" * 32 not in theirs.trust.public_keys()


@pytest.mark.parametrize("text", ["X", "ab" * 31, "zz" * 32, ""])
def test_what_is_no_public_key_is_said_so(ours: Project, text: str) -> None:
    with pytest.raises(ConfigError, match="is not a public key") as caught:
        verify_bundle(ours, "toy", trust=text)
    assert caught.value.code == "CL-E201"


def test_a_damaged_archive_earns_no_trust(ours: Project, theirs: Project) -> None:
    file = export_bundle(ours, "toy")
    data = bytearray(file.read_bytes())
    data[data.index(b"# toy")] ^= 1
    file.write_bytes(data)
    with pytest.raises(RefusedError, match=r"card\.md"):
        verify_bundle(theirs, str(file), trust=ours.signer.public_key)
    assert ours.signer.public_key not in theirs.trusted()


def test_a_version_a_folder_and_an_archive_are_verified_alike(ours: Project) -> None:
    bundle = ours.open("toy")
    assert verify_bundle(ours, "toy@champion") == bundle.digest
    assert verify_bundle(ours, str(bundle.path)) == bundle.digest
    (bundle.path / "card.md").chmod(0o644)
    (bundle.path / "card.md").write_text("changed")
    for what in ("toy:1", str(bundle.path)):
        with pytest.raises(RefusedError, match=r"card\.md"):
            verify_bundle(ours, what)
    with pytest.raises(RefusedError, match=r"card\.md"):
        export_bundle(ours, "toy")


def test_what_is_not_there_is_said_so(ours: Project, folder: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no file nothing\.cloche") as caught:
        verify_bundle(ours, "nothing.cloche")
    assert caught.value.code == "CL-E303"
    for what in ("nothing", "toy:2", "./nothing.cloche"):
        with pytest.raises(NotFoundError):
            verify_bundle(ours, what)
    with pytest.raises(NotFoundError):
        import_bundle(ours, folder / "nothing.cloche")
    with pytest.raises(NotFoundError):
        export_bundle(ours, "toy", folder / "nowhere" / "toy.cloche")
