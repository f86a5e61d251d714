"""A version on its way to another host: what is missing, from where it broke off, and nothing that was changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cutter import Cutter
from tests.unit.app.admin.conftest import Desk, answering, pack

from cloche.app import push as pushing
from cloche.app import uploads
from cloche.app.archives import trust_key
from cloche.app.project import Project, open_project
from cloche.app.push import push
from cloche.app.uploads import Uploads
from cloche.bundle.manifest import MANIFEST, SEAL
from cloche.client.admin import Admin
from cloche.core.errors import BusyError, ClocheError, ConflictError, RefusedError
from cloche.store.audit import list_audit


@pytest.fixture
def ours(project: Project, folder: Path) -> Project:
    """The project here: toy:1, whose largest file is a megabyte, and toy:2."""
    pack(project, folder, 100_000)
    pack(project, folder, 3)
    return project


@pytest.fixture
def there(folder: Path) -> Iterator[Desk]:
    (folder / "there").mkdir()
    with open_project(folder / "there") as project, answering(project) as desk:
        yield desk


@pytest.fixture
def trusting(ours: Project, there: Desk) -> Desk:
    trust_key(there.project, ours.signer.public_key, "here")
    return there


def admin(desk: Desk, key: str, url: str | None = None) -> Admin:
    return Admin(url or desk.url, key=key)


def staged(desk: Desk) -> list[Path]:
    return sorted(desk.project.bundles.root.glob(".push-*/*"))


def test_a_version_arrives_as_it_was(ours: Project, trusting: Desk) -> None:
    told: list[tuple[str, int, int]] = []
    version = ours.registry.resolve("toy:1")
    with admin(trusting, trusting.key("deploy")) as client:
        sent = push(ours, version, client, tell=lambda *step: told.append(step))
        assert (sent["reference"], sent["digest"]) == ("toy:1", version.digest)
        trusting.project.open("toy:1").verify()
        assert staged(trusting) == []
        assert told[0][1] == 0
        assert told[0][2] == sum(entry.size for entry in ours.open("toy:1").manifest.files)
        # once more: it is there; under another name, nothing is sent again
        told.clear()
        assert push(ours, version, client, tell=lambda *step: told.append(step))["reference"] == "toy:1"
        assert push(ours, version, client, name="other")["reference"] == "other:1"
        assert [step[0] for step in told] == ["verifying there"]
    rows = [(row.who, row.action, row.target) for row in list_audit(trusting.project.store)]
    assert [row for row in rows if row[1] == "pushed"] == [("ci", "pushed", "toy:1"), ("ci", "pushed", "other:1")]


def test_files_that_another_version_has_are_not_sent(ours: Project, trusting: Desk, folder: Path) -> None:
    with admin(trusting, trusting.key("deploy")) as client:
        push(ours, ours.registry.resolve("toy:1"), client)
        manifest, seal = ((ours.open("toy:2").path / name).read_bytes() for name in (MANIFEST, SEAL))
        shared = {entry.sha256 for entry in ours.open("toy:1").manifest.files}
        asked = {one["sha256"] for one in client.begin(manifest, seal, "toy")["files"]}
        assert asked == {entry.sha256 for entry in ours.open("toy:2").manifest.files} - shared


def test_interrupted_anywhere_it_goes_on_where_it_was(
    ours: Project, trusting: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "CHUNK_BYTES", 150_000)
    version = ours.registry.resolve("toy:1")
    key = trusting.key("deploy")
    arrived = 0
    for cut_after in (30_000, 90_000, 120_001, 200_000):
        cutter = Cutter(trusting.url, cut_after)
        with admin(trusting, key, cutter.url) as client, pytest.raises(BusyError) as broke:
            push(ours, version, client)
        cutter.close()
        assert "goes on where it broke off" in str(broke.value.hint)
        before, ends = arrived, time.monotonic() + 10
        while (arrived := sum(path.stat().st_size for path in staged(trusting))) <= before:
            assert time.monotonic() < ends, "what came before the break stays"
            time.sleep(0.02)
        assert trusting.project.registry.models() == ()
        time.sleep(0.2)  # the server has noticed the break, and let go of the file
        arrived = sum(path.stat().st_size for path in staged(trusting))
    with admin(trusting, key) as client:
        told: list[int] = []
        assert push(ours, version, client, tell=lambda _, done, total: told.append(total))["reference"] == "toy:1"
    whole = sum(entry.size for entry in ours.open("toy:1").manifest.files)
    assert told[0] <= whole - 150_000
    trusting.project.open("toy:1").verify()


def test_a_file_that_was_changed_on_the_way_is_refused(ours: Project, trusting: Desk) -> None:
    bundle = ours.open("toy:1")
    entry = max(bundle.manifest.files, key=lambda one: one.size)
    file = bundle.path / entry.path
    good = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(good[:500] + bytes([good[500] ^ 1]) + good[501:])
    version = ours.registry.resolve("toy:1")
    with admin(trusting, trusting.key("deploy")) as client:
        for _ in range(2):
            with pytest.raises(RefusedError, match="is not what was packed") as refused:
                push(ours, version, client)
            assert refused.value.code == "CL-E404"
            assert refused.value.where == entry.path
            assert trusting.project.registry.models() == ()
        with pytest.raises(ConflictError):
            client.finish(bundle.digest, "toy")
        # mended, only that file is sent again
        file.write_bytes(good)
        told: list[int] = []
        push(ours, version, client, tell=lambda _, done, total: told.append(total))
        assert told[0] >= entry.size
    trusting.project.open("toy:1").verify()


@pytest.mark.parametrize("what", [MANIFEST, SEAL])
def test_a_changed_manifest_or_seal_is_refused_before_anything_is_sent(
    ours: Project, trusting: Desk, what: str
) -> None:
    path = ours.open("toy:1").path
    texts = {name: (path / name).read_bytes() for name in (MANIFEST, SEAL)}
    texts[what] = texts[what].replace(b"1", b"2", 1)
    with admin(trusting, trusting.key("deploy")) as client:
        with pytest.raises(RefusedError) as refused:
            client.begin(texts[MANIFEST], texts[SEAL], "toy")
        assert refused.value.code == "CL-E404"
    assert staged(trusting) == []


def test_an_unknown_signer_is_refused_with_what_to_do(ours: Project, there: Desk) -> None:
    with admin(there, there.key("deploy")) as client, pytest.raises(RefusedError) as refused:
        push(ours, ours.registry.resolve("toy:1"), client)
    assert refused.value.code == "CL-E405"
    assert f"cloche trust add {ours.signer.public_key}" in str(refused.value.hint)
    assert staged(there) == []


def test_more_than_the_manifest_says_is_not_taken(ours: Project, trusting: Desk) -> None:
    bundle = ours.open("toy:1")
    entry = bundle.manifest.files[0]
    with admin(trusting, trusting.key("deploy")) as client:
        client.begin((bundle.path / MANIFEST).read_bytes(), (bundle.path / SEAL).read_bytes(), "toy")
        with pytest.raises(ClocheError) as refused:
            client.add(bundle.digest, entry.sha256, 0, bytes(entry.size + 1))
        assert refused.value.code == "CL-E114"
        with pytest.raises(ConflictError) as conflict:
            client.add(bundle.digest, entry.sha256, 7, b"x")
        assert conflict.value.code == "CL-E507"


def test_one_sender_at_a_time(ours: Project, trusting: Desk) -> None:
    bundle = ours.open("toy:1")
    entry = bundle.manifest.files[0]
    own = Uploads(trusting.project)
    own.begin((bundle.path / MANIFEST).read_bytes(), (bundle.path / SEAL).read_bytes())
    part = own.open(bundle.digest, entry.sha256, 0)
    with pytest.raises(ConflictError, match="by another push"):
        own.open(bundle.digest, entry.sha256, 0)
    part.abandon()
    own.open(bundle.digest, entry.sha256, 0).abandon()


def test_what_waits_is_bounded_in_number_and_in_time(
    ours: Project, trusting: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MOST", 1)
    own = Uploads(trusting.project)
    texts = {
        number: [(ours.open(f"toy:{number}").path / name).read_bytes() for name in (MANIFEST, SEAL)]
        for number in (1, 2)
    }
    own.begin(*texts[1])
    own.begin(*texts[1])
    with pytest.raises(BusyError, match="under way here already"):
        own.begin(*texts[2])
    monkeypatch.setattr(uploads, "KEPT_S", -1.0)
    own.begin(*texts[2])
    assert [path.name for path in trusting.project.bundles.root.glob(".push-*")] == [
        f".push-{ours.open('toy:2').digest}"
    ]


def test_a_host_without_room_says_so(ours: Project, trusting: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_SPARE_BYTES", 2**60)
    with admin(trusting, trusting.key("deploy")) as client, pytest.raises(BusyError, match="of that host's disk"):
        push(ours, ours.registry.resolve("toy:1"), client)
