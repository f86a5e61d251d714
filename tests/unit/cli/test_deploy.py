"""`cloche deploy`, what is done to a rollout under way, `status` and `history`: as a person types them."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from onnx import numpy_helper
from tests.served import hold_as_served
from tests.unit.cli.conftest import Cloche

from cloche.app.local import pack_into
from cloche.app.project import open_project
from cloche.app.standing import DeploymentView, RolloutView, VersionView
from cloche.app.up import runtime_folder
from cloche.cli import progress
from cloche.cli.terminal import fitting
from cloche.cli.tree import tree
from cloche.core.board import Board, Head, Role, State
from cloche.monitoring.counters import DeploymentCounters
from cloche.rollout.analysis import Evidence
from cloche.rollout.machine import Phase, Rollout
from cloche.rollout.strategy import canary
from cloche.store.deployments import Deployments, RolloutRow
from cloche.testing import toy_onnx


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose registry holds toy:1, toy:2, which is asked alike, toy:3, which is not, and more:1."""
    folder = tmp_path_factory.mktemp("packed")
    files = [toy_onnx(folder / "1.onnx"), folder / "2.onnx", toy_onnx(folder / "3.onnx", inputs=4)]
    model = onnx.load(files[0])
    weights = model.graph.initializer[0]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * 1.5, weights.name))
    onnx.save(model, files[1])
    with open_project(folder) as project:
        for file in files:
            pack_into(project, file, None, None, name="toy")
        pack_into(project, files[0], None, None, name="more")
    return folder


class Shop:
    """A Shop is `cloche` in a folder with packed models, and what a controller would do there."""

    def __init__(self, run: Cloche, folder: Path) -> None:
        self.run = run
        self.folder = folder
        self._held: int | None = None

    def __call__(self, *words: str) -> Any:
        return self.run(*words)

    def started(self, name: str = "toy", asked: str = "toy@champion", version: int = 1) -> None:
        """As `cloche up` leaves it in the store."""
        with open_project(self.folder) as project:
            Deployments(project.store).start(
                name, asked.partition("@")[0].partition(":")[0], asked, version, "ada"
            )

    def serve(self) -> None:
        """As long as this process lives it is as if a supervisor ran."""
        with open_project(self.folder) as project:
            self._held = hold_as_served(project)

    def stop(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def act(self, work: Callable[[Deployments, RolloutRow], Any]) -> None:
        """Do something to the newest rollout, as the controller."""
        with open_project(self.folder) as project:
            deployments = Deployments(project.store)
            last = deployments.last_rollout("toy")
            assert last is not None
            work(deployments, last)

    def admit(self, weight: int = 500) -> None:
        def work(deployments: Deployments, row: RolloutRow) -> None:
            assert deployments.admit("toy", row.id)
            assert deployments.shift("toy", row.id, weight, "cloche", f"on to {weight / 100:g} %")

        self.act(work)

    def step(self) -> None:
        """Every worker has it warm."""

        def work(deployments: Deployments, row: RolloutRow) -> None:
            deployments.keep(row.id, {**row.state, "phase": "stepping"}, {}, None)

        self.act(work)

    def promote(self) -> None:
        self.act(
            lambda deployments, row: deployments.promote(
                "toy", row.id, "cloche", "not worse", alias="champion", warm_s=1_800
            )
        )

    def take_back(self) -> None:
        self.act(lambda deployments, row: deployments.abort("toy", row.id, "cloche", "toy:2 harms", block=True))


@pytest.fixture
def shop(cloche: Cloche, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """toy:1 is served, asked for as toy@champion."""
    shutil.copytree(packed / ".cloche", tmp_path / ".cloche")
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as short:
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        made = Shop(cloche, tmp_path)
        made.started()
        made.serve()
        yield made
        made.stop()


# --- deploy


def test_a_deploy_says_what_goes_out_and_what_may_be_done_next(shop: Shop) -> None:
    result = shop("deploy", "toy:2")
    assert result.code == 0, result.err
    assert result.out == "toy: toy:2 goes out beside toy:1 (canary)\n"
    assert "cloche status toy -w" in result.err
    assert "cloche abort toy" in result.err


def test_a_deploy_as_json(shop: Shop) -> None:
    result = shop("deploy", "toy:2", "--json", "--strategy", "blue-green")
    assert (result.code, result.err) == (0, "")
    told = result.json
    assert told["kind"] == "Rollout"
    assert told["version"] == 1
    names = ("deployment", "stable", "candidate", "strategy")
    assert [told[name] for name in names] == ["toy", "toy:1", "toy:2", "blue-green"]
    assert isinstance(told["rollout"], int)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "canary: 5 % → 50 % → 100 %"),
        (("--steps", "1% for 5m, 100%"), "canary: 1 % → 100 %"),
        (("--strategy", "blue-green"), "blue-green: 100 %"),
        (("--now",), "now: 100 %"),
        (("--strategy", "shadow", "--steps", "20% for 1h"), "shadow: 20 %"),
        (("--metric", "score"), "ab: 50 %"),
    ],
)
def test_how_it_goes_out_stands_in_the_history(shop: Shop, words: tuple[str, ...], why: str) -> None:
    assert shop("deploy", "toy:2", *words).code == 0
    last = shop("history", "--json").json["items"][-1]
    assert (last["action"], last["version"], last["why"]) == ("began", 2, why)


