"""The manifest is one canonical text, and names only what a bundle may hold."""

from __future__ import annotations

import json

import msgspec
import pytest

from cloche.bundle.bundle import Bundle
from cloche.bundle.manifest import FileEntry, Manifest, decode_manifest, digest_of
from cloche.core.errors import RefusedError


def with_files(bundle: Bundle, *paths: str, size: int = 1) -> bytes:
    files = tuple(FileEntry(path=path, size=size, sha256="0" * 64) for path in paths)
    return msgspec.structs.replace(bundle.manifest, files=files).encode()


def test_it_reads_back_as_the_same_bytes(bundle: Bundle) -> None:
    data = (bundle.path / "manifest.json").read_bytes()
    assert decode_manifest(data).encode() == data
    assert digest_of(data) == bundle.digest


def test_its_keys_are_sorted_at_every_depth_and_nothing_is_spaced(bundle: Bundle) -> None:
    text = (bundle.path / "manifest.json").read_text()
    seen: list[list[str]] = []
    json.loads(text, object_pairs_hook=lambda pairs: seen.append([name for name, _ in pairs]))
    assert len(seen) > 5
    assert all(names == sorted(names) for names in seen)
    assert '": ' not in text
    assert "\n" not in text


def test_it_lists_every_file_but_itself_and_the_seal(bundle: Bundle) -> None:
    listed = {entry.path for entry in bundle.manifest.files}
    found = {path.relative_to(bundle.path).as_posix() for path in bundle.path.rglob("*") if path.is_file()}
    assert found - listed == {"manifest.json", "seal.json"}
    assert listed == {"model/model.onnx", "golden.json", "profile.json", "card.md", "sbom.json"}


@pytest.mark.parametrize(
    "path",
    [
        "../evil",
        "model/../../evil",
        "/etc/passwd",
        "model//model.onnx",
        "model/.",
        "model/",
        ".hidden",
        "-rf",
        "model\\evil",
        "mod\u00e8le",
        "line\nbreak",
        "",
        "a" * 101,
        "manifest.json",
        "MANIFEST.json",
        "seal.json",
    ],
)
def test_a_path_that_could_leave_or_hide_is_refused(bundle: Bundle, path: str) -> None:
    with pytest.raises(RefusedError) as caught:
        decode_manifest(with_files(bundle, path))
    assert caught.value.code == "CL-E408"


@pytest.mark.parametrize(
    "paths", [("a", "a"), ("model/A.onnx", "model/a.onnx"), ("model", "model/a"), ("Model", "model/a")]
)
def test_two_paths_that_would_be_one_are_refused(bundle: Bundle, paths: tuple[str, str]) -> None:
    with pytest.raises(RefusedError, match="would be"):
        decode_manifest(with_files(bundle, *paths))


@pytest.mark.parametrize("size", [-1, 8 * 2**30])
def test_a_size_beyond_the_cap_is_refused(bundle: Bundle, size: int) -> None:
    with pytest.raises(RefusedError, match="bytes"):
        decode_manifest(with_files(bundle, "model/a", size=size))


def test_sizes_are_capped_together(bundle: Bundle) -> None:
    with pytest.raises(RefusedError, match="together"):
        decode_manifest(with_files(bundle, "a", "b", "c", size=7 * 2**30))


def test_a_thousand_files_are_the_most(bundle: Bundle) -> None:
    decode_manifest(with_files(bundle, *(f"code/{number}.py" for number in range(1000))))
    with pytest.raises(RefusedError, match="1001 files"):
        decode_manifest(with_files(bundle, *(f"code/{number}.py" for number in range(1001))))


def test_another_format_is_refused_in_words(bundle: Bundle) -> None:
    with pytest.raises(RefusedError, match="format 1, this Cloche reads 2"):
        decode_manifest(msgspec.structs.replace(bundle.manifest, format=1, files=()).encode())


def test_an_unknown_key_is_refused(bundle: Bundle) -> None:
    content = json.loads((bundle.path / "manifest.json").read_bytes()) | {"surprise": 1}
    with pytest.raises(RefusedError) as caught:
        decode_manifest(json.dumps(content).encode())
    assert caught.value.code == "CL-E404"


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"format":"1"}', b'{"format":2}'])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(RefusedError):
        decode_manifest(data)


def test_it_is_a_value(bundle: Bundle) -> None:
    assert isinstance(bundle.manifest, Manifest)
    with pytest.raises(AttributeError):
        bundle.manifest.name = "other"  # type: ignore[misc]
