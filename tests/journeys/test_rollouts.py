"""Another version goes out under load: a good one all the way, a bad one back, and nobody's request is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.releases import Callers, history, release
from tests.journeys.serving import Serving, again, cloche, until, up

from cloche.app.apply import apply
from cloche.app.project import open_project
from cloche.core.errors import RefusedError

CONFIG = """
[serve]
workers = 2

[online.toy]
model = "toy@champion"

[online.toy.rollout]
margin = "10%"
ramp = "1s"
bake = "1s"
sticky = "x-user-id"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cloche.toml").write_text(CONFIG)
    assert release(tmp_path, "good") == 1
    return tmp_path


def standing(folder: Path) -> dict[str, Any]:
    (item,) = json.loads(cloche(folder, "status", "--json").stdout)["items"]
    return dict(item)


def shares(folder: Path) -> dict[str, float]:
    return {one["version"]: one["share"] for one in standing(folder)["versions"]}


def test_a_good_version_goes_all_the_way(folder: Path) -> None:
    release(folder, "good", 3.0)
    with up(folder) as serving, Callers(serving.url, rate=200) as callers:
        sent = cloche(folder, "deploy", "toy:2", "--steps", "5%, 50%, 100%", "--wait", "--timeout", "2m")
        assert "promoted" in sent.stdout
        time.sleep(0.5)
        assert set(callers.models(time.monotonic() - 0.2)) == {"toy:2"}
        assert not callers.failed(), callers.failed()[:3]
        # who was the candidate's once stays with it
        flipped = 0
        arm: dict[str, str] = {}
        for one in sorted(callers.said):
            flipped += arm.get(one.caller, one.model) > one.model
            arm[one.caller] = one.model
        assert flipped == 0
        told = [(one["action"], one["version"]) for one in history(folder, cloche)]
        assert told == [("started", 1), ("began", 2), *[("stepped", 2)] * 4, ("promoted", 2)]
        assert cloche(folder, "models", "show", "toy@champion", "--json").stdout.count('"toy:2"') >= 1
        # the version before is warm, and a rollback is one row
        cloche(folder, "rollback", "toy", "--why", "the figures look odd")
        row = {"x": [0.1, 0.2]}
        until(lambda: serving.ask("/predict/toy", row).headers["cloche-model"] == "toy:1", "rollback")
        until(lambda: set(callers.models(time.monotonic() - 0.3)) == {"toy:1"}, "in every worker")
        refused = cloche(folder, "deploy", "toy:2", check=False)
        assert refused.returncode == 4
        assert "the figures look odd" in refused.stderr
    assert not callers.failed()


def test_one_that_fails_on_some_rows_comes_back_by_itself(folder: Path) -> None:
    release(folder, "fails", 3.0)
    with up(folder) as serving, Callers(serving.url, rate=200) as callers:
        sent = cloche(folder, "deploy", "toy:2", "--steps", "5%, 50%, 100%", "--wait", check=False)
        assert sent.returncode == 1
        failed = len(callers.failed())
        assert 0 < failed < 60
        until(lambda: shares(folder) == {"toy:1": 100.0}, "stable has all")
        why = history(folder, cloche)[-1]["why"]
        assert "requests to toy:2 went wrong, 0 of " in why
        assert "The model failed (CL-E900)" in why
        time.sleep(1)
        assert len(callers.failed()) == failed
        assert set(callers.models(time.monotonic() - 0.5)) == {"toy:1"}
        assert cloche(folder, "deploy", "toy:2", check=False).returncode == 4
        assert "may be deployed again" in cloche(folder, "unblock", "toy:2").stdout


def test_one_that_takes_much_longer_comes_back_although_nobody_said_what_is_slow(folder: Path) -> None:
    release(folder, "slow", 3.0, work=1_200)
    with up(folder) as serving, Callers(serving.url, rate=200) as callers:
        until(lambda: len(callers.said) > 1_200, "stable's own pace is known", 60)
        sent = cloche(folder, "deploy", "toy:2", "--steps", "5%, 50%, 100%", "--wait", check=False)
        assert sent.returncode == 1
        assert "took longer than nearly all used to" in history(folder, cloche)[-1]["why"]
    assert not callers.failed()