def test_steps_and_strategies_may_stand_in_the_file(shop: Shop) -> None:
    shop.folder.joinpath("cloche.toml").write_text(
        'version = 1\n[online.toy]\nmodel = "toy@champion"\n[online.toy.rollout]\nstrategy = "blue-green"\n'
    )
    assert shop("deploy", "toy:2", "--json").json["strategy"] == "blue-green"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("toy:2", "--now", "--steps", "100%"), "--now is a strategy of its own"),
        (("toy:2", "--now", "--strategy", "canary"), "--now is a strategy of its own"),
        (("toy:2", "--now", "--metric", "score"), "now compares no metric"),
        (("toy:2", "--strategy", "shadow", "--metric", "score"), "shadow compares no metric"),
        (("toy:2", "--strategy", "blue-green", "--steps", "50%, 100%"), "blue-green has no steps"),
        (("toy:2", "--strategy", "rainbow"), "there is no strategy 'rainbow'"),
        (("toy:2", "--steps", "50%"), "don't grow"),
        (("toy:2", "--steps", "half"), "'half' is not a step"),
        (("toy:2", "--metric", "beauty"), "beauty"),
        (("toy:2", "--timeout", "soon"), "soon"),
        (("toy:2", "--wait", "--timeout=-1h"), "-1h"),
        (("Toy 2",), "Toy 2"),
        ((), "reference"),
    ],
)
def test_what_contradicts_itself_is_exit_code_2_and_begins_nothing(
    shop: Shop, words: tuple[str, ...], said: str
) -> None:
    result = shop("deploy", *words)
    assert result.code == 2
    assert said.lower() in result.err.lower()
    assert [one["action"] for one in shop("history", "--json").json["items"]] == ["started"]


@pytest.mark.parametrize("words", [("toy:77",), ("nobody",), ("toy@blue",), ("toy:2", "--deployment", "sales")])
def test_what_is_not_there_is_exit_code_3(shop: Shop, words: tuple[str, ...]) -> None:
    assert shop("deploy", *words).code == 3


def test_a_model_that_nothing_answers_with_is_exit_code_3(shop: Shop) -> None:
    result = shop("deploy", "more:1")
    assert result.code == 3
    assert "no deployment answers with more" in result.err
    assert "cloche up more" in result.err


def test_where_nothing_was_ever_served_it_is_exit_code_3(cloche: Cloche, packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed / ".cloche", tmp_path / ".cloche")
    assert cloche("deploy", "toy:2").code == 3
    for command in ("promote", "abort", "pause", "resume", "rollback"):
        result = cloche(command)
        assert result.code == 3, result
        assert "nothing was ever served here" in result.err


