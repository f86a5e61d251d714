"""Bundles on disk: complete or not there."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloche.core.errors import BusyError, ConfigError, NotFoundError
from cloche.store.blobs import BundleFolder

DIGEST = "0f" * 32


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "packed"
    (folder / "model").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "model" / "model.onnx").write_bytes(b"weights")
    return folder


def test_a_bundle_is_kept_whole_under_its_digest(bundles: BundleFolder, source: Path) -> None:
    place = bundles.add(source, DIGEST)
    assert place == bundles.path(DIGEST) == bundles.root / DIGEST
    assert (place / "model" / "model.onnx").read_bytes() == b"weights"
    assert DIGEST in bundles
    assert [entry.name for entry in bundles.root.iterdir()] == [DIGEST]


def test_the_original_may_go_afterwards(bundles: BundleFolder, source: Path) -> None:
    bundles.add(source, DIGEST)
    shutil.rmtree(source)
    assert (bundles.path(DIGEST) / "manifest.json").read_text() == "{}"


def test_files_that_are_kept_are_read_only(bundles: BundleFolder, source: Path) -> None:
    place = bundles.add(source, DIGEST)
    assert {file.stat().st_mode & 0o777 for file in place.rglob("*") if file.is_file()} == {0o444}


def test_a_bundle_that_is_kept_already_stays_as_it_is(bundles: BundleFolder, source: Path) -> None:
    place = bundles.add(source, DIGEST)
    (source / "manifest.json").write_text("another")
    assert bundles.add(source, DIGEST) == place
    assert (place / "manifest.json").read_text() == "{}"


def test_a_bundle_that_is_not_kept_is_not_there(bundles: BundleFolder) -> None:
    assert DIGEST not in bundles
    with pytest.raises(NotFoundError, match=DIGEST[:12]) as caught:
        bundles.path(DIGEST)
    assert caught.value.code == "CL-E303"
    assert not bundles.root.exists()


@pytest.mark.parametrize("digest", ["", "..", "../" + DIGEST[3:], DIGEST.upper(), DIGEST[:-1], DIGEST + "/x"])
def test_what_is_no_digest_never_becomes_a_path(bundles: BundleFolder, source: Path, digest: str) -> None:
    with pytest.raises(ConfigError):
        bundles.add(source, digest)
    with pytest.raises(ConfigError):
        bundles.path(digest)


def test_links_are_kept_as_links_so_that_nothing_outside_is_copied(
    bundles: BundleFolder, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    (source / "model" / "link").symlink_to(tmp_path / "secret")
    place = bundles.add(source, DIGEST)
    assert (place / "model" / "link").is_symlink()
    assert (tmp_path / "secret").stat().st_mode & 0o777 != 0o444


def test_a_copy_that_fails_leaves_nothing(bundles: BundleFolder, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        bundles.add(tmp_path / "nowhere", DIGEST)
    assert list(bundles.root.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_that_can_not_be_written_is_said_and_nothing_stays(bundles: BundleFolder, number: int) -> None:
    with pytest.raises(BusyError, match=f"can't be written: {os.strerror(number)}") as caught, bundles.stage():
        raise OSError(number, os.strerror(number))
    assert caught.value.code == "CL-E606"
    assert list(bundles.root.iterdir()) == []
    with pytest.raises(FileNotFoundError), bundles.stage():
        raise FileNotFoundError


def test_a_staging_folder_is_private_and_goes(bundles: BundleFolder) -> None:
    with bundles.stage() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "half").write_text("half")
    assert list(bundles.root.iterdir()) == []


_ADD = """
import sys
from pathlib import Path
from cloche.store.blobs import BundleFolder
place = BundleFolder(Path(sys.argv[1])).add(Path(sys.argv[2]), sys.argv[3])
assert (place / "model" / "model.onnx").read_bytes() == b"weights"
"""


def test_processes_that_add_the_same_bundle_at_once_all_find_it(bundles: BundleFolder, source: Path) -> None:
    command = [sys.executable, "-c", _ADD, str(bundles.root), str(source), DIGEST]
    started = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(60) for process in started] == [0] * 4
    assert [entry.name for entry in bundles.root.iterdir()] == [DIGEST]