def test_blue_green_flips_and_flips_back(folder: Path) -> None:
    release(folder, "good", 3.0)
    with up(folder) as serving, Callers(serving.url, rate=100) as callers:
        cloche(folder, "deploy", "toy:2", "--strategy", "blue-green", "--wait", "--timeout", "60s")
        cloche(folder, "deploy", "toy:1", "--now", "--wait", "--timeout", "60s")
        time.sleep(0.5)
        assert set(callers.models(time.monotonic() - 0.3)) == {"toy:1"}
    assert not callers.failed()


def test_an_alias_that_is_moved_by_hand_sends_the_version_out(folder: Path) -> None:
    release(folder, "good", 3.0)
    with up(folder) as serving:
        cloche(folder, "alias", "toy:2", "champion")
        until(lambda: shares(folder).get("toy:2", 0) > 0, "it has traffic")
        assert "toy@champion was moved to version 2" in history(folder, cloche)[1]["why"]
        assert cloche(folder, "deploy", "toy:2", check=False).returncode == 5
        cloche(folder, "abort")
        until(lambda: shares(folder) == {"toy:1": 100.0}, "stable has all")
        cloche(folder, "keys", "create", "somebody")  # what changes the store begins nothing anew
        until(lambda: standing(folder)["ready"] == 2, "all is applied")
        assert shares(folder) == {"toy:1": 100.0}
        assert serving.ask("/predict/toy", {"x": [0.1, 0.2]}).headers["cloche-model"] == "toy:1"


def test_what_the_file_says_now_is_applied_without_a_restart(folder: Path) -> None:
    release(folder, "good", 3.0)
    config = folder / "cloche.toml"
    with up(folder) as serving, Callers(serving.url, rate=100) as callers:
        assert cloche(folder, "apply").stdout == "nothing to change\n"
        changed = CONFIG.replace(
            '"toy@champion"', '"toy:2"\ndeadline = "500ms"\naccess = { limits = { default = "1/h" } }'
        )
        changed = changed.replace('ramp = "1s"', 'ramp = "1s"\nsteps = ["50%", "100%"]')
        changed += '\n[online.other]\nmodel = "toy:1"\n'
        config.write_text(changed.replace("workers = 2", "workers = 1"))
        told = cloche(folder, "apply", "--dry-run").stdout
        for words in (
            "0.5",
            "toy:2",
            "by steps: 50 % → 100 %",
            "with the next start",
            "access.limits.default",
        ):
            assert words in told
        assert serving.ask("/predict/other", {"x": [0.1, 0.2]}).status == 404
        config.write_text(changed.replace('access = { limits = { default = "1/h" } }', ""))
        assert cloche(folder, "apply", "--wait", "--timeout", "2m").returncode == 0
        assert lives(serving, "toy") == "toy:2"
        assert lives(serving, "other") == "toy:1"
        assert json.loads(cloche(folder, "apply", "--json").stdout)["items"] == []
        config.write_text(CONFIG.replace("toy@champion", "toy:2"))
        cloche(folder, "apply")
        until(lambda: serving.ask("/predict/other", {"x": [0.1, 0.2]}).status == 404, "it is gone")
        assert lives(serving, "toy") == "toy:2"
    assert not callers.failed()


def test_nothing_is_applied_unless_all_of_it_can_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release(folder, "good", 3.0)
    config = folder / "cloche.toml"
    both = CONFIG.replace("toy@champion", "toy:1") + '[online.zoo]\nmodel = "toy:1"\n'
    config.write_text(both)
    with up(folder):
        cloche(folder, "deploy", "toy:2", "--deployment", "zoo")
        config.write_text(both.replace("toy:1", "toy:2"))
        for options in ((), ("--dry-run",)):
            refused = cloche(folder, "apply", *options, check=False)
            assert refused.returncode == 5
            assert "zoo is on its way to toy:2" in refused.stderr
        config.write_text(both + '[online.more]\nmodel = "toy:1"\n')
        with open_project(folder) as project, monkeypatch.context() as patch:
            patch.setattr("cloche.app.apply.free_memory", lambda: 1_000)
            with pytest.raises(RefusedError, match=r"toy:1: loading takes about .* and 1\.0 kB is free"):
                apply(project)
        assert [row["action"] for row in history(folder, cloche)] == ["started"]


def lives(serving: Serving, name: str) -> str:
    return serving.ask(f"/predict/{name}", {"x": [0.1, 0.2]}).headers["cloche-model"]