def test_a_version_that_takes_more_memory_than_is_free_is_refused_before_it_begins(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloche.app.deploy.free_memory", lambda: 1_000)
    result = shop("deploy", "toy:2")
    assert result.code == 4
    assert "toy:2: loading takes about" in result.err
    assert "and 1.0 kB is free" in result.err
    with open_project(shop.folder) as project:
        assert Deployments(project.store).get("toy").rollout is None


def test_where_nothing_is_served_now_it_is_exit_code_6(shop: Shop) -> None:
    shop.stop()
    result = shop("deploy", "toy:2")
    assert result.code == 6
    assert "nothing is served here" in result.err
    assert "cloche up" in result.err
    assert "CL-E605" in result.err
    shop.serve()
    shop("deploy", "toy:2")
    shop.stop()
    for command in ("promote", "abort", "pause", "resume"):
        assert shop(command).code == 6


def test_one_after_the_other_is_exit_code_5(shop: Shop) -> None:
    shop("deploy", "toy:2")
    for reference in ("toy:2", "toy:3"):
        result = shop("deploy", reference, "--breaking")
        assert result.code == 5
        assert "toy is on its way to toy:2" in result.err
    assert shop("abort").code == 0


def test_the_version_that_has_it_all_is_exit_code_5(shop: Shop) -> None:
    result = shop("deploy", "toy:1")
    assert result.code == 5
    assert "toy:1 has all traffic of toy already" in result.err


def test_a_version_that_was_taken_back_is_exit_code_4_until_it_is_cleared(shop: Shop) -> None:
    shop("deploy", "toy:2")
    shop.take_back()
    result = shop("deploy", "toy:2")
    assert result.code == 4
    assert "toy:2 was taken back: toy:2 harms" in result.err
    assert "cloche unblock toy:2" in result.err
    assert shop("unblock", "toy:2").code == 0
    assert shop("deploy", "toy:2").code == 0


def test_a_version_that_breaks_callers_is_exit_code_4_and_goes_out_with_breaking(shop: Shop) -> None:
    result = shop("deploy", "toy:3")
    assert result.code == 4
    assert "CL-E414" in result.err
    assert "toy:3 would break who calls toy:1 now: input x was FP32 [-1, 3], is FP32 [-1, 4]" in result.err
    assert "--breaking" in result.err
    result = shop("deploy", "toy:3", "--breaking")
    assert result.code == 0
    assert "warning: callers must change something: input x was FP32" in result.err


def test_of_several_deployments_of_a_model_one_must_be_named(shop: Shop) -> None:
    shop.started("second", "toy:1")
    result = shop("deploy", "toy:2")
    assert result.code == 2
    assert "there are several deployments: second, toy" in result.err
    assert "--deployment NAME" in result.err
    assert shop("deploy", "toy:2", "--deployment", "second", "--json").json["deployment"] == "second"
    for command in ("abort", "rollback"):
        result = shop(command)
        assert (result.code, "name one" in result.err) == (2, True)
    assert shop("abort", "second").code == 0


def test_a_deployment_of_another_model_is_exit_code_5(shop: Shop) -> None:
    shop.started("more", "more:1")
    result = shop("deploy", "toy:2", "--deployment", "more")
    assert result.code == 5
    assert "more answers with more, not with toy" in result.err


# --- waiting


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LOOK_S", 0.01)


def beside(shop: Shop, work: Callable[[], None]) -> threading.Thread:
    """Do this once a rollout has begun."""

    def wait_and_work() -> None:
        until = time.monotonic() + 30
        with open_project(shop.folder) as project:
            while Deployments(project.store).get("toy").rollout is None and time.monotonic() < until:
                time.sleep(0.01)
        work()

    thread = threading.Thread(target=wait_and_work)
    thread.start()
    return thread


@pytest.mark.usefixtures("quick")
def test_who_waits_hears_each_step_and_that_it_was_promoted(shop: Shop) -> None:
    def work() -> None:
        shop.admit()
        shop.promote()

    thread = beside(shop, work)
    result = shop("deploy", "toy:2", "--wait", "--timeout", "30s")
    thread.join(30)
    assert result.code == 0, result.err
    assert result.out == "toy: version 2 was promoted: not worse\n"
    told = [line.split("  ")[2] for line in result.err.splitlines() if line[:2] == "20"]
    assert told == ["began", "stepped", "promoted"]
    assert "undo  cloche rollback toy" in result.err


@pytest.mark.usefixtures("quick")
def test_who_waits_for_what_is_taken_back_gets_exit_code_1(shop: Shop) -> None:
    thread = beside(shop, shop.take_back)
    result = shop("deploy", "toy:2", "--wait", "--json")
    thread.join(30)
    assert (result.code, result.err) == (1, "")
    told = result.json
    assert (told["kind"], told["outcome"], told["why"]) == ("Rollout", "aborted", "toy:2 harms")
    assert told["deployment"] == "toy"


@pytest.mark.usefixtures("quick")
def test_who_waits_for_a_trial_gets_its_report(shop: Shop) -> None:
    def work() -> None:
        shop.act(lambda all_, row: all_.abort("toy", row.id, "cloche", "agrees", block=False, how="reported"))

    thread = beside(shop, work)
    result = shop("deploy", "toy:2", "--strategy", "shadow", "--wait")
    thread.join(30)
    assert (result.code, result.out) == (0, "toy: version 2 was reported: agrees\n")


@pytest.mark.usefixtures("quick")
def test_who_waits_for_too_long_gets_exit_code_6_and_it_goes_on(shop: Shop) -> None:
    result = shop("deploy", "toy:2", "--wait", "--timeout", "50ms")
    assert result.code == 6
    assert "the rollout of toy goes on after 0.05 s" in result.err
    assert "cloche abort toy" in result.err
    assert shop("status", "--json").json["items"][0]["rollout"]["phase"] == "loading"


# --- orders


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("promote", "toy: the rollout is promoted"),
        ("abort", "toy: the rollout is given up"),
        ("pause", "toy: the rollout is paused"),
        ("resume", "toy: the rollout goes on"),
    ],
)
def test_an_order_reaches_the_store(shop: Shop, command: str, words: str) -> None:
    shop("deploy", "toy:2")
    shop.step()
    result = shop(command)
    assert (result.code, result.out) == (0, f"{words}\n")
    assert "cloche status toy" in result.err
    ordered: list[Any] = []
    shop.act(lambda deployments, row: ordered.append((row.command, row.commander)))
    assert ordered[0][0] == command
    assert ordered[0][1]
    told = shop(command, "toy", "--json").json
    assert (told["kind"], told["deployment"], told["command"]) == ("Order", "toy", command)
    assert isinstance(told["rollout"], int)


