"""Three lines of Python: pack a model, load it, get the answers of the model."""

from __future__ import annotations

import pickle
import stat
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LinearRegression

import cloche
from cloche.app.local import open_project, pack_into
from cloche.core.errors import ClocheError, ConfigError, ConversionError, InputError, NotFoundError, RefusedError
from cloche.testing import make_rows, toy_classifier

X = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)


def test_a_pipeline_answers_after_packing_as_before(folder: Path) -> None:
    model, frame, y = toy_classifier(400)
    bundle = cloche.pack(model, frame, y, name="churn")
    assert bundle.reference == "churn:1"
    with cloche.load("churn@latest") as loaded:
        assert loaded.predict(frame).tolist() == model.predict(frame).tolist()
        np.testing.assert_allclose(loaded.predict_proba(frame), model.predict_proba(frame), rtol=1e-4)
    assert bundle.manifest.quality is not None
    assert bundle.manifest.quality["accuracy"] == pytest.approx(model.score(frame, y))
    age, visits, plan = bundle.signature.inputs
    assert (age.datatype, age.missing) == ("FP64", True)
    assert (visits.datatype, visits.minimum, visits.maximum) == ("INT64", 0, 29)
    assert plan.categories == ("basic", "free", "pro")


def test_a_regressor_has_values_and_no_probabilities() -> None:
    y = X @ [1.0, 2.0, 3.0]
    model = LinearRegression().fit(X, y)
    cloche.pack(model, X, y, name="price")
    with cloche.load("price") as loaded:
        np.testing.assert_allclose(loaded.predict(X), model.predict(X), rtol=1e-4, atol=1e-5)
        with pytest.raises(ConfigError, match="no probabilities"):
            loaded.predict_proba(X)


