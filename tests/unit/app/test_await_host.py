"""A worker waits for a version's host, but not for one that nobody wants any more."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cloche.app.desired import DeploymentConfig
from cloche.app.versions import await_host
from cloche.core.errors import BusyError


def hosted(*sockets: Path) -> DeploymentConfig:
    return DeploymentConfig(
        deployment="fraud", model="fraud", version=4, digest="d", bundle="/bundles/d", deadline_s=1.0,
        on_invalid="flag", keys_required=False, hosts=tuple(map(str, sockets)),
    )  # fmt: skip


def test_what_lives_in_the_worker_waits_for_nothing() -> None:
    await_host(hosted(), 0.0, lambda: False)


def test_any_of_its_hosts_will_do(tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    await_host(hosted(tmp_path / "a", tmp_path / "b"), 0.0, lambda: False)


def test_it_goes_on_as_soon_as_one_is_there(tmp_path: Path) -> None:
    asked = threading.Event()

    def is_wanted() -> bool:
        if asked.is_set():
            (tmp_path / "a").touch()
        asked.set()
        return True

    await_host(hosted(tmp_path / "a"), 60.0, is_wanted)
    assert asked.is_set()


def test_one_that_is_given_up_meanwhile_is_waited_for_no_longer(tmp_path: Path) -> None:
    left = iter([True, True, False])
    with pytest.raises(BusyError, match="fraud:4 is not wanted any more"):
        await_host(hosted(tmp_path / "a"), 60.0, lambda: next(left))


def test_after_the_load_timeout_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(BusyError, match=r"no host of fraud:4 was up within 0 s") as caught:
        await_host(hosted(tmp_path / "a"), 0.0, lambda: True)
    assert caught.value.code == "CL-E603"