def test_what_is_not_warm_yet_can_not_be_promoted_but_given_up(shop: Shop) -> None:
    shop("deploy", "toy:2")
    result = shop("promote")
    assert result.code == 5
    assert "toy:2 is not warm in every worker yet" in result.err
    assert "CL-E508" in result.err
    shop.act(lambda deployments, row: deployments.admit("toy", row.id))  # it is being loaded there
    assert shop("promote", "toy").code == 5
    ordered: list[Any] = []
    shop.act(lambda deployments, row: ordered.append(row.command))
    assert ordered == [None]
    assert shop("abort").code == 0


@pytest.mark.parametrize("command", ["promote", "abort", "pause", "resume"])
def test_an_order_where_nothing_is_under_way_is_exit_code_5(shop: Shop, command: str) -> None:
    result = shop(command, "toy")
    assert result.code == 5
    assert "no rollout of toy is under way" in result.err
    assert shop(command, "sales").code == 3
    assert shop(command, "toy", "twice").code == 2


# --- rollback and unblock


def test_a_rollback_goes_to_the_version_before_and_blocks(shop: Shop) -> None:
    shop("deploy", "toy:2")
    shop.admit()
    shop.promote()
    assert shop("models", "show", "toy@champion", "--json").json["reference"] == "toy:2"
    shop.stop()  # it works on the store, whatever runs
    result = shop("rollback", "--why", "complaints")
    assert (result.code, result.out) == (0, "toy: toy:1 has all of the traffic\n")
    assert "cloche history toy" in result.err
    assert shop("models", "show", "toy@champion", "--json").json["reference"] == "toy:1"
    last = shop("history", "--json").json["items"][-1]
    assert (last["action"], last["version"], last["why"]) == ("rolled back", 1, "complaints")
    shop.serve()
    assert shop("deploy", "toy:2").code == 4


