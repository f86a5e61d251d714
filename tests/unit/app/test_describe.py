"""From the store's rows and the settings to what the workers of a machine are to serve, and how that is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloche.app.describe import Machine, Shelf, alias_of, policy_of, slow_s, strategy_of
from cloche.app.desired import Desired, read_desired, stamp, write_desired
from cloche.app.local import pack_into
from cloche.app.project import Project, open_project
from cloche.control.rollouts import begin
from cloche.core.errors import ConfigError, NotFoundError
from cloche.rollout.strategy import Metric, Step, Strategy, ab, blue_green, canary, now, shadow
from cloche.settings import Online, default_online
from cloche.settings.tree import Objectives
from cloche.store.deployments import Deployments
from cloche.testing import toy_onnx

TOML = """
version = 1

[online.toy]
model = "toy@champion"
deadline = "2s"
objectives = { p99 = "100ms", error_rate = "1%" }

[online.toy.rollout]
sticky = "x-user-id"
margin = "2%"

[online.other]
model = "toy:1"
access = { keys = true }
cache = { size = "1MiB", ttl = "60s" }
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose data folder holds toy:1 to toy:3."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "cloche.toml").write_text(TOML)
    with open_project(folder) as project:
        for inputs in (3, 4, 5):
            pack_into(project, toy_onnx(folder / f"{inputs}.onnx", inputs=inputs), None, None, name="toy")
    return folder


@pytest.fixture
def project(packed: Path, tmp_path: Path) -> Iterator[Project]:
    """A store of its own over the packed bundles."""
    with open_project(packed, overrides={}) as shared, open_project(tmp_path) as own:
        for version in reversed(shared.registry.list("toy")):
            own.register(shared.open_version(version), "toy")
        for key in shared.trusted():
            own.trust.add(key, name="packed")
        yield Project(msgspec.structs.replace(shared.settings, data=own.settings.data), own.store)


def machine(project: Project, **changes: Any) -> Machine:
    plain = Machine(
        id="here",
        database=project.settings.database,
        bundles=str(project.bundles.root),
        online=project.settings.online,
        loopback=True,
        workers=2,
        least_workers=1,
        runtime="/run",
        isolate_above=512_000_000,
    )
    return msgspec.structs.replace(plain, **changes)


@pytest.fixture
def deployments(project: Project) -> Deployments:
    found = Deployments(project.store)
    found.start("toy", "toy", "toy@champion", 1, "ada")
    found.start("other", "toy", "toy:1", 1, "ada")
    return found


@pytest.fixture
def desire(project: Project, deployments: Deployments) -> Callable[..., Desired]:
    return lambda **changes: Shelf(machine(project, **changes), project.store).desired()


def go(project: Project, strategy: Strategy, weight: int = 500) -> int:
    deployments = Deployments(project.store)
    number = begin(deployments, "toy", 2, strategy, 0.0, "ada", "")
    deployments.admit("toy", number)
    deployments.shift("toy", number, weight, "cloche")
    return number


# --- what is desired


def test_each_deployment_is_desired_as_the_settings_say(desire: Callable[..., Desired], project: Project) -> None:
    desired = desire()
    assert desired.revision == project.store.revision()
    toy, other = desired.deployments  # in the order of the settings
    assert (toy.stable.deployment, toy.stable.ref, toy.stable.deadline_s) == ("toy", "toy:1", 2.0)
    assert (toy.trial, toy.previous) == (None, None)
    assert toy.stable.aliases == ("champion",)
    version = project.registry.resolve("toy:1")
    assert (toy.stable.digest, toy.stable.bundle) == (version.digest, str(project.bundles.path(version.digest)))
    assert (toy.stable.keys_required, other.stable.keys_required) == (False, True)
    assert (toy.stable.cache, other.stable.deployment) == (None, "other")
    assert other.stable.cache is not None
    assert (other.stable.cache.bytes, other.stable.cache.ttl_s) == (2**20, 60.0)
    assert (desired.needs_keys, desired.deadline_s) == (True, max(2.0, other.stable.deadline_s))


