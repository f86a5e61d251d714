"""Two machines on one PostgreSQL: they agree on who has the traffic, and one leads, whoever dies or freezes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.releases import Callers, history, release
from tests.journeys.serving import Serving, cloche, until, up
from tests.postgresql import postgresql_server

pytestmark = pytest.mark.heavy

CONFIG = """
[project]
database = "{url}"
storage = "{storage}"
[serve]
workers = 1
[online.toy]
model = "toy@champion"
[online.toy.rollout]
margin = "10%"
ramp = "1s"
bake = "1s"
"""


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[list[Path]]:
    """The projects of two machines; toy:1 and toy:2 are registered."""
    with postgresql_server() as server:
        url = server.new_database()
        made = [tmp_path / name for name in ("one", "two")]
        for folder in made:
            folder.mkdir()
            (folder / "cloche.toml").write_text(CONFIG.format(url=url, storage=tmp_path / "models"))
        release(made[0], "good")
        release(made[0], "good", 3.0)
        yield made


def shares(folder: Path) -> dict[str, float]:
    (item,) = json.loads(cloche(folder, "status", "--json").stdout)["items"]
    return {one["version"]: one["share"] for one in item["versions"]}


def lives(serving: Serving) -> str:
    return serving.ask("/predict/toy", {"x": [0.1, 0.2]}).headers["cloche-model"]


def leaders(servings: list[Serving]) -> list[Serving]:
    """Who said last that it leads."""
    said = [
        (serving.log.read_text().rpartition("controller leads")[0].count("\n"), serving) for serving in servings
    ]
    return [serving for count, serving in said if count]


def controller(serving: Serving) -> int:
    return int(until(lambda: serving.children()["controller"], "its controller")[0])


def test_both_go_along_and_one_goes_on_when_the_leader_dies(folders: list[Path]) -> None:
    with up(folders[0]) as first, up(folders[1]) as second:
        until(lambda: leaders([first, second]), "a leader")
        (leader,) = leaders([first, second])
        other = second if leader is first else first
        with Callers(first.url, rate=50) as here, Callers(second.url, rate=50) as there:
            cloche(folders[0], "deploy", "toy:2", "--steps", "50% for 1h, 100%")
            until(lambda: shares(folders[1]).get("toy:2") == 50.0, "half of the traffic", 30)
            began = time.monotonic()
            time.sleep(1)
            for callers in (here, there):
                seen = callers.models(began)
                assert 0.2 < seen["toy:2"] / sum(seen.values()) < 0.8, seen
            leader.kill_all()
            cloche(other.folder, "promote", "toy")
            until(lambda: history(other.folder, cloche)[-1]["action"] == "promoted", "the other goes on", 40)
            assert lives(other) == "toy:2"
        assert not (there if other is second else here).failed()


def test_what_a_frozen_leader_writes_too_late_is_refused(folders: list[Path]) -> None:
    with up(folders[0]) as first, up(folders[1]) as second:
        until(lambda: leaders([first, second]), "a leader")
        (leader,) = leaders([first, second])
        other = second if leader is first else first
        cloche(folders[0], "deploy", "toy:2", "--steps", "50% for 1h, 100%")
        until(lambda: shares(folders[0]).get("toy:2") == 50.0, "half of the traffic", 30)
        frozen = controller(leader)
        os.kill(frozen, signal.SIGSTOP)
        try:
            until(lambda: leaders([first, second])[-1:] and other in leaders([first, second]), "another leads", 30)
            cloche(other.folder, "abort", "toy")
            until(lambda: shares(other.folder) == {"toy:1": 100.0}, "stable has all", 30)
            time.sleep(3)
        finally:
            os.kill(frozen, signal.SIGCONT)
        time.sleep(3)
        assert shares(other.folder) == {"toy:1": 100.0}
        assert [one["action"] for one in history(other.folder, cloche)][-1] == "aborted"
        assert controller(leader) == frozen, "it lives on, as one that follows"
        assert lives(leader) == lives(other) == "toy:1"


def test_machines_that_share_a_database_must_share_their_bundles(folders: list[Path]) -> None:
    with up(folders[0]):
        text = (folders[1] / "cloche.toml").read_text()
        (folders[1] / "cloche.toml").write_text("\n".join(x for x in text.split("\n") if "storage" not in x))
        until(lambda: refusal(folders[1]).returncode == 2, "it is refused", 30)
        assert 'storage = "/mnt/models"' in refusal(folders[1]).stderr


def refusal(folder: Path) -> Any:
    return cloche(folder, "up", "toy", "--port", "0", check=False)
