"""Versions and aliases: numbers never repeat, names move, and what is not there is named well."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cloche.core.errors import ConfigError, NotFoundError
from cloche.registry import Registry
from cloche.store.blobs import BundleFolder
from cloche.store.database import Store

Keep = Callable[[str], str]


def digest(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def registry(store: Store, bundles: BundleFolder) -> Registry:
    return Registry(store, bundles)


@pytest.fixture
def fraud(registry: Registry, keep_bundle: Keep) -> Registry:
    """A registry with fraud:1 to fraud:3."""
    for number in (1, 2, 3):
        registry.register(keep_bundle(digest(number)), "fraud")
    return registry


def test_the_first_version_is_one_and_champion(registry: Registry, keep_bundle: Keep, store: Store) -> None:
    made = registry.register(
        keep_bundle(digest(1)),
        "fraud",
        framework="scikit-learn 1.9.1",
        size_bytes=10**10,
        metrics={"roc_auc": 0.9},
    )
    assert (str(made), made.aliases, made.created) == ("fraud:1", ("champion",), store.now())
    assert (made.framework, made.size_bytes, made.metrics) == ("scikit-learn 1.9.1", 10**10, {"roc_auc": 0.9})
    assert registry.resolve("fraud:1") == made


def test_later_versions_count_up_and_leave_the_champion(fraud: Registry) -> None:
    assert [(str(found), found.aliases) for found in fraud.list("fraud")] == [
        ("fraud:3", ()),
        ("fraud:2", ()),
        ("fraud:1", ("champion",)),
    ]


def test_each_model_counts_for_itself(fraud: Registry, keep_bundle: Keep) -> None:
    made = fraud.register(keep_bundle(digest(1)), "churn")
    assert (str(made), made.aliases) == ("churn:1", ("champion",))
    assert fraud.models() == ("churn", "fraud")
    assert [str(found) for found in fraud.list()] == ["churn:1", "fraud:3", "fraud:2", "fraud:1"]


def test_a_bundle_that_a_model_has_already_is_its_old_version(fraud: Registry) -> None:
    assert str(fraud.register(digest(2), "fraud")) == "fraud:2"
    assert len(fraud.list("fraud")) == 3


def test_a_bundle_whose_files_are_not_kept_is_not_registered(registry: Registry) -> None:
    with pytest.raises(NotFoundError) as caught:
        registry.register(digest(9), "fraud")
    assert caught.value.code == "CL-E303"
    assert registry.models() == ()


@pytest.mark.parametrize(
    ("reference", "version"),
    [("fraud", 3), ("fraud@latest", 3), ("fraud:2", 2), ("fraud@champion", 1)],
)
def test_a_reference_names_a_version(fraud: Registry, reference: str, version: int) -> None:
    assert fraud.resolve(reference).version == version


@pytest.mark.parametrize(
    ("reference", "said", "hint"),
    [
        ("froud", "no model 'froud'", "did you mean 'fraud'?"),
        ("froud:1", "no model 'froud'", "did you mean 'fraud'?"),
        ("froud@champion", "no model 'froud'", "did you mean 'fraud'?"),
        ("weather", "no model 'weather'", "see what there is: cloche models ls"),
        ("fraud:4", "no version 4; its highest is 3", "cloche models ls"),
        ("fraud@champoin", "no alias 'champoin'", "did you mean 'champion'?"),
        ("fraud@lastest", "no alias 'lastest'", "did you mean 'latest'?"),
    ],
)
def test_what_is_not_there_is_named_with_what_may_be_meant(
    fraud: Registry, reference: str, said: str, hint: str
) -> None:
    with pytest.raises(NotFoundError, match=said) as caught:
        fraud.resolve(reference)
    assert caught.value.code == "CL-E301"
    assert hint in (caught.value.hint or "")


def test_an_alias_moves_and_says_where_it_was(fraud: Registry) -> None:
    assert fraud.set_alias("fraud:3", "challenger") is None
    before = fraud.set_alias("fraud:2", "champion")
    assert before is not None
    assert str(before) == "fraud:1"
    assert fraud.aliases("fraud") == {"challenger": 3, "champion": 2, "latest": 3}
    assert fraud.resolve("fraud@champion").aliases == ("champion",)
    assert fraud.resolve("fraud:1").aliases == ()


def test_an_alias_may_be_moved_to_where_another_alias_points(fraud: Registry) -> None:
    fraud.set_alias("fraud@latest", "champion")
    assert fraud.resolve("fraud@champion").version == 3


def test_moving_an_alias_makes_the_revision_grow(fraud: Registry, store: Store) -> None:
    before = store.revision()
    fraud.set_alias("fraud:2", "champion")
    assert store.revision() > before


def test_latest_is_not_to_be_moved(fraud: Registry) -> None:
    with pytest.raises(ConfigError, match="highest version") as caught:
        fraud.set_alias("fraud:1", "latest")
    assert caught.value.code == "CL-E203"
    assert fraud.resolve("fraud@latest").version == 3


@pytest.mark.parametrize("alias", ["", "Champion", "a b", "../x", "x" * 64])
def test_a_name_that_cannot_be_is_refused(fraud: Registry, alias: str) -> None:
    with pytest.raises(ConfigError):
        fraud.set_alias("fraud:1", alias)
    with pytest.raises(ConfigError):
        fraud.register(digest(1), alias)


def test_an_alias_for_a_version_that_is_not_there_is_not_made(fraud: Registry, store: Store) -> None:
    before = store.revision()
    with pytest.raises(NotFoundError):
        fraud.set_alias("fraud:9", "champion")
    assert (fraud.resolve("fraud@champion").version, store.revision()) == (1, before)


@pytest.mark.parametrize("method", ["list", "aliases"])
def test_asking_for_a_model_that_is_not_there_is_an_error(fraud: Registry, method: str) -> None:
    with pytest.raises(NotFoundError, match="no model 'froud'"):
        getattr(fraud, method)("froud")


def test_a_new_registry_is_empty(registry: Registry) -> None:
    assert (registry.models(), registry.list()) == ((), ())


_REGISTER_MANY = """
import sys
from pathlib import Path
from cloche.registry import Registry
from cloche.store.blobs import BundleFolder
from cloche.store.database import Store
with Store(sys.argv[1]) as store:
    registry = Registry(store, BundleFolder(Path(sys.argv[2])))
    for number in range(5):
        registry.register(f"{int(sys.argv[3]) * 5 + number:064x}", "fraud")
"""


def test_versions_that_processes_register_at_once_have_no_gap_and_no_double(
    database: str, bundles: BundleFolder, keep_bundle: Keep
) -> None:
    for number in range(20):
        keep_bundle(digest(number))
    command = [sys.executable, "-W", "error", "-c", _REGISTER_MANY, database, str(bundles.root)]
    started = [subprocess.Popen([*command, str(n)], stderr=subprocess.PIPE) for n in range(4)]
    ends = [process.communicate(timeout=120)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0] * 4, "\n".join(ends)
    with Store(database) as store:
        found = Registry(store, bundles).list("fraud")
    assert [entry.version for entry in found] == list(range(20, 0, -1))
    assert {entry.digest for entry in found} == {digest(number) for number in range(20)}


def test_aliases_of_a_store_are_found_again(tmp_path: Path, bundles: BundleFolder, keep_bundle: Keep) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    with Store(url) as store:
        Registry(store, bundles).register(keep_bundle(digest(1)), "fraud")
    with Store(url, create=False) as store:
        assert Registry(store, bundles).aliases("fraud") == {"champion": 1, "latest": 1}
