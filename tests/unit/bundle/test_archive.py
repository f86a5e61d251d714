"""One flipped byte anywhere is refused by name, and nothing of an archive is believed."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from cloche.bundle import archive
from cloche.bundle.bundle import Bundle
from cloche.bundle.folder import write_folder
from cloche.bundle.manifest import MANIFEST, SEAL
from cloche.core.errors import NotFoundError, RefusedError
from cloche.testing import toy_signer

SIGNER = toy_signer()
TRUST = {SIGNER.public_key}


@pytest.fixture
def small(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A bundle of few bytes: each of them is changed below."""
    manifest = msgspec.structs.replace(bundle.manifest, description="small")
    files = {"golden.json": b"{}", "model/model.onnx": bytes(range(256)) * 2, "sbom.json": b""}
    return write_folder(tmp_path / "small", manifest, files, SIGNER)


def regions(data: bytes) -> list[tuple[int, int, str]]:
    """(start, stop, name): what each byte of the archive belongs to, header and padding included."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            stop = member.offset_data + -(-member.size // 512) * 512
            found.append((member.offset, stop, member.name))
    return [*found, (found[-1][1], len(data), "the end of the archive")]


def refused(path: Path, into: Path, trust: set[str] | None = None) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        archive.read(path, into, TRUST if trust is None else trust)
    assert not into.exists()
    assert [left.name for left in into.parent.glob(".import-*")] == []
    return caught.value


def test_what_goes_in_comes_out(bundle: Bundle, tmp_path: Path) -> None:
    file = archive.write(bundle, tmp_path / "toy.cloche")
    again = archive.read(file, tmp_path / "again", TRUST)
    again.verify()
    assert again.digest == bundle.digest == archive.inspect(file, TRUST)
    for path in bundle.path.rglob("*"):
        if path.is_file():
            assert (again.path / path.relative_to(bundle.path)).read_bytes() == path.read_bytes()


def test_the_same_bundle_gives_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    one, two = (archive.write(bundle, tmp_path / name).read_bytes() for name in ("one", "two"))
    assert one == two


def test_any_tar_can_list_it(bundle: Bundle, tmp_path: Path) -> None:
    file = archive.write(bundle, tmp_path / "toy.cloche")
    done = subprocess.run(["tar", "-tf", str(file)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [MANIFEST, SEAL, *(entry.path for entry in bundle.manifest.files)]


def test_a_flipped_bit_anywhere_is_refused_by_name(small: Bundle, tmp_path: Path) -> None:
    good = archive.write(small, tmp_path / "small.cloche").read_bytes()
    names = regions(good)
    assert [name for _, _, name in names] == [
        MANIFEST,
        SEAL,
        "golden.json",
        "model/model.onnx",
        "sbom.json",
        "the end of the archive",
    ]
    file = tmp_path / "changed.cloche"
    for start, stop, name in names:
        # Every third byte of all there is: contents, headers, padding, the end.
        for place in range(start, stop, 3):
            changed = bytearray(good)
            changed[place] ^= 1 << place % 8
            file.write_bytes(changed)
            with pytest.raises(RefusedError) as caught:
                archive.inspect(file, TRUST)
            assert name in caught.value.message, f"bit {place % 8} of byte {place}"


def test_a_file_cut_anywhere_is_refused(small: Bundle, tmp_path: Path) -> None:
    good = archive.write(small, tmp_path / "small.cloche").read_bytes()
    file = tmp_path / "cut.cloche"
    for length in range(0, len(good), 97):
        file.write_bytes(good[:length])
        refused(file, tmp_path / "into")


@pytest.mark.parametrize("more", [b"\0", b"x", bytes(512), b"x" * 10_000])
def test_something_after_the_end_is_refused(small: Bundle, tmp_path: Path, more: bytes) -> None:
    file = archive.write(small, tmp_path / "small.cloche")
    file.write_bytes(file.read_bytes() + more)
    assert refused(file, tmp_path / "into").code == "CL-E408"


def test_an_unknown_signer_is_refused_before_anything_is_unpacked(small: Bundle, tmp_path: Path) -> None:
    file = archive.write(small, tmp_path / "small.cloche")
    error = refused(file, tmp_path / "into", {toy_signer(3).public_key})
    assert error.code == "CL-E405"
    assert SIGNER.public_key in error.message
    assert archive.signer(file) == archive.signer(small.path) == SIGNER.public_key


def link(tar: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("golden.json")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    tar.addfile(info)


def hard_link(tar: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("golden.json")
    info.type, info.linkname = tarfile.LNKTYPE, "manifest.json"
    tar.addfile(info)


def device(tar: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("golden.json")
    info.type = tarfile.CHRTYPE
    tar.addfile(info)


def way_out(tar: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("../../evil")
    info.size = 2
    tar.addfile(info, io.BytesIO(b"{}"))


def foreign(tar: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("foreign.json")
    info.size = 2
    tar.addfile(info, io.BytesIO(b"{}"))


@pytest.mark.parametrize("evil", [link, hard_link, device, way_out, foreign])
def test_what_is_no_file_of_the_manifest_is_refused(
    small: Bundle, tmp_path: Path, evil: Callable[[tarfile.TarFile], None]
) -> None:
    """A correct manifest and seal, then something else in the place of its first file."""
    file = tmp_path / "evil.cloche"
    good = archive.write(small, tmp_path / "good.cloche").read_bytes()
    begin, end, _ = regions(good)[2]
    block = io.BytesIO()
    with tarfile.open(fileobj=block, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        evil(tar)
    middle = block.getvalue()[: tar.offset // 512 * 512].rstrip(b"\0")
    file.write_bytes(good[:begin] + middle.ljust(-(-len(middle) // 512) * 512, b"\0") + good[end:])
    error = refused(file, tmp_path / "deep" / "into")
    assert error.code == "CL-E408"
    assert "golden.json" in error.message
    assert not (tmp_path / "evil").exists()


def test_a_part_that_comes_twice_is_refused(small: Bundle, tmp_path: Path) -> None:
    file = archive.write(small, tmp_path / "small.cloche")
    good = file.read_bytes()
    start, stop, name = regions(good)[2]
    file.write_bytes(good[:stop] + good[start:stop] + good[stop:])
    assert name != "model/model.onnx"
    assert "model/model.onnx" in refused(file, tmp_path / "into").message


def test_parts_in_another_order_are_refused(small: Bundle, tmp_path: Path) -> None:
    file = archive.write(small, tmp_path / "small.cloche")
    good = file.read_bytes()
    (a, b, _), (c, d, _) = regions(good)[2:4]
    file.write_bytes(good[:a] + good[c:d] + good[a:b] + good[d:])
    assert refused(file, tmp_path / "into").code == "CL-E408"


def test_a_compressed_archive_is_refused(small: Bundle, tmp_path: Path) -> None:
    file = archive.write(small, tmp_path / "small.cloche")
    file.write_bytes(gzip.compress(file.read_bytes()))
    assert refused(file, tmp_path / "into").code == "CL-E408"


def test_a_huge_manifest_is_refused_before_it_is_read(small: Bundle, tmp_path: Path) -> None:
    file = archive.write(small, tmp_path / "small.cloche")
    info = tarfile.TarInfo(MANIFEST)
    info.size = 8 * 2**30 - 1
    file.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + file.read_bytes()[512:])
    assert refused(file, tmp_path / "into").code == "CL-E408"


def test_a_changed_bundle_is_not_exported(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.path / "card.md").write_text("changed")
    with pytest.raises(RefusedError, match=r"card\.md"):
        archive.write(bundle, tmp_path / "toy.cloche")
    assert [path.name for path in tmp_path.glob("*cloche*")] == []


def test_no_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        archive.read(tmp_path / "nothing.cloche", tmp_path / "into", TRUST)
    with pytest.raises(NotFoundError):
        archive.inspect(tmp_path, TRUST)