def test_a_version_that_can_t_be_loaded_is_never_asked(folder: Path) -> None:
    release(folder, "good", 3.0)
    digest = json.loads(cloche(folder, "models", "show", "toy:2", "--json").stdout)["digest"]
    with up(folder) as serving:
        model = folder / ".cloche" / "bundles" / digest / "model" / "model.onnx"
        whole = model.read_bytes()
        model.chmod(0o644)
        model.write_bytes(whole[:-1] + b"\0")
        assert cloche(folder, "deploy", "toy:2", check=False).returncode == 4  # seen before anything begins
        assert serving.ask("/predict/toy", {"x": [0.1, 0.2]}).headers["cloche-model"] == "toy:1"


def test_all_is_as_it_was_after_everything_was_killed(folder: Path) -> None:
    release(folder, "good", 3.0)
    with up(folder) as serving:
        cloche(folder, "deploy", "toy:2", "--steps", "50% for 1h, 100%")
        until(lambda: shares(folder).get("toy:2") == 50.0, "half of the traffic")
        serving.kill_all()
        began = time.monotonic()
        again(serving, new_address=True)
        until(lambda: standing(folder)["ready"] == 2, "both workers have both versions", 10)
        assert time.monotonic() - began < 8
        assert shares(folder) == {"toy:1": 50.0, "toy:2": 50.0}
        with Callers(serving.url, rate=200) as callers:
            time.sleep(2)
        assert min(callers.models().values()) > 100
        assert not callers.failed()


def test_a_rollout_goes_on_when_its_controller_dies(folder: Path) -> None:
    release(folder, "good", 3.0)
    with up(folder) as serving, Callers(serving.url, rate=100) as callers:
        cloche(folder, "deploy", "toy:2", "--steps", "50% for 1h, 100%")
        until(lambda: shares(folder).get("toy:2") == 50.0, "half of the traffic")
        (controller,) = serving.children()["controller"]
        os.kill(controller, signal.SIGKILL)
        until(lambda: serving.children()["controller"] not in ([], [controller]), "another controller")
        cloche(folder, "promote", "toy")
        until(lambda: shares(folder).get("toy:2") == 100.0, "all of the traffic")
        for worker in serving.children()["worker"][:1]:
            os.kill(worker, signal.SIGKILL)
        until(lambda: standing(folder)["workers"] == 2 and standing(folder)["ready"] == 2, "the worker is back")
        until(lambda: history(folder, cloche)[-1]["action"] == "promoted", "its end")
        cloche(folder, "rollback", "toy")
        until(lambda: set(callers.models(time.monotonic() - 0.1)) == {"toy:1"}, "toy:1 has all")
    # those of the worker that was killed may be lost
    assert len(callers.failed()) <= 4


def test_a_shadow_answers_nobody_and_says_how_alike_they_are(folder: Path) -> None:
    release(folder, "good", 2.1)
    with up(folder) as serving, Callers(serving.url, rate=100) as callers:
        sent = cloche(folder, "deploy", "toy:2", "--strategy", "shadow", "--steps", "50% for 4s", "--wait")
        assert "reported" in sent.stdout
        assert "agrees on 0.00% of" in sent.stdout
        assert shares(folder) == {"toy:1": 100.0}
    assert set(callers.models()) == {"toy:1"}
    assert not callers.failed()


def test_an_ab_trial_says_what_differs(folder: Path) -> None:
    release(folder, "fails", 2.0, share=0.3)
    config = (folder / "cloche.toml").read_text()
    # callers are told of errors soon, and the guard would be as well
    (folder / "cloche.toml").write_text(
        config.replace("[online.toy.r", 'objectives = { error_rate = "50%" }\n[online.toy.r')
    )
    with up(folder) as serving, Callers(serving.url, rate=200) as callers:
        sent = cloche(
            folder, "deploy", "toy:2", "--strategy", "ab", "--steps", "50% for 5s", "--wait", check=False
        )
        assert sent.returncode == 1, "the guard takes it off all the same"
        assert "requests to toy:2 went wrong" in sent.stdout
        release(folder, "good", 3.0)
        sent = cloche(folder, "deploy", "toy:3", "--strategy", "ab", "--steps", "50% for 5s", "--wait")
        assert "its time is over: errors +0 pp" in sent.stdout
        assert "latency " in sent.stdout
        assert shares(folder) == {"toy:1": 100.0}
    assert callers.models()["toy:3"] > 300