def test_a_rollback_long_after_finds_the_version_before(shop: Shop) -> None:
    shop("deploy", "toy:2")
    shop.admit()
    shop.act(lambda all_, row: all_.promote("toy", row.id, "cloche", "good", alias=None, warm_s=-1))
    shop.act(lambda all_, row: all_.cool("toy"))
    told = shop("rollback", "toy", "--json").json
    assert (told["kind"], told["deployment"], told["stable"]) == ("Rollback", "toy", "toy:1")


def test_a_rollback_during_a_rollout_takes_the_candidate_off(shop: Shop) -> None:
    shop("deploy", "toy:2")
    shop.admit()
    result = shop("rollback")
    assert (result.code, result.out) == (0, "toy: toy:1 has all of the traffic\n")
    assert shop("status", "--json").json["items"][0]["rollout"] is None
    assert shop("deploy", "toy:2").code == 4


def test_a_rollback_to_a_version_that_is_named(shop: Shop) -> None:
    result = shop("rollback", "toy", "2")
    assert (result.code, result.out) == (0, "toy: toy:2 has all of the traffic\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("rollback",), 5, "toy has had no version before toy:1"),
        (("rollback", "toy", "1"), 5, "toy:1 has all traffic of toy already"),
        (("rollback", "toy", "77"), 3, "toy has no version 77"),
        (("rollback", "sales"), 3, "there is no deployment 'sales'"),
        (("rollback", "toy", "last"), 2, "last"),
        (("unblock", "toy"), 2, "toy may become another version"),
        (("unblock", "toy@champion"), 2, "may become another version"),
        (("unblock", "toy:77"), 3, "toy has no version 77"),
        (("unblock", "Toy 2"), 2, "Toy 2"),
        (("unblock",), 2, "reference"),
    ],
)
def test_what_can_not_be_taken_back(shop: Shop, words: tuple[str, ...], code: int, said: str) -> None:
    result = shop(*words)
    assert result.code == code
    assert said.lower() in result.err.lower()


def test_unblock_says_whether_it_was(shop: Shop) -> None:
    result = shop("unblock", "toy:2")
    assert (result.code, result.out) == (0, "toy:2 was not blocked\n")
    shop("rollback", "toy", "2")
    assert shop("unblock", "toy:1").out == "toy:1 may be deployed again\n"
    told = shop("unblock", "toy:1", "--json").json
    assert (told["kind"], told["was_blocked"]) == ("Unblock", False)
    assert "toy:1" in told.values()


# --- status


def test_status_of_what_was_never_served(cloche: Cloche, tmp_path: Path) -> None:
    result = cloche("status")
    assert (result.code, result.out) == (0, "")
    assert "nothing was ever served here; start with  cloche up MODEL" in result.err
    assert cloche("status", "--json").json["items"] == []
    assert cloche("status", "toy").code == 3
    assert list(tmp_path.iterdir()) == []  # who looks writes nothing


def test_status_of_one_and_of_all(shop: Shop) -> None:
    shop.started("second", "toy:1")
    assert [one["deployment"] for one in shop("status", "--json").json["items"]] == ["second", "toy"]
    assert [one["deployment"] for one in shop("status", "toy", "--json").json["items"]] == ["toy"]
    assert shop("status", "sales").code == 3


def test_status_without_workers(shop: Shop) -> None:
    result = shop("status")
    assert result.out == "toy   not served now\n└─ ● toy:1        stable      100 %  ████████████████████\n"


