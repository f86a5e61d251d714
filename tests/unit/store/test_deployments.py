"""Deployments in the store: who has the traffic, passages between versions, what is refused, what is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from cloche.core.errors import ClocheError, ConflictError, NotFoundError, RefusedError
from cloche.registry import Registry
from cloche.store.blobs import BundleFolder
from cloche.store.database import Store
from cloche.store.deployments import DeploymentRow, Deployments
from cloche.store.events import add_event, list_events
from cloche.store.machines import Lease
from cloche.store.tables import leases

PLAN: dict[str, Any] = {"strategy": {"name": "canary"}, "step": 0}


@pytest.fixture
def registry(store: Store, bundles: BundleFolder, keep_bundle: Callable[[str], str]) -> Registry:
    """fraud:1 to fraud:4, of which 3 is the champion, and churn:1."""
    registry = Registry(store, bundles)
    for number in (1, 2, 3, 4):
        registry.register(keep_bundle(f"{number:064x}"), "fraud")
    registry.register(keep_bundle(f"{9:064x}"), "churn")
    registry.set_alias("fraud:3", "champion")
    return registry


@pytest.fixture
def deployments(store: Store, registry: Registry) -> Deployments:
    """The deployment `fraud`, asked for as fraud@champion, which is version 3."""
    found = Deployments(store)
    found.start("fraud", "fraud", "fraud@champion", 3, "ada")
    return found


def told(store: Store, name: str | None = None) -> list[tuple[str, int, str]]:
    return [(one.action, one.version, one.who) for one in list_events(store, name)]


def going(deployments: Deployments, weight: int = 500) -> int:
    """A rollout of version 4 with a share of the traffic."""
    number = deployments.begin("fraud", 4, PLAN, "ada", "try it")
    assert deployments.admit("fraud", number)
    assert deployments.shift("fraud", number, weight, "cloche")
    return number


# --- start


def test_what_is_started_has_all_of_the_traffic_and_is_told(deployments: Deployments, store: Store) -> None:
    row = deployments.get("fraud")
    assert row == DeploymentRow(
        name="fraud",
        model="fraud",
        asked="fraud@champion",
        resolved=3,
        stable=3,
        revision=store.revision(),
    )
    assert deployments.list() == (row,)
    (event,) = list_events(store)
    assert (event.action, event.version, event.who, event.rollout) == ("started", 3, "ada", None)
    assert (event.why, event.time) == ("fraud@champion was asked for", store.now())


def test_deployments_are_listed_by_name(deployments: Deployments) -> None:
    deployments.start("a-last", "churn", "churn:1", 1, "ada")
    assert [row.name for row in deployments.list()] == ["a-last", "fraud"]


@pytest.mark.parametrize("known", [True, False])
def test_what_is_not_there_is_named_with_what_is(store: Store, registry: Registry, known: bool) -> None:
    deployments = Deployments(store)
    if known:
        for name in ("fraud", "churn"):
            deployments.start(name, name, f"{name}:1", 1, "ada")
    for ask in (
        lambda: deployments.get("sales"),
        lambda: deployments.begin("sales", 4, PLAN, "ada", ""),
        lambda: deployments.order("sales", "pause", "ada"),
        lambda: deployments.roll_back("sales", 2, "ada", "", alias=None),
    ):
        with pytest.raises(NotFoundError, match="there is no deployment 'sales'") as caught:
            ask()
        assert caught.value.code == "CL-E302"
        hint = "there are: churn, fraud" if known else "serve a model first: cloche up fraud"
        assert caught.value.hint == hint


def test_a_start_that_asks_for_the_same_changes_nothing(deployments: Deployments, store: Store) -> None:
    number = going(deployments)
    before, events = deployments.get("fraud"), told(store)
    assert deployments.start("fraud", "fraud", "fraud@champion", 3, "bob") == before
    assert deployments.get("fraud").rollout == number
    assert told(store) == events


def test_a_start_goes_on_with_the_version_that_was_promoted_meanwhile(deployments: Deployments) -> None:
    number = going(deployments)
    deployments.promote("fraud", number, "cloche", "good", alias="champion", warm_s=60)
    assert deployments.start("fraud", "fraud", "fraud@champion", 4, "bob").stable == 4


@pytest.mark.parametrize(
    ("model", "asked", "resolved"),
    [
        ("fraud", "fraud:2", 2),  # another name
        ("fraud", "fraud@champion", 2),  # the same name, which means another version now
        ("churn", "churn:1", 1),  # another model
    ],
)
def test_a_start_that_asks_for_something_else_gives_a_rollout_up(
    deployments: Deployments, store: Store, model: str, asked: str, resolved: int
) -> None:
    number = going(deployments)
    row = deployments.start("fraud", model, asked, resolved, "bob")
    assert row == DeploymentRow(
        name="fraud", model=model, asked=asked, resolved=resolved, stable=resolved, revision=store.revision()
    )
    assert deployments.rollout(number).ended == store.now()
    assert told(store)[-2:] == [("aborted", 4, "bob"), ("started", resolved, "bob")]
    assert list_events(store)[-2].why == f"{asked} is asked for now"


def test_asking_for_the_stable_version_by_another_name_starts_nothing_anew(
    deployments: Deployments, store: Store
) -> None:
    row = deployments.start("fraud", "fraud", "fraud:3", 3, "bob")
    assert (row.asked, row.stable) == ("fraud:3", 3)
    assert told(store) == [("started", 3, "ada")]


def test_a_start_does_not_bring_back_what_was_taken_back(deployments: Deployments, store: Store) -> None:
    number = going(deployments)
    deployments.abort("fraud", number, "cloche", "it harms", block=True)
    row = deployments.start("fraud", "fraud", "fraud@champion", 4, "bob")
    assert (row.stable, row.resolved) == (3, 3)
    deployments.unblock("fraud", 4)
    assert deployments.start("fraud", "fraud", "fraud@champion", 4, "bob").stable == 4


def test_a_blocked_version_of_another_model_is_not_held_against_this_one(deployments: Deployments) -> None:
    deployments.roll_back("fraud", 2, "ada", "bad", alias=None)  # blocks fraud:3
    deployments.start("other", "churn", "churn:1", 1, "ada")
    deployments.roll_back("fraud", 1, "ada", "bad", alias=None)  # and fraud:2
    assert deployments.start("other", "churn", "churn@best", 1, "ada").asked == "churn@best"


# --- begin


def test_a_rollout_begins_with_nothing_but_a_plan(deployments: Deployments, store: Store) -> None:
    number = deployments.begin("fraud", 4, PLAN, "ada", "try it")
    row = deployments.get("fraud")
    assert (row.rollout, row.candidate, row.weight, row.stable) == (number, None, 0, 3)
    assert row.revision == store.revision()
    rollout = deployments.rollout(number)
    assert (rollout.deployment, rollout.model, rollout.stable, rollout.candidate) == ("fraud", "fraud", 3, 4)
    assert (rollout.state, rollout.evidence, rollout.command, rollout.commander) == (PLAN, None, None, None)
    assert (rollout.started, rollout.ended) == (store.now(), None)
    assert deployments.last_rollout("fraud") == rollout
    event = list_events(store)[-1]
    assert (event.action, event.version, event.who, event.why, event.rollout) == (
        "began", 4, "ada", "try it", number,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("candidate", "prepare", "code", "words", "hint"),
    [
        (2, "going", "CL-E505", "fraud is on its way to fraud:4", "cloche abort fraud"),
        (4, "going", "CL-E505", "fraud is on its way to fraud:4", "cloche abort fraud"),
        (3, "none", "CL-E505", "fraud:3 has all traffic of fraud already", "cloche status fraud"),
        (4, "blocked", "CL-E413", "fraud:4 was taken back: it harms", "cloche unblock fraud:4"),
    ],
)
def test_what_can_not_begin(
    deployments: Deployments, store: Store, candidate: int, prepare: str, code: str, words: str, hint: str
) -> None:
    if prepare != "none":
        number = going(deployments)
        if prepare == "blocked":
            deployments.abort("fraud", number, "cloche", "it harms", block=True)
    before, events, revision = deployments.get("fraud"), told(store), store.revision()
    with pytest.raises(ClocheError, match=words) as caught:
        deployments.begin("fraud", candidate, PLAN, "bob", "")
    assert caught.value.code == code
    assert isinstance(caught.value, RefusedError if code == "CL-E413" else ConflictError)
    assert hint in (caught.value.hint or "")
    assert (deployments.get("fraud"), told(store), store.revision()) == (before, events, revision)


def test_rollouts_have_numbers_of_their_own(deployments: Deployments) -> None:
    numbers = []
    for _ in range(3):
        number = going(deployments)
        deployments.abort("fraud", number, "ada", "enough", block=False)
        numbers.append(number)
    assert numbers == sorted(set(numbers))
    last = deployments.last_rollout("fraud")
    assert last is not None
    assert last.id == numbers[-1]
    assert deployments.last_rollout("churn") is None


def test_a_rollout_that_is_not_there_is_named(deployments: Deployments) -> None:
    with pytest.raises(NotFoundError, match="there is no rollout 77") as caught:
        deployments.rollout(77)
    assert (caught.value.code, caught.value.hint) == ("CL-E302", "cloche history")


# --- what the controller does


def test_the_candidate_is_let_in_and_its_share_moves(deployments: Deployments, store: Store) -> None:
    number = deployments.begin("fraud", 4, PLAN, "ada", "")
    assert not deployments.shift("fraud", number, 500, "cloche", "too early")
    assert deployments.admit("fraud", number)
    row = deployments.get("fraud")
    assert (row.candidate, row.weight, row.revision) == (4, 0, store.revision())
    assert deployments.shift("fraud", number, 500, "cloche")
    row = deployments.get("fraud")
    assert (row.weight, row.revision) == (500, store.revision())
    assert deployments.shift("fraud", number, 5_000, "bob", "on to 50 %")
    # only what has a reason is told
    assert told(store)[1:] == [("began", 4, "ada"), ("stepped", 4, "bob")]
    assert list_events(store)[-1].why == "on to 50 %"


@pytest.mark.parametrize("weight", [-1, 10_001])
def test_a_share_that_can_not_be_is_not_kept(deployments: Deployments, weight: int) -> None:
    number = going(deployments)
    with pytest.raises(Exception, match="cloche_deployments_weight"):
        deployments.shift("fraud", number, weight, "cloche")
    assert deployments.get("fraud").weight == 500


def test_who_speaks_of_another_rollout_changes_nothing(deployments: Deployments, store: Store) -> None:
    """A controller that slept while another one went on."""
    old = going(deployments)
    deployments.abort("fraud", old, "ada", "enough", block=False)

    def attempts(number: int) -> list[bool]:
        return [
            deployments.admit("fraud", number),
            deployments.shift("fraud", number, 9_000, "cloche", "more"),
            deployments.promote("fraud", number, "cloche", "good", alias="champion", warm_s=60),
            deployments.abort("fraud", number, "cloche", "it harms", block=True),
            deployments.admit("sales", number),
            deployments.shift("sales", number, 9_000, "cloche", "more"),
            deployments.promote("sales", number, "cloche", "good", alias=None, warm_s=60),
            deployments.abort("sales", number, "cloche", "it harms", block=True),
        ]

    def world() -> Any:
        rows = [(row.name, row.stable, row.candidate, row.weight, row.rollout) for row in deployments.list()]
        return rows, told(store)

    before = world()
    assert attempts(old) == [False] * 8
    assert world() == before
    new = going(deployments)
    before = world()
    assert attempts(old) == [False] * 8
    assert world() == before
    # nothing was blocked either
    deployments.abort("fraud", new, "ada", "enough", block=False)
    going(deployments)


def test_a_promotion_moves_traffic_and_alias_together(
    deployments: Deployments, store: Store, registry: Registry
) -> None:
    number = going(deployments)
    before = store.revision()
    assert deployments.promote("fraud", number, "cloche", "not worse", alias="champion", warm_s=1_800)
    # one change, which every process sees as one
    assert store.revision() == before + 1
    assert deployments.get("fraud") == DeploymentRow(
        name="fraud",
        model="fraud",
        asked="fraud@champion",
        resolved=4,
        stable=4,
        previous=3,
        warm_until=store.now() + 1_800,
        revision=store.revision(),
    )
    assert registry.aliases("fraud")["champion"] == 4
    assert deployments.rollout(number).ended == store.now()
    assert told(store)[-1] == ("promoted", 4, "cloche")
    assert list_events(store)[-1].why == "not worse"


@pytest.mark.parametrize("alias", [None, "gone"])
def test_a_promotion_without_an_alias_that_is_there_moves_none(
    deployments: Deployments, registry: Registry, alias: str | None
) -> None:
    number = going(deployments)
    assert deployments.promote("fraud", number, "cloche", "good", alias=alias, warm_s=60)
    assert registry.aliases("fraud")["champion"] == 3
    row = deployments.get("fraud")
    assert (row.stable, row.resolved) == (4, 3)


def test_a_promotion_that_fails_leaves_the_alias(
    deployments: Deployments, store: Store, registry: Registry
) -> None:
    number = going(deployments)
    with store.change() as connection:
        # no room for what is told at the end
        connection.execute(text("DROP TABLE cloche_events"))
    with pytest.raises(ClocheError):
        deployments.promote("fraud", number, "cloche", "good", alias="champion", warm_s=60)
    assert registry.aliases("fraud")["champion"] == 3
    assert (deployments.get("fraud").stable, deployments.rollout(number).ended) == (3, None)


def test_nothing_is_promoted_before_it_was_let_in(deployments: Deployments) -> None:
    number = deployments.begin("fraud", 4, PLAN, "ada", "")
    assert not deployments.promote("fraud", number, "cloche", "good", alias=None, warm_s=60)
    assert deployments.get("fraud").rollout == number


@pytest.mark.parametrize("admitted", [True, False])
@pytest.mark.parametrize("block", [True, False])
def test_what_is_taken_off_may_be_blocked(
    deployments: Deployments, store: Store, block: bool, admitted: bool
) -> None:
    number = going(deployments) if admitted else deployments.begin("fraud", 4, PLAN, "ada", "")
    assert deployments.abort("fraud", number, "cloche", "it harms", block=block)
    row = deployments.get("fraud")
    assert (row.stable, row.candidate, row.weight, row.rollout) == (3, None, 0, None)
    assert row.revision == store.revision()
    assert deployments.rollout(number).ended == store.now()
    assert told(store)[-1] == ("aborted", 4, "cloche")
    if block:
        with pytest.raises(RefusedError, match="it harms"):
            deployments.begin("fraud", 4, PLAN, "ada", "")
        assert deployments.unblock("fraud", 4)
    deployments.begin("fraud", 4, PLAN, "ada", "")


def test_a_version_is_blocked_once_and_for_its_first_reason(deployments: Deployments) -> None:
    number = going(deployments)
    deployments.roll_back("fraud", 2, "ada", "stable was bad", alias=None)
    deployments.start("fraud", "fraud", "fraud:1", 1, "ada")
    assert deployments.rollout(number).ended is not None
    deployments.unblock("fraud", 3)
    second = deployments.begin("fraud", 3, PLAN, "ada", "")
    deployments.abort("fraud", second, "cloche", "first", block=True)
    deployments.start("fraud", "fraud", "fraud:2", 2, "ada")
    with pytest.raises(RefusedError, match="first"):
        deployments.begin("fraud", 3, PLAN, "ada", "")


def test_how_a_trial_ended_is_told_in_its_own_word(deployments: Deployments, store: Store) -> None:
    number = going(deployments)
    assert deployments.abort("fraud", number, "cloche", "they agree", block=False, how="reported")
    assert told(store)[-1] == ("reported", 4, "cloche")


def test_notes_are_told_and_change_nothing_else(deployments: Deployments, store: Store) -> None:
    number = going(deployments)
    before = (deployments.get("fraud"), store.revision())
    deployments.note("fraud", number, "bob", "paused", 4, "paused by hand")
    assert (deployments.get("fraud"), store.revision()) == before
    event = list_events(store)[-1]
    assert (event.action, event.version, event.who, event.why, event.rollout) == (
        "paused", 4, "bob", "paused by hand", number,
    )  # fmt: skip


def test_the_version_before_cools_when_its_time_is_over(
    deployments: Deployments, store: Store, clock: Any
) -> None:
    number = going(deployments)
    deployments.promote("fraud", number, "cloche", "good", alias=None, warm_s=60)
    clock.now += 59
    deployments.cool("fraud")
    assert deployments.get("fraud").previous == 3
    clock.now += 1
    deployments.cool("fraud")
    row = deployments.get("fraud")
    assert (row.stable, row.previous, row.warm_until) == (4, None, None)
    assert row.revision == store.revision()
    deployments.cool("fraud")
    assert deployments.get("fraud") == row


def test_what_an_alias_means_by_now_is_followed_without_a_change(deployments: Deployments, store: Store) -> None:
    before = store.revision()
    deployments.follow("fraud", 4)
    row = deployments.get("fraud")
    assert (row.resolved, row.stable, store.revision()) == (4, 3, before)


# --- orders


def test_an_order_is_heard_once(deployments: Deployments) -> None:
    number = going(deployments)
    ordered = deployments.order("fraud", "pause", "bob")
    assert (ordered.id, ordered.command, ordered.commander) == (number, "pause", "bob")
    assert deployments.rollout(number) == ordered
    deployments.keep(number, {"paused": True}, {"seconds": 1.0}, "pause")
    row = deployments.rollout(number)
    assert (row.state, row.evidence, row.command) == ({"paused": True}, {"seconds": 1.0}, None)


def test_an_order_that_came_meanwhile_is_not_lost(deployments: Deployments) -> None:
    """The controller writes down what it had seen: none, or another one."""
    number = going(deployments)
    deployments.order("fraud", "pause", "bob")
    deployments.keep(number, PLAN, {}, None)
    assert deployments.rollout(number).command == "pause"
    deployments.order("fraud", "abort", "eve")
    deployments.keep(number, PLAN, {}, "pause")
    row = deployments.rollout(number)
    assert (row.command, row.commander) == ("abort", "eve")


def test_an_order_is_seen_by_every_process_at_once(deployments: Deployments, store: Store) -> None:
    number = going(deployments)
    before = store.revision()
    deployments.order("fraud", "pause", "bob")
    assert store.revision() == before + 1
    # what the controller knows is its own
    deployments.keep(number, PLAN, {}, "pause")
    assert store.revision() == before + 1


def test_nothing_can_be_ordered_where_nothing_is_under_way(deployments: Deployments) -> None:
    with pytest.raises(ConflictError, match="no rollout of fraud is under way: fraud:3 has all") as caught:
        deployments.order("fraud", "promote", "bob")
    assert (caught.value.code, caught.value.hint) == ("CL-E505", "cloche history fraud")


def test_an_order_ends_with_its_rollout(deployments: Deployments) -> None:
    number = going(deployments)
    deployments.order("fraud", "promote", "bob")
    deployments.abort("fraud", number, "cloche", "it harms", block=False)
    assert deployments.rollout(number).command is None


# --- rolling back


def test_a_roll_back_moves_traffic_and_alias_at_once_and_blocks(
    deployments: Deployments, store: Store, registry: Registry
) -> None:
    number = going(deployments)
    deployments.promote("fraud", number, "cloche", "good", alias="champion", warm_s=1_800)
    before = store.revision()
    row = deployments.roll_back("fraud", 3, "bob", "complaints", alias="champion")
    assert store.revision() == before + 1
    assert row == deployments.get("fraud")
    assert row == DeploymentRow(
        name="fraud", model="fraud", asked="fraud@champion", resolved=3, stable=3, revision=store.revision()
    )
    assert registry.aliases("fraud")["champion"] == 3
    assert told(store)[-1] == ("rolled back", 3, "bob")
    with pytest.raises(RefusedError, match="complaints"):
        deployments.begin("fraud", 4, PLAN, "ada", "")


def test_a_roll_back_during_a_rollout_takes_the_candidate_off(
    deployments: Deployments, store: Store, registry: Registry
) -> None:
    number = going(deployments)
    row = deployments.roll_back("fraud", 3, "bob", "complaints", alias="champion")
    assert (row.stable, row.candidate, row.weight, row.rollout) == (3, None, 0, None)
    assert deployments.rollout(number).ended == store.now()
    assert told(store)[-1] == ("aborted", 4, "bob")
    assert registry.aliases("fraud")["champion"] == 3
    with pytest.raises(RefusedError, match="complaints"):
        deployments.begin("fraud", 4, PLAN, "ada", "")
    # and stable is not
    deployments.start("fraud", "fraud", "fraud:2", 2, "ada")
    deployments.begin("fraud", 3, PLAN, "ada", "")


def test_a_roll_back_to_an_earlier_version_during_a_rollout_blocks_the_stable_one(
    deployments: Deployments, store: Store
) -> None:
    going(deployments)
    row = deployments.roll_back("fraud", 2, "bob", "both are bad", alias=None)
    assert (row.stable, row.rollout) == (2, None)
    assert told(store)[-2:] == [("aborted", 4, "bob"), ("rolled back", 2, "bob")]
    with pytest.raises(RefusedError):
        deployments.begin("fraud", 3, PLAN, "ada", "")


def test_a_roll_back_to_where_it_is_is_refused(deployments: Deployments, store: Store) -> None:
    before = told(store)
    with pytest.raises(ConflictError, match="fraud:3 has all traffic of fraud already") as caught:
        deployments.roll_back("fraud", 3, "bob", "oops", alias="champion")
    assert (caught.value.code, caught.value.hint) == ("CL-E505", "cloche history fraud")
    assert told(store) == before
    deployments.start("fraud", "fraud", "fraud:2", 2, "ada")
    deployments.begin("fraud", 3, PLAN, "ada", "")  # it was not blocked


def test_the_version_before_is_the_one_that_handed_over(deployments: Deployments) -> None:
    assert deployments.before(deployments.get("fraud")) is None
    number = going(deployments)
    assert deployments.before(deployments.get("fraud")) is None
    deployments.promote("fraud", number, "cloche", "good", alias=None, warm_s=0)
    assert deployments.before(deployments.get("fraud")) == 3
    deployments.roll_back("fraud", 2, "bob", "bad", alias=None)
    assert deployments.before(deployments.get("fraud")) is None
    deployments.unblock("fraud", 4)
    number = deployments.begin("fraud", 4, PLAN, "ada", "")
    deployments.admit("fraud", number)
    deployments.promote("fraud", number, "cloche", "good", alias=None, warm_s=0)
    # it handed over twice, from 3 and from 2
    assert deployments.before(deployments.get("fraud")) == 2


def test_one_that_was_tried_and_taken_off_is_none_that_handed_over(deployments: Deployments) -> None:
    """fraud:4 got the traffic by a start, after it had been a candidate beside 3 in vain."""
    number = going(deployments)
    deployments.abort("fraud", number, "ada", "not yet", block=False)
    deployments.start("fraud", "fraud", "fraud:2", 2, "ada")
    deployments.start("fraud", "fraud", "fraud:4", 4, "ada")
    assert deployments.before(deployments.get("fraud")) != 3


def test_the_version_before_of_another_model_is_none(deployments: Deployments, registry: Registry) -> None:
    number = going(deployments)
    deployments.promote("fraud", number, "cloche", "good", alias=None, warm_s=0)
    row = deployments.start("fraud", "churn", "churn:1", 1, "ada")
    assert deployments.before(row) is None


def test_what_was_not_blocked_is_not_unblocked(deployments: Deployments) -> None:
    deployments.roll_back("fraud", 2, "bob", "bad", alias=None)
    assert not deployments.unblock("fraud", 4)
    assert not deployments.unblock("churn", 3)
    assert deployments.unblock("fraud", 3)
    assert not deployments.unblock("fraud", 3)


# --- with a lease


def test_who_does_not_lead_writes_nothing(deployments: Deployments, store: Store) -> None:
    number = going(deployments)
    late, lease = Lease(store, "one"), Lease(store, "two")
    led = Deployments(store, late)
    assert late.take()
    assert led.shift("fraud", number, 600, "cloche")
    with store.note() as connection:
        connection.execute(leases.update().values(until=0.0))
    assert lease.take()
    before = (deployments.get("fraud"), deployments.rollout(number), told(store), store.revision())
    for attempt in (
        lambda: led.follow("fraud", 4),
        lambda: led.keep(number, {}, {}, None),
        lambda: led.shift("fraud", number, 9_000, "cloche", "more"),
        lambda: led.admit("fraud", number),
        lambda: led.note("fraud", number, "cloche", "paused", 4, ""),
        lambda: led.promote("fraud", number, "cloche", "good", alias="champion", warm_s=60),
        lambda: led.abort("fraud", number, "cloche", "it harms", block=True),
        lambda: led.cool("fraud"),
    ):
        with pytest.raises(ConflictError, match="another controller leads now") as caught:
            attempt()
        assert caught.value.code == "CL-E506"
    assert (deployments.get("fraud"), deployments.rollout(number), told(store), store.revision()) == before


# --- events


def test_the_newest_events_come_last_and_no_more_than_wanted(store: Store) -> None:
    with store.change() as connection:
        for number in range(10):
            name = "fraud" if number % 2 else "churn"
            add_event(connection, float(number), name, None, "ada", "noted", number, f"n{number}")
    assert [one.version for one in list_events(store)] == list(range(10))
    assert [one.version for one in list_events(store, most=3)] == [7, 8, 9]
    assert [one.version for one in list_events(store, "fraud", most=2)] == [7, 9]
    assert list_events(store, "sales") == ()
    assert [one.id for one in list_events(store)] == sorted(one.id for one in list_events(store))


def test_a_name_of_who_did_it_may_be_long(store: Store) -> None:
    with store.change() as connection:
        add_event(connection, 1.0, "fraud", None, "a" * 500, "noted", 1, "why " * 1_000)
    (event,) = list_events(store)
    assert (event.who, event.why) == ("a" * 200, "why " * 1_000)


# --- at once


def test_of_many_who_begin_at_once_one_does(database: str, bundles: BundleFolder, keep_bundle: Any) -> None:
    with Store(database) as store:
        registry = Registry(store, bundles)
        for number in range(1, 7):
            registry.register(keep_bundle(f"{number:064x}"), "fraud")
        Deployments(store).start("fraud", "fraud", "fraud:1", 1, "ada")
    barrier = threading.Barrier(5)
    ends: list[str] = []

    def begin(candidate: int) -> None:
        with Store(database) as own:
            barrier.wait(30)
            try:
                Deployments(own).begin("fraud", candidate, PLAN, "ada", "")
                ends.append("began")
            except ConflictError as error:
                ends.append(str(error.code))

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(2, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(ends) == ["CL-E505"] * 4 + ["began"]
