"""A bundle is opened only as it was packed, and each file is verified as it is read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.unit.bundle.conftest import convert_toy, pack_toy

from cloche.bundle.bundle import Bundle
from cloche.core.errors import NotFoundError, RefusedError
from cloche.testing import toy_signer


def refusal(bundle: Bundle, name: str) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        Bundle.open(bundle.path, {bundle.signer}).read(name)
    return caught.value


def test_what_was_packed_is_there(bundle: Bundle) -> None:
    opened = Bundle.open(bundle.path, {toy_signer().public_key}, digest=bundle.digest)
    opened.verify()
    assert opened.name == "toy"
    assert [field.name for field in opened.signature.inputs] == ["x"]
    assert len(opened.golden().inputs["x"]) == 64
    profile = opened.profile()
    assert profile is not None
    assert profile.rows == 200


def test_a_flipped_byte_of_any_file_is_refused_by_name(bundle: Bundle) -> None:
    names = [entry.path for entry in bundle.manifest.files]
    for name in names:
        path = bundle.path / name
        good = path.read_bytes()
        for place in (0, len(good) // 2, len(good) - 1):
            changed = bytearray(good)
            changed[place] ^= 1
            path.write_bytes(changed)
            error = refusal(bundle, name)
            assert error.code == "CL-E404"
            assert name in error.message
            with pytest.raises(RefusedError, match=name), bundle.source(name):
                pass
            with pytest.raises(RefusedError, match=name):
                bundle.verify()
        path.write_bytes(good)
    bundle.verify()


@pytest.mark.parametrize("change", [-1, 1, 5_000_000])
def test_a_copy_is_the_whole_file_and_no_more(bundle: Bundle, change: int) -> None:
    name = max(bundle.manifest.files, key=lambda entry: entry.size).path
    good = bundle.read(name)
    with bundle.source(name) as path:
        assert Path(path).read_bytes() == good
    (bundle.path / name).write_bytes(good[:change] if change < 0 else good + bytes(change))
    with pytest.raises(RefusedError, match="it has"), bundle.source(name):
        pass


@pytest.mark.parametrize("name", ["manifest.json", "seal.json"])
def test_a_flipped_byte_of_manifest_or_seal_keeps_it_shut(bundle: Bundle, name: str) -> None:
    good = (bundle.path / name).read_bytes()
    for place in range(0, len(good), 3):
        changed = bytearray(good)
        changed[place] ^= 1 << place % 8
        (bundle.path / name).write_bytes(changed)
        with pytest.raises(RefusedError, match=name):
            Bundle.open(bundle.path, None)


@pytest.mark.parametrize("change", [lambda data: data + b" ", lambda data: data[:-1], lambda data: b""])
def test_another_length_is_refused(bundle: Bundle, change: object) -> None:
    path = bundle.path / "golden.json"
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    assert "bytes" in refusal(bundle, "golden.json").message


def test_a_missing_file_is_refused(bundle: Bundle) -> None:
    (bundle.path / "card.md").unlink()
    assert "card.md" in refusal(bundle, "card.md").message


def test_a_link_is_not_followed_even_to_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    path = bundle.path / "golden.json"
    shutil.move(path, tmp_path / "golden.json")
    path.symlink_to(tmp_path / "golden.json")
    assert refusal(bundle, "golden.json").code == "CL-E404"


def test_a_linked_folder_is_not_entered(bundle: Bundle, tmp_path: Path) -> None:
    shutil.move(bundle.path / "model", tmp_path / "elsewhere")
    (bundle.path / "model").symlink_to(tmp_path / "elsewhere")
    assert refusal(bundle, "model/model.onnx").code == "CL-E404"


def test_a_pipe_in_a_file_s_place_does_not_hang(bundle: Bundle) -> None:
    (bundle.path / "golden.json").unlink()
    os.mkfifo(bundle.path / "golden.json")
    assert "regular" in refusal(bundle, "golden.json").message


@pytest.mark.parametrize("name", ["more.txt", "model/more.onnx"])
def test_a_foreign_file_is_refused(bundle: Bundle, name: str) -> None:
    (bundle.path / name).write_text("hello")
    with pytest.raises(RefusedError, match=name):
        bundle.verify()


def test_a_foreign_folder_is_refused(bundle: Bundle) -> None:
    (bundle.path / "empty").mkdir()
    with pytest.raises(RefusedError, match="empty"):
        bundle.verify()


def test_only_listed_files_can_be_read(bundle: Bundle) -> None:
    for name in ("manifest.json", "../toy.onnx", "nothing"):
        with pytest.raises(NotFoundError):
            bundle.read(name)
        with pytest.raises(NotFoundError):
            bundle.source(name)


def test_an_unknown_signer_is_refused(bundle: Bundle) -> None:
    with pytest.raises(RefusedError) as caught:
        Bundle.open(bundle.path, {toy_signer(7).public_key})
    assert caught.value.code == "CL-E405"


def test_another_bundle_than_the_one_asked_for_is_refused(bundle: Bundle) -> None:
    with pytest.raises(RefusedError, match="digest"):
        Bundle.open(bundle.path, None, digest="0" * 64)


def test_no_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        Bundle.open(tmp_path / "nowhere", None)
    assert caught.value.code == "CL-E303"


def test_its_repr_is_short_and_tells_what_it_is(bundle: Bundle) -> None:
    text = repr(bundle)
    assert text.count("\n") < 3
    assert "toy" in text
    assert bundle.digest[:12] in text
    assert f"same answers on {bundle.manifest.rows} rows" in text


def test_a_bundle_packed_again_repeats_the_first_and_no_other(tmp_path: Path) -> None:
    converted = convert_toy(tmp_path)
    first, again = (pack_toy(converted, tmp_path / name) for name in ("first", "again"))
    assert first.repeats(again)
    assert converted.columns is not None
    converted.columns["x"] = converted.columns["x"] + 1
    converted.reference = None
    assert not first.repeats(pack_toy(converted, tmp_path / "other"))