def test_many_rows_get_the_same_answers_as_few() -> None:
    """From 512 rows on another runtime may answer, with the threads for many rows."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(2000, 5))
    y = (rows.sum(axis=1) > 0).astype(int)
    bundle = cloche.pack(GradientBoostingClassifier(n_estimators=10).fit(rows, y), rows, y, name="boosted")
    with cloche.load(bundle) as loaded:
        many = loaded.predict_proba(rows)
        few = np.concatenate([loaded.predict_proba(rows[start : start + 100]) for start in range(0, 2000, 100)])
    np.testing.assert_allclose(many, few, rtol=1e-6)


def test_an_onnx_file_is_packed_with_rows_or_without(toy: Path) -> None:
    with_rows = cloche.pack(toy, X, 2 * X.sum(axis=1), name="toy")
    without = cloche.pack(str(toy), name="toy")
    assert (with_rows.reference, without.reference) == ("toy:1", "toy:2")
    assert with_rows.manifest.quality is not None
    assert with_rows.manifest.quality["mae"] == pytest.approx(0, abs=1e-5)
    assert without.profile() is None
    with cloche.load(without) as loaded:
        np.testing.assert_allclose(loaded.predict(X), 2 * X.sum(axis=1), rtol=1e-4, atol=1e-5)


def test_what_is_packed_again_unchanged_keeps_its_version(toy: Path, folder: Path) -> None:
    first = cloche.pack(toy, X, name="toy")
    assert cloche.pack(toy, X, name="toy").digest == first.digest
    assert cloche.pack(toy, X + 1, name="toy").reference == "toy:2"
    assert cloche.pack(toy, X + 1, name="toy", about="For tests.").reference == "toy:3"
    # only the highest version counts: going back to an earlier model is a step of its own
    assert cloche.pack(toy, X, name="toy").reference == "toy:4"
    assert len(list((folder / ".cloche" / "bundles").iterdir())) == 4


def test_a_damaged_version_is_not_taken_for_the_same(toy: Path) -> None:
    first = cloche.pack(toy, X, name="toy")
    model = first.path / "model" / "model.onnx"
    model.chmod(0o644)
    model.write_bytes(b"spoilt")
    again = cloche.pack(toy, X, name="toy")
    assert again.reference == "toy:2"
    again.verify()


@pytest.mark.parametrize("as_rows", ["frame", "dict", "list of dicts"])
def test_rows_come_as_people_hold_them(as_rows: str) -> None:
    model, frame, y = toy_classifier()
    cloche.pack(model, frame, y, name="churn")
    few = frame.drop(columns="plan").assign(plan="pro").head(3).fillna(30.0)
    rows = {
        "frame": few,
        "dict": {name: few[name].tolist() for name in few},
        "list of dicts": few.to_dict("records"),
    }[as_rows]
    with cloche.load("churn") as loaded:
        answers = loaded.run(rows)
        assert set(answers) == {"label", "probabilities"}
        assert loaded.predict(rows).tolist() == model.predict(few).tolist()


def test_bad_rows_are_refused_by_name(toy: Path) -> None:
    model, frame, y = toy_classifier()
    cloche.pack(model, frame, y, name="churn")
    with cloche.load("churn") as loaded:
        with pytest.raises(InputError) as caught:
            loaded.predict(frame.drop(columns="age"))
        assert caught.value.code == "CL-E104"
        with pytest.raises(InputError, match="visits"):
            loaded.predict(frame.assign(visits="many"))
        with pytest.raises(InputError):
            loaded.predict(np.zeros(3))


def linear_frame() -> tuple[LinearRegression, pd.DataFrame, pd.Series]:
    rows = pd.DataFrame(X, columns=["a", "b", "c"])
    y = rows["a"] + rows["b"]
    return LinearRegression().fit(rows, y), rows, y


def test_columns_that_the_model_was_not_fitted_on_are_not_even_looked_at() -> None:
    model, rows, y = linear_frame()
    more = rows.assign(when=pd.Timestamp("2026-01-01"), note=[{"any": "thing"}] * len(rows))[::-1]
    bundle = cloche.pack(model, more[["note", "c", "when", "b", "a"]], y[::-1], name="price")
    assert [field.name for field in bundle.signature.inputs] == ["a", "b", "c"]
    assert any("left out: note, when" in note for note in bundle.manifest.notes)
    with pytest.raises(InputError, match="the rows lack a, b"):
        cloche.pack(model, more[["c"]], name="price")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"X": "holdout.csv"}, "the rows are the text 'holdout.csv'"),
        ({"y": pd.Series(pd.date_range("2026-01-01", periods=300))}, "'y' holds dates"),
        ({"y": [[1, 2], [3]] * 150}, "'y' holds list"),
        ({"y": 3}, "1 labels for 300 rows"),
        ({"y": ["high", float("nan")] * 150}, "150 labels are missing"),
        ({"y": pd.array(["high", pd.NA] * 150, dtype="string")}, "150 labels are missing"),
        ({"rtol": float("nan")}, "tolerance"),
        ({"atol": float("inf")}, "tolerance"),
        ({"name": 3}, "3 can't be a name"),
        ({"code": ["x.py"]}, "LinearRegression is no Python class"),
        ({"requirements": "numpy"}, "LinearRegression is no Python class"),
        ({"about": "half a character: \ud800"}, "no valid text"),
        ({"directory": "nowhere"}, "no folder nowhere"),
    ],
)
def test_what_a_clumsy_hand_gives_is_told_in_words(folder: Path, options: dict[str, object], words: str) -> None:
    model, rows, _ = linear_frame()
    with pytest.raises(ClocheError, match=words):
        cloche.pack(model, **({"X": rows, "name": "price"} | options))  # type: ignore[arg-type]
    assert not list((folder / ".cloche").glob("bundles/*"))


@pytest.mark.parametrize("kind", ["model", "class", "file"])
def test_no_row_at_all_is_refused(toy: Path, sentiment: type, kind: str) -> None:
    model, rows, _ = linear_frame()
    given: tuple[object, object] = {
        "model": (model, rows.head(0)),
        "class": (sentiment, {"text": []}),
        "file": (toy, X[:0]),
    }[kind]
    with pytest.raises(ConfigError, match="there are no rows"):
        cloche.pack(*given, name="none")


def test_one_file_and_one_requirement_need_no_list(folder: Path, sentiment: type) -> None:
    rows = {"text": ["good", "bad"]}
    bundle = cloche.pack(sentiment, rows, name="sentiment", code="sentiment.py", requirements="numpy")
    assert bundle.manifest.requirements == ("numpy",)


def test_the_first_version_is_the_champion_until_the_alias_is_moved(toy: Path) -> None:
    first = cloche.pack(toy, X, name="toy")
    second = cloche.pack(toy, name="toy")
    assert cloche.load("toy@champion").bundle.digest == first.digest
    assert str(cloche.alias(second, "champion")) == "toy:2"
    assert cloche.load("toy@champion").bundle.digest == second.digest
    cloche.alias("toy:1", "previous")
    assert cloche.load("toy@previous").bundle.digest == first.digest
    with pytest.raises(ConfigError):
        cloche.alias("toy:1", "latest")


@pytest.mark.parametrize("reference", ["toy", "toy:9", "toy@champion", "other"])
def test_what_is_not_there_is_said_so(reference: str, folder: Path) -> None:
    with pytest.raises(NotFoundError):
        cloche.load(reference)
    assert list(folder.iterdir()) == []


def test_a_bundle_is_loaded_from_its_folder_too(toy: Path, folder: Path) -> None:
    bundle = cloche.pack(toy, X, name="toy")
    with cloche.load(bundle.path) as loaded:
        assert loaded.bundle.digest == bundle.digest
    with cloche.load(f"./{bundle.path.relative_to(folder)}") as loaded:
        assert loaded.bundle.digest == bundle.digest
    with pytest.raises(ConfigError, match="is a file"):
        cloche.load(toy)


def test_a_changed_bundle_is_not_loaded(toy: Path) -> None:
    bundle = cloche.pack(toy, X, name="toy")
    model = bundle.path / "model" / "model.onnx"
    model.chmod(0o644)
    changed = bytearray(model.read_bytes())
    changed[-1] ^= 1
    model.write_bytes(changed)
    with pytest.raises(RefusedError, match=r"model/model\.onnx"):
        cloche.load("toy")


def test_a_wrong_name_is_refused_before_anything_is_done(folder: Path, toy: Path) -> None:
    with pytest.raises(ConfigError):
        cloche.pack(toy, name="No Name")
    assert not (folder / ".cloche").exists()


def test_what_is_no_model_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        cloche.pack(object(), name="thing")
    assert caught.value.code == "CL-E205"
    with pytest.raises(NotFoundError):
        cloche.pack("nowhere.onnx", name="thing")


def test_a_model_that_was_never_fitted_is_refused_and_leaves_nothing(folder: Path) -> None:
    with pytest.raises((ConfigError, ConversionError)):
        cloche.pack(LinearRegression(), X, name="price")
    with open_project(folder) as project:
        assert project.registry.models() == ()
        assert not project.bundles.root.exists() or list(project.bundles.root.iterdir()) == []


def test_the_data_stay_beside_the_settings_file(folder: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "cloche.toml").write_text("version = 1\n")
    (folder / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(folder / "deep" / "er")
    cloche.pack(toy, name="toy")
    assert (folder / ".cloche" / "state.db").exists()
    assert stat.S_IMODE((folder / ".cloche" / "signing.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / ".cloche").stat().st_mode) == 0o700
    with cloche.load("toy", directory=folder) as loaded:
        assert loaded.bundle.reference == "toy:1"


def test_packing_tells_what_it_does(folder: Path, toy: Path) -> None:
    said: list[str] = []
    with open_project(folder) as project:
        pack_into(project, toy, X, None, name="toy", progress=lambda what, done=0, total=0, /: said.append(what))
    assert said[0] == "converting"
    assert said[-1] == "sealing"


def test_packing_from_a_frame_keeps_the_rows_apart(folder: Path) -> None:
    columns, labels = make_rows(50)
    model, _, _ = toy_classifier()
    cloche.pack(model, pd.DataFrame(columns), labels, name="churn")
    # Golden examples are the only rows that travel, and at most 64 of them.
    assert len(cloche.load("churn").bundle.golden().inputs["age"]) == 50


def test_a_pickle_is_read_only_on_request_and_never_shipped(folder: Path) -> None:
    model, frame, y = toy_classifier()
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    with pytest.raises(RefusedError) as caught:
        cloche.pack("model.pkl", frame, y, name="churn")
    assert caught.value.code == "CL-E407"
    bundle = cloche.pack("model.pkl", frame, y, name="churn", trust_pickle=True)
    assert {entry.path for entry in bundle.manifest.files if "/" in entry.path} == {"model/model.onnx"}
    with cloche.load(bundle) as loaded:
        assert loaded.predict(frame).tolist() == model.predict(frame).tolist()


SENTIMENT = """
class Sentiment:
    def load(self):
        self.words = {"good": 1.0, "bad": -1.0}

    def predict(self, text: list[str]) -> list[float]:
        return [sum(self.words.get(word, 0.0) for word in one.split()) for one in text]