def test_a_machine_that_others_reach_wants_keys_of_all(desire: Callable[..., Desired]) -> None:
    assert [one.stable.keys_required for one in desire(loopback=False).deployments] == [True, True]


def test_what_is_above_the_limit_runs_in_hosts_that_are_the_same_in_every_role(
    desire: Callable[..., Desired], project: Project
) -> None:
    sizes = {}
    for number in (1, 2):
        measured = project.open(f"toy:{number}").manifest.measured
        assert measured is not None
        sizes[number] = measured.load_bytes
    go(project, canary())
    assert desire().hosts() == ()
    assert desire().hosted() == frozenset()
    # that is the limit: above it, not at it
    assert desire(isolate_above=max(sizes.values())).hosts() == ()
    desired = desire(isolate_above=1)
    assert desired.hosted() == {"toy", "other"}
    toy, other = desired.deployments
    first, second = (project.registry.resolve(f"toy:{number}").digest for number in (1, 2))
    assert toy.stable.hosts == other.stable.hosts == (f"/run/{first[:8]}-0.sock",)
    assert toy.trial is not None
    assert toy.trial.candidate.hosts == (f"/run/{second[:8]}-0.sock",)
    told = [(one.socket, one.digest, one.deployment, one.version, one.trusted) for one in desired.hosts()]
    # the deployments share the first one's
    assert [one[:2] for one in told] == [(f"/run/{one[:8]}-0.sock", one) for one in (first, second)]
    assert told[1][2:] == ("toy", 2, desired.trusted)
    assert [one.digest for one in desired.proven().hosts()] == [first]


def test_a_rollout_is_desired_once_its_candidate_may_be_loaded(
    desire: Callable[..., Desired], project: Project, deployments: Deployments
) -> None:
    number = begin(deployments, "toy", 2, canary(), 0.0, "ada", "")
    assert desire().deployments[0].trial is None
    deployments.admit("toy", number)
    trial = desire().deployments[0].trial
    assert trial is not None
    assert (trial.candidate.ref, trial.rollout, trial.weight, trial.kind) == ("toy:2", number, 0, "")
    deployments.shift("toy", number, 500, "cloche")
    desired = desire()
    trial = desired.deployments[0].trial
    assert trial is not None
    assert (trial.weight, trial.slow_s, trial.sticky) == (500, 0.1, "x-user-id")
    # each worker has its share of the chance to be wrong, and so has the controller
    assert trial.policy == policy_of(project.settings.online[0], shares=3)
    assert trial.candidate.deployment == "toy"
    assert desired.deployments[1].trial is None


@pytest.mark.parametrize(("strategy", "kind"), [(shadow(), "shadow"), (ab(), "ab"), (blue_green(), "")])
def test_a_trial_is_told_as_one(
    desire: Callable[..., Desired], project: Project, strategy: Strategy, kind: str
) -> None:
    go(project, strategy)
    trial = desire().deployments[0].trial
    assert trial is not None
    assert trial.kind == kind


def test_what_was_promoted_is_desired_with_the_one_before(
    desire: Callable[..., Desired], project: Project, deployments: Deployments
) -> None:
    number = go(project, canary())
    deployments.promote("toy", number, "cloche", "good", alias="champion", warm_s=1_800)
    toy, other = desire().deployments
    assert toy.trial is None
    assert toy.previous is not None
    assert (toy.stable.ref, toy.previous.ref) == ("toy:2", "toy:1")
    assert (toy.stable.aliases, toy.previous.aliases) == (("champion",), ())
    assert set(project.registry.aliases("toy")) == {"champion", "latest"}
    assert other.stable.ref == "toy:1"


def test_other_machines_deployments_are_none_of_this_ones(
    desire: Callable[..., Desired], project: Project
) -> None:
    (only,) = desire(online=project.settings.online[1:]).deployments
    assert only.stable.deployment == "other"