def test_status_in_a_rollout(shop: Shop) -> None:
    shop("deploy", "toy:2")
    shop.admit()
    with open_project(shop.folder) as project:
        board = Board(runtime_folder(project.settings) / "board")
        revision = project.store.revision()
    for number, applied in ((1, revision), (2, revision - 1)):
        slot = board.claim(number, Role.WORKER, pid=number, start=1)
        slot.set(Head.STATE, State.READY)
        slot.set(Head.REVISION, applied)
        counters = DeploymentCounters(slot, "toy", "1")
        for _ in range(50):
            counters.answered("cloche", 200, 0.0003)

    def known(deployments: Deployments, row: RolloutRow) -> None:
        rollout = Rollout(strategy=canary(), entered=0.0, phase=Phase.STEPPING, why="every worker has it warm")
        evidence = Evidence(candidate=774, candidate_bad=1, stable=16_723, seconds=10.0)
        seen = {"evidence": msgspec.to_builtins(evidence)}
        deployments.keep(row.id, msgspec.to_builtins(rollout), seen, None)

    shop.act(known)
    lines = shop("status", "toy").out.splitlines()
    assert lines[0] == "toy   ⟳ rollout 1/3  canary, stepping   1/2 workers ready"
    assert lines[1].startswith("├─ ● toy:1        stable       95 %  ███████████████████░   p50 0.")
    assert lines[1].endswith(" ms   0 of 16,723 wrong")
    assert lines[2] == "├─ ◐ toy:2        candidate     5 %  █░░░░░░░░░░░░░░░░░░░   1 of 774 wrong"
    assert "0.13% bad of 774" in lines[3]
    assert lines[3].endswith("(inconclusive)")
    assert lines[4] == "├─ came here because: every worker has it warm"
    assert lines[-1] == "└─ promote · abort · pause"
    (view,) = shop("status", "toy", "--json").json["items"]
    assert (view["workers"], view["ready"], view["warm_s"]) == (2, 1, None)
    assert [(one["version"], one["role"], one["share"]) for one in view["versions"]] == [
        ("toy:1", "stable", 95.0),
        ("toy:2", "candidate", 5.0),
    ]
    assert (view["versions"][0]["requests"], view["versions"][1]["bad"]) == (16_723, 1)
    assert 0.25 <= view["versions"][0]["p50_ms"] <= 0.5
    assert view["versions"][1]["p50_ms"] is None
    rollout = view["rollout"]
    assert (rollout["strategy"], rollout["phase"], rollout["step"]) == ("canary", "stepping", 1)
    assert (rollout["steps"], rollout["paused"]) == ([5.0, 50.0, 100.0], False)


def test_status_after_a_promotion_shows_what_is_kept_warm(shop: Shop) -> None:
    shop("deploy", "toy:2")
    shop.admit()
    shop.promote()
    lines = shop("status").out.splitlines()
    assert lines[1].startswith("├─ ● toy:2        stable      100 %")
    assert lines[2].startswith("└─ ○ toy:1        previous      0 %  ░░░")
    assert lines[2].endswith("   warm for 30 min")


VIEW = DeploymentView(
    deployment="fraud",
    versions=(
        VersionView(version="fraud:3", role="stable", share=99.5, requests=10, bad=2, p50_ms=0.5, p99_ms=12.3),
        VersionView(version="fraud:4", role="candidate", share=0.5, requests=0),
        VersionView(version="fraud:2", role="previous", share=0.0),
    ),
    rollout=RolloutView(
        id=1, strategy="canary", phase="stepping", step=1, steps=(5.0, 100.0), paused=True, why="paused by hand",
        verdict="inconclusive", evidence="too little seen", progress=0.1, eta_s=7_200.0,
    ),
    workers=2,
    ready=2,
    warm_s=45.0,
)  # fmt: skip
UTF_8 = """\
fraud   ⟳ rollout 1/2  canary, stepping, paused   2/2 workers ready
├─ ● fraud:3      stable     99.5 %  ████████████████████   p50 0.5  p99 12.3 ms   2 of 10 wrong
├─ ◐ fraud:4      candidate   0.5 %  ░░░░░░░░░░░░░░░░░░░░
├─ ○ fraud:2      previous      0 %  ░░░░░░░░░░░░░░░░░░░░   warm for 45 s
├─ too little seen   (inconclusive)
├─ came here because: paused by hand
├─ enough evidence in about 2.0 h if all stays as it is
└─ promote · abort · resume"""


