"""Where a version runs, and what that takes: by what was measured, else by its files."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cloche.app.local import pack_into
from cloche.app.placement import HOST_SEATS, host_count, host_seats, host_sockets, load_bytes, need
from cloche.app.project import open_project
from cloche.app.refusals import check_seats
from cloche.bundle.manifest import FileEntry, Manifest, Measured
from cloche.core.errors import RefusedError
from cloche.testing import toy_onnx

MB = 10**6


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("toy")
    with open_project(folder) as project:
        return pack_into(project, toy_onnx(folder / "toy.onnx"), None, None, name="toy").manifest


def sized(plain: Manifest, load: int, kept: int | None = None, kind: str = "onnx") -> Manifest:
    """A manifest of a model that takes so many megabytes to load, and keeps so many."""
    assert plain.measured is not None
    measured: Measured = msgspec.structs.replace(
        plain.measured, load_bytes=load * MB, memory_bytes=(load if kept is None else kept) * MB
    )
    runtime = msgspec.structs.replace(plain.runtime, kind=kind)
    return msgspec.structs.replace(plain, measured=measured, runtime=runtime)


@pytest.mark.parametrize(
    ("load", "kind", "hosts"),
    [
        (500, "onnx", 0),
        (512, "onnx", 0),  # above the limit, not at it
        (513, "onnx", 1),
        (1, "python", 2),  # one is a warm spare
        (900, "python", 2),
    ],
)
def test_a_large_model_has_a_host_and_code_has_two(plain: Manifest, load: int, kind: str, hosts: int) -> None:
    assert host_count(sized(plain, load, kind=kind), 512 * MB) == hosts


def test_what_was_not_measured_counts_by_the_files_that_are_loaded(plain: Manifest) -> None:
    files = tuple(
        FileEntry(path=path, size=size, sha256="0" * 64)
        for path, size in (("model/model.onnx", 300), ("model/tokenizer.json", 40), ("golden.json", 5_000))
    )
    draft = msgspec.structs.replace(plain, measured=None, files=files)
    assert load_bytes(draft) == 340
    assert (host_count(draft, 339), host_count(draft, 340)) == (1, 0)


def test_workers_hold_the_small_ones_each_and_hosts_the_others_once(plain: Manifest) -> None:
    models = [
        ("a", sized(plain, 100, kept=60)),
        ("b", sized(plain, 50, kept=40)),
        ("c", sized(plain, 700)),
        ("d", sized(plain, 30, kind="python")),
    ]
    found = need(models, 4, 512 * MB)
    # one after the other: what both keep, and what the larger of the two takes more while it loads
    assert found.worker_bytes == (60 + 40 + 40) * MB
    assert (found.hosts, found.hosts_bytes) == (3, (700 + 2 * 30) * MB)
    assert found.total_bytes == (4 * 140 + 760) * MB


def test_who_has_the_same_bundle_shares_its_host_and_not_what_is_in_a_worker(plain: Manifest) -> None:
    large, small = sized(plain, 700), sized(plain, 100)
    assert need([("c", large), ("c", large)], 4, 512 * MB).total_bytes == 700 * MB
    assert need([("a", small), ("a", small)], 1, 512 * MB).total_bytes == 200 * MB


def test_a_socket_is_that_of_the_bundle_and_the_device() -> None:
    one, other = "ab" * 32, "cd" * 32
    assert host_sockets(Path("/run"), one, "cpu", 2) == ("/run/abababab-0.sock", "/run/abababab-1.sock")
    assert host_sockets(Path("/run"), one, "cuda", 1) == ("/run/ababababcuda-0.sock",)
    assert host_sockets(Path("/run"), other, "cpu", 1) == ("/run/cdcdcdcd-0.sock",)
    assert host_sockets(Path("/run"), one, "cpu", 0) == ()


def test_there_is_room_for_the_hosts_of_versions_that_come() -> None:
    assert host_seats(0) == host_seats(10) == HOST_SEATS
    assert host_seats(20) == 24
    check_seats(14, 14)
    with pytest.raises(RefusedError, match="15 runtime hosts would run, and there is room for 14") as caught:
        check_seats(15, 14)
    assert caught.value.code == "CL-E412"