def test_a_deployment_that_the_store_has_lost_is_named(project: Project) -> None:
    with pytest.raises(NotFoundError, match="no deployment 'toy' any more") as caught:
        Shelf(machine(project), project.store).desired()
    assert caught.value.code == "CL-E302"


def test_a_bundle_that_is_gone_is_no_hindrance_until_it_is_looked_at(
    project: Project, deployments: Deployments
) -> None:
    shelf = Shelf(machine(project), project.store)
    with pytest.raises(NotFoundError):
        shelf.described(project.settings.online[0], "toy", 77)


def test_a_bundle_is_opened_under_its_name_and_only_with_a_seal_that_is_believed(project: Project) -> None:
    shelf = Shelf(machine(project), project.store)
    bundle = shelf.bundle(shelf.version("toy", 2))
    assert bundle.reference == "toy:2"
    assert shelf.trusted() == project.trusted()


def test_what_is_desired_goes_through_its_file(desire: Callable[..., Desired], project: Project) -> None:
    go(project, ab("50% for 1h", "score"))
    desired, file = desire(), Path("desired.json")
    assert stamp(file) is None
    write_desired(desired, file)
    first = stamp(file)
    assert read_desired(file) == desired
    assert file.stat().st_mode & 0o777 == 0o600
    write_desired(desired, file)
    assert stamp(file) != first  # who looks sees that it was written again
    assert [path.name for path in Path().glob("desired*")] == ["desired.json"]


def test_two_that_differ_in_weight_and_revision_have_one_shape(
    desire: Callable[..., Desired], project: Project, deployments: Deployments
) -> None:
    number = go(project, canary())
    before = desire()
    deployments.shift("toy", number, 5_000, "cloche")
    after = desire()
    assert before != after
    assert before.unweighted() == after.unweighted()
    assert before.proven() != before
    assert [one.trial for one in before.proven().deployments] == [None, None]
    deployments.abort("toy", number, "ada", "no", block=False)
    assert desire().unweighted() != after.unweighted()


# --- how a version goes out


def online(strategy: str = "canary", steps: tuple[str, ...] = ("1% for 1m", "100%"), **changes: Any) -> Online:
    plain = default_online("toy", "toy:1")
    plan = msgspec.structs.replace(
        plain.rollout, strategy=strategy, steps=steps, ramp_s=20.0, bake_s=90.0, margin=0.02
    )
    return msgspec.structs.replace(plain, rollout=plan, **changes)


def own(strategy: Strategy, *, ramp_s: float = 0.0, bake_s: float = 90.0) -> Strategy:
    """With the times that are set."""
    return msgspec.structs.replace(strategy, ramp_s=ramp_s, bake_s=bake_s)


@pytest.mark.parametrize(
    ("described", "name", "steps", "metric", "strategy"),
    [
        # as it is set
        (online(), None, None, "", own(canary(("1% for 1m", "100%")), ramp_s=20.0)),
        (online(steps=()), None, None, "", own(canary(), ramp_s=20.0)),
        (online("blue-green", ()), None, None, "", own(blue_green())),
        # steps of a canary that are written beside another strategy are not its own
        (online("blue-green"), None, None, "", own(blue_green())),
        (online("shadow", ("20% for 1h",)), None, None, "", shadow("20% for 1h")),
        (online("shadow", ()), None, None, "", shadow()),
        (online("ab", ("30% for 2d",)), None, None, "", ab("30% for 2d")),
        # as is said for once
        (online(), "blue-green", None, "", own(blue_green())),
        (online(), "now", None, "", now()),
        (online(), "shadow", None, "", shadow()),
        (online(), "shadow", "30% for 2h", "", shadow("30% for 2h")),
        (online(), "ab", None, "errors", ab(metric="errors")),
        (online(), None, None, "score", ab(metric="score")),
        (online(), None, "20% for 1h", "score", ab("20% for 1h", "score")),
        (online("ab", ("30% for 2d",)), None, None, "score", ab("30% for 2d", "score")),
        (online(), None, "10% for 5m, 100%", "", own(canary(("10% for 5m", "100%")), ramp_s=20.0)),
        (online("blue-green"), None, "10% , 100%", "", own(canary(("10%", "100%")), ramp_s=20.0)),
        (online("blue-green"), "canary", None, "", own(canary(), ramp_s=20.0)),
    ],
)
def test_how_it_goes_out(
    described: Online, name: str | None, steps: str | None, metric: Metric, strategy: Strategy
) -> None:
    assert strategy_of(described, name, steps, metric) == strategy