def test_the_tree_of_a_terminal_that_has_every_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert "\n".join(tree(VIEW)) == UTF_8


def test_one_that_is_held_asks_somebody_to_look() -> None:
    assert VIEW.rollout is not None
    held = msgspec.structs.replace(VIEW.rollout, held=True, why="held: no room left to count in")
    lines = tree(msgspec.structs.replace(VIEW, rollout=held))
    assert "├─ page: held: no room left to count in" in lines


def test_the_tree_of_a_terminal_that_has_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    lines = [fitting(line, sys.stdout) for line in tree(VIEW)]
    assert lines[0] == "fraud   ~ rollout 1/2  canary, stepping, paused   2/2 workers ready"
    assert lines[1].startswith("|- * fraud:3      stable     99.5 %  ####################   p50")
    assert lines[2].startswith("|- + fraud:4      candidate   0.5 %  ....................")
    assert lines[3].startswith("|- - fraud:2")
    assert lines[-1].startswith("`- promote ")
    for line in lines:
        sys.stdout.write(line)  # it can be written there


@pytest.mark.parametrize("words", ["canary: 5 % → 100 %", "promote · abort"])
def test_what_is_said_can_be_written_on_a_terminal_that_has_few_signs(
    monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    sys.stdout.write(fitting(words, sys.stdout))
    assert fitting("as it is", sys.stdout) == "as it is"


@pytest.mark.parametrize("command", ["status", "history"])
def test_who_looks_on_a_terminal_that_has_few_signs_sees_all(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    shop("deploy", "toy:2")
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    result = shop(command)
    assert result.code == 0, result.err
    sys.stdout.flush()
    assert b"toy" in written.getvalue()


def test_status_writes_the_newest_rollout_as_a_page(shop: Shop) -> None:
    assert shop("status", "toy", "--html", "page.html").code == 3  # there was none yet
    shop("deploy", "toy:2")
    result = shop("status", "--html", "page.html")
    assert (result.code, result.out) == (0, "page.html\n")
    page = shop.folder.joinpath("page.html").read_text()
    assert "toy:2 beside toy:1" in page
    result = shop("status", "--html", "nowhere/page.html")
    assert (result.code, "can't be written" in result.err) == (2, True)


# --- history


def test_the_history_is_a_table_the_newest_last(shop: Shop) -> None:
    shop("deploy", "toy:2")
    shop.take_back()
    lines = shop("history", "toy").out.splitlines()
    assert lines[0].split() == ["TIME", "DEPLOYMENT", "VERSION", "WHAT", "WHO", "WHY"]
    assert [line.split()[3] for line in lines[1:]] == ["started", "began", "aborted"]
    assert lines[-1].split()[4:] == ["cloche", "toy:2", "harms"]
    assert shop("history", "--no-header").out.splitlines() == lines[1:]


def test_the_history_as_json(shop: Shop) -> None:
    shop.started("second", "toy:1")
    told = shop("history", "--json").json
    assert told["kind"] == "EventList"
    (first, second) = told["items"]
    assert (first["deployment"], second["deployment"]) == ("toy", "second")
    assert first["time"].endswith("Z")
    assert (first["action"], first["who"], first["version"], first["rollout"]) == ("started", "ada", 1, None)
    assert [one["deployment"] for one in shop("history", "second", "--json").json["items"]] == ["second"]


@pytest.mark.parametrize(("limit", "shown"), [("1", 1), ("2", 2), ("0", 1), ("-5", 1), ("1000000", 3)])
def test_the_history_may_be_long(shop: Shop, limit: str, shown: int) -> None:
    shop("deploy", "toy:2")
    shop.take_back()
    items = shop("history", "--limit", limit, "--json").json["items"]
    assert len(items) == shown
    assert items[-1]["action"] == "aborted"


def test_the_history_of_what_is_not_there_is_exit_code_3(shop: Shop) -> None:
    assert shop("history", "sales").code == 3
    assert shop("history", "--limit", "many").code == 2