"""


@pytest.fixture
def sentiment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    (folder / "sentiment.py").write_text(SENTIMENT)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "sentiment", raising=False)
    from sentiment import Sentiment  # type: ignore[import-not-found]

    found: type = Sentiment
    return found


def test_a_class_runs_only_where_code_is_allowed(sentiment: type) -> None:
    bundle = cloche.pack(sentiment, {"text": ["good film", "bad film", "film"] * 5}, name="sentiment")
    assert {entry.path for entry in bundle.manifest.files} >= {"code/sentiment.py"}
    with pytest.raises(RefusedError) as caught:
        cloche.load(bundle)
    assert caught.value.code == "CL-E406"
    with cloche.load(bundle, allow_code=True) as loaded:
        assert loaded.predict({"text": ["good good", "bad"]}).tolist() == [2.0, -1.0]


def test_a_class_may_be_named_by_its_file(folder: Path, sentiment: type) -> None:
    bundle = cloche.pack("sentiment.py:Sentiment", {"text": ["good", "bad"]}, name="sentiment")
    assert bundle.manifest.description == "Sentiment"
    with pytest.raises((NotFoundError, ConfigError)):
        cloche.pack("nowhere.py:Sentiment", name="sentiment")


def test_the_settings_may_allow_code(folder: Path, sentiment: type) -> None:
    cloche.pack(sentiment, {"text": ["good", "bad"]}, name="sentiment")
    (folder / "cloche.toml").write_text("version = 1\n[serve]\nallow_code = true\n")
    with cloche.load("sentiment") as loaded:
        assert loaded.predict([{"text": "good"}]).tolist() == [1.0]


def test_a_file_of_code_is_told_which_classes_it_has(tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    file.write_text("class A: ...\nclass B: ...\n")
    with pytest.raises(ConfigError) as caught:
        cloche.pack(file, name="two")
    assert caught.value.hint == f"write {file}:A; its classes are A, B"


def test_what_the_rows_leave_open_is_noted(toy: Path) -> None:
    model, frame, y = toy_classifier()
    few = frame.head(20).assign(unused=1)
    notes = cloche.pack(model, few, [*y[:19], "stranger"], name="few").manifest.notes
    assert any("only 20 rows" in note for note in notes)
    assert any("never learnt: stranger" in note for note in notes)
    assert any("left out: unused" in note for note in notes)