def test_steps_are_those_of_the_strategy_that_is_set() -> None:
    """`cloche deploy --steps "20% for 1h"` where cloche.toml says shadow."""
    assert strategy_of(online("shadow", ()), None, "20% for 1h") == shadow("20% for 1h")


@pytest.mark.parametrize(
    ("name", "steps", "metric", "words"),
    [
        ("blue-green", "50%, 100%", "", "blue-green has no steps"),
        ("now", "100%", "", "now has no steps"),
        ("shadow", None, "score", "shadow compares no metric"),
        ("canary", None, "errors", "canary compares no metric"),
        ("ab", "5% for 1h, 50% for 1h", "", "ab has one step"),
        ("canary", "50%", "", "don't grow"),
        (None, "", "", "'' is not a step"),
        (None, "50%,,100%", "", "'' is not a step"),
        ("rainbow", None, "", "there is no strategy 'rainbow'"),
    ],
)
def test_what_contradicts_itself(name: str | None, steps: str | None, metric: Metric, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        strategy_of(online(), name, steps, metric)
    assert caught.value.code == "CL-E201"
    assert caught.value.hint


# --- how it is judged


@pytest.mark.parametrize(
    ("objectives", "objective"),
    [
        (Objectives(p99_s=None, error_rate=None), 0.1),
        (Objectives(p99_s=None, error_rate=0.02), 0.02),
        # of a hundred answers one may be later
        (Objectives(p99_s=0.1, error_rate=0.02), 0.03),
        (Objectives(p99_s=0.1, error_rate=None), 0.11),
    ],
)
def test_the_objective_is_what_was_promised_or_what_nobody_wants(objectives: Objectives, objective: float) -> None:
    policy = policy_of(online(objectives=objectives), shares=1)
    assert policy.objective == pytest.approx(objective)
    assert (policy.alpha, policy.margin) == (0.01, 0.02)


def test_judges_share_the_chance_to_be_wrong() -> None:
    assert policy_of(online(), shares=5).alpha == pytest.approx(0.002)


@pytest.mark.parametrize(("p99_s", "deadline_s", "slow"), [(None, 5.0, 5.0), (0.1, 5.0, 0.1), (30.0, 5.0, 5.0)])
def test_late_is_what_is_later_than_promised_or_than_the_deadline(
    p99_s: float | None, deadline_s: float, slow: float
) -> None:
    objectives = Objectives(p99_s=p99_s, error_rate=None)
    assert slow_s(online(objectives=objectives, deadline_s=deadline_s)) == slow


@pytest.mark.parametrize(
    ("asked", "alias"),
    [
        ("fraud@champion", "champion"),
        ("fraud@blue", "blue"),
        # the highest is no name that could be moved
        ("fraud@latest", None),
        ("fraud", None),
        ("fraud:3", None),
        # files
        ("./fraud.onnx", None),
        ("/models/Fraud v2.cloche", None),
        ("code/Sentiment.py:Model", None),
    ],
)
def test_the_alias_that_a_promotion_moves(asked: str, alias: str | None) -> None:
    assert alias_of(asked) == alias


def test_the_settings_of_a_file_go_all_the_way(project: Project) -> None:
    toy = project.settings.online[0]
    assert strategy_of(toy).steps == (Step(500, 600.0), Step(5_000, 600.0), Step(10_000))
    assert (slow_s(toy), policy_of(toy, shares=1).objective) == (0.1, pytest.approx(0.02))
