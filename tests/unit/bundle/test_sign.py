"""Seals: who signed a manifest, and that nobody has changed a byte of either."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from cloche.bundle.sign import KEY_FILE, Signer, check_seal
from cloche.core.errors import RefusedError
from cloche.testing import toy_signer

MANIFEST = b'{"name":"fraud"}'
FILE = Path("from them/fraud-3.cloche")


def test_a_seal_names_its_signer() -> None:
    signer = Signer.make()
    assert check_seal(MANIFEST, signer.seal(MANIFEST), {signer.public_key}, FILE) == signer.public_key
    assert check_seal(MANIFEST, signer.seal(MANIFEST), None, FILE) == signer.public_key


def test_an_unknown_signer_is_refused_with_the_way_to_trust_it() -> None:
    signer = toy_signer(1)
    with pytest.raises(RefusedError) as caught:
        check_seal(MANIFEST, signer.seal(MANIFEST), {toy_signer(2).public_key}, FILE)
    assert caught.value.code == "CL-E405"
    assert f"cloche verify 'from them/fraud-3.cloche' --trust {signer.public_key}" in (caught.value.hint or "")


def test_any_bit_of_the_seal_matters() -> None:
    seal = toy_signer().seal(MANIFEST)
    for place in range(len(seal)):
        for bit in range(8):
            changed = bytearray(seal)
            changed[place] ^= 1 << bit
            with pytest.raises(RefusedError):
                check_seal(MANIFEST, bytes(changed), None, FILE)


def test_any_bit_of_the_manifest_matters() -> None:
    seal = toy_signer().seal(MANIFEST)
    for place in range(len(MANIFEST) * 8):
        changed = bytearray(MANIFEST)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(RefusedError) as caught:
            check_seal(bytes(changed), seal, None, FILE)
        assert caught.value.code == "CL-E404"


@pytest.mark.parametrize("change", [{"signatures": []}, {"payloadType": "text/plain"}, {"more": 1}])
def test_a_seal_of_another_form_is_refused(change: dict[str, object]) -> None:
    seal = json.dumps(json.loads(toy_signer().seal(MANIFEST)) | change, separators=(",", ":"))
    with pytest.raises(RefusedError):
        check_seal(MANIFEST, seal.encode(), None, FILE)


def test_a_seal_over_another_manifest_does_not_fit() -> None:
    signer = toy_signer()
    with pytest.raises(RefusedError) as caught:
        check_seal(MANIFEST, signer.seal(b"{}"), {signer.public_key}, FILE)
    assert caught.value.code == "CL-E404"


def test_the_key_is_made_once_and_is_its_owner_s_alone(tmp_path: Path) -> None:
    first = Signer.of_folder(tmp_path / "data")
    key = tmp_path / "data" / KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert Signer.of_folder(tmp_path / "data").public_key == first.public_key
    assert [path.name for path in key.parent.iterdir()] == [KEY_FILE]


def test_many_at_once_make_one_key(tmp_path: Path) -> None:
    keys: list[str] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        keys.append(Signer.of_folder(tmp_path).public_key)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    Signer.of_folder(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(RefusedError, match="others can read"):
        Signer.of_folder(tmp_path)


@pytest.mark.parametrize("content", ["", "no key", "00" * 31, "00" * 33])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / KEY_FILE
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(RefusedError, match="not a signing key"):
        Signer.of_folder(tmp_path)


def test_a_link_in_the_key_s_place_is_not_followed(tmp_path: Path) -> None:
    Signer.of_folder(tmp_path / "elsewhere")
    data = tmp_path / "data"
    data.mkdir()
    (data / KEY_FILE).symlink_to(tmp_path / "elsewhere" / KEY_FILE)
    with pytest.raises(RefusedError, match="can't be read"):
        Signer.of_folder(data)
