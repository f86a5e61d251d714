"""`cloche pack`, `models`, `alias`, `diff`, `export`, `import`, `verify`: a model's way through the registry."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from tests.unit.cli.conftest import Cloche

from cloche.app.local import pack
from cloche.bundle.diff import BundleDiff, Shift
from cloche.cli.portrait import difference


def make_rows(n: int, seed: int) -> tuple[pd.DataFrame, pd.Series]:
    random = np.random.default_rng(seed)
    rows = pd.DataFrame({"age": random.integers(18, 80, n).astype(float), "income": random.normal(50.0, 9.0, n)})
    return rows, pd.Series(np.where(rows["age"] + rows["income"] > 99, "yes", "no"), name="bought")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose registry holds shop:1 and shop:2, and the files of a third model."""
    folder = tmp_path_factory.mktemp("packed")
    X, y = make_rows(300, 0)
    for strength in (1.0, 0.01):
        pack(LogisticRegression(C=strength).fit(X, y), *make_rows(80, 1), name="shop", directory=folder)
    joblib.dump(LogisticRegression().fit(X, y), folder / "model.joblib")
    X_holdout, y_holdout = make_rows(60, 2)
    X_holdout.assign(bought=y_holdout).to_csv(folder / "holdout.csv", index=False)
    return folder


@pytest.fixture
def shop(cloche: Cloche, packed: Path, tmp_path: Path) -> Cloche:
    """`cloche` in a copy of the packed folder."""
    shutil.copytree(packed, tmp_path, dirs_exist_ok=True)
    return cloche


def test_packing_a_file_prints_what_it_became_and_registers_it(shop: Cloche) -> None:
    result = shop(
        "pack", "model.joblib", "--trust-pickle", "--name", "churn", "--data", "holdout.csv", "--label", "bought"
    )
    assert result.code == 0, result.err
    facts = dict(line.split(None, 1) for line in result.out.splitlines())
    assert facts["model"].startswith("churn:1  sha256 ")
    assert facts["parity"].startswith("same answers on 60 rows")
    assert " before, " in facts["size"]
    assert "accuracy" in facts["quality"]
    assert {"load", "runtime", "packed"} <= set(facts)
    assert "rows/s" in result.out
    assert "p50" in result.out
    assert "p99" in result.out
    assert "next  cloche up churn@champion" in result.err


def test_packing_the_very_same_again_says_so_and_keeps_the_version(shop: Cloche) -> None:
    words = ("pack", "model.joblib", "--trust-pickle", "--name", "churn", "--data", "holdout.csv")
    first, again = shop(*words), shop(*words)
    assert "nothing new" not in first.err
    assert "nothing new: churn:1 was packed from this very model" in again.err
    assert [item["reference"] for item in shop("models", "ls", "churn", "--json").json["items"]] == ["churn:1"]


def test_a_version_has_one_shape_wherever_it_is_answered(shop: Cloche) -> None:
    words = ("pack", "model.joblib", "--trust-pickle", "--name", "churn", "--data", "holdout.csv")
    packed, shown = shop(*words, "--json"), shop("models", "show", "churn", "--json")
    assert packed.err == ""
    assert packed.json == shown.json
    shop("export", "churn", "churn.cloche")
    imported = shop("import", "churn.cloche", "--json").json
    assert imported == shown.json
    (item,) = shop("models", "ls", "churn", "--json").json["items"]
    assert shown.json == {"kind": "ModelVersion", "version": 1, **item} | {
        name: shown.json[name] for name in ("signer", "manifest")
    }
    assert {"reference", "model", "number", "digest", "size_bytes", "quality", "aliases", "created"} <= set(item)
    assert all("size_bytes" in file for file in shown.json["manifest"]["files"])


SLOW = """
import time

class Slow:
    def load(self): ...

    def predict(self, a: list[float]) -> list[float]:
        time.sleep(0.2)
        return a
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_pack_that_is_stopped_leaves_nothing_behind(tmp_path: Path, ending: signal.Signals) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "rows.csv").write_text("a\n1\n2\n")
    words = [
        Path(sys.executable).with_name("cloche"),
        "pack",
        "slow.py:Slow",
        "--name",
        "slow",
        "--data",
        "rows.csv",
    ]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        staging = (tmp_path / ".cloche" / "bundles").glob
        while process.poll() is None and not list(staging(".staging-*")):
            time.sleep(0.01)
        process.send_signal(ending)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + ending, b""), err
    assert (b"stopped; nothing was registered" in err) == (ending == signal.SIGINT)
    assert list(staging("*")) == list(staging(".*")) == []


def test_a_version_that_is_not_the_champion_is_served_by_number(shop: Cloche) -> None:
    result = shop("pack", "model.joblib", "--trust-pickle", "--name", "shop", "--data", "holdout.csv")
    assert result.code == 0, result.err
    assert "next  cloche up shop:3" in result.err


def test_a_model_without_a_name_is_called_after_its_file(shop: Cloche) -> None:
    result = shop("pack", "model.joblib", "--trust-pickle", "--data", "holdout.csv")
    assert result.code == 0, result.err
    assert "next  cloche up model@champion" in result.err


def test_a_pickle_is_refused_without_a_word(shop: Cloche) -> None:
    result = shop("pack", "model.joblib", "--name", "churn")
    assert result.code == 4
    assert "--trust-pickle" in result.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["pack", "nothing.onnx", "--name", "a"], 3),
        (["pack", "model.joblib", "--trust-pickle", "--name", "Not A Name"], 2),
        (["pack", "model.joblib", "--name", "a", "--data", "nothing.csv"], 3),
        (["pack", "holdout.csv", "--name", "a"], 2),
        (["pack"], 2),
    ],
)
def test_what_can_not_be_packed_is_said(shop: Cloche, words: list[str], code: int) -> None:
    result = shop(*words)
    assert result.code == code, result.err
    assert "error[CL-E" in result.err
    assert "hint: " in result.err


def test_models_are_listed_a_version_a_line(shop: Cloche) -> None:
    lines = shop("models", "ls").out.splitlines()
    assert [line.split()[0] for line in lines] == ["VERSION", "shop:2", "shop:1"]
    assert "champion" in lines[2]
    items = shop("models", "ls", "shop", "--json").json["items"]
    assert [item["reference"] for item in items] == ["shop:2", "shop:1"]
    assert items[1]["aliases"] == ["champion"]


def test_a_model_that_is_not_there_is_exit_code_3(shop: Cloche) -> None:
    result = shop("models", "ls", "shopp")
    assert result.code == 3
    assert "shop" in result.err


def test_showing_a_version_shows_its_signature(shop: Cloche) -> None:
    out = shop("models", "show", "shop:1").out
    rows = [line.split() for line in out.splitlines()]
    assert ["in", "age", "FP64", "[-1]"] in [row[:4] for row in rows]
    assert ["out", "label", "BYTES", "[-1]", "no,", "yes"] in rows
    manifest = shop("models", "show", "shop:1", "--json").json["manifest"]
    assert [field["name"] for field in manifest["signature"]["inputs"]] == ["age", "income"]


def test_a_name_of_somebody_s_does_not_steer_the_terminal(shop: Cloche, tmp_path: Path) -> None:
    rows = pd.DataFrame({"\x1b[31mred": [1.0, 2.0], "two\nlines": [2.0, 3.0]})
    pack(LinearRegression().fit(rows, [1.0, 2.0]), rows, name="odd", directory=tmp_path)
    out = shop("models", "show", "odd").out
    assert "\ufffd[31mred" in out
    assert "two\ufffdlines" in out
    assert "\x1b" not in out


def test_an_alias_moves_and_says_how_to_undo_it(shop: Cloche) -> None:
    result = shop("alias", "shop:2", "champion")
    assert result.out == ("shop@champion is now shop:2 (was shop:1; undo it with  cloche alias shop:1 champion)\n")
    assert "a server that runs keeps the version it began with" in result.err
    assert shop("alias", "shop:2", "candidate", "--json").json["before"] is None
    again = shop("alias", "shop:2", "candidate")
    assert (again.code, again.out) == (0, "shop@candidate is shop:2 already; nothing was changed\n")
    assert shop("models", "show", "shop@candidate", "--json").json["reference"] == "shop:2"


def test_latest_can_not_be_moved(shop: Cloche) -> None:
    assert shop("alias", "shop:1", "latest").code == 2


def test_a_number_is_no_alias(shop: Cloche) -> None:
    result = shop("alias", "shop:1", "2")
    assert result.code == 2
    assert "numbers are versions" in result.err


def test_versions_are_compared_by_signature_quality_and_costs(shop: Cloche) -> None:
    out = shop("diff", "shop:1", "shop:2").out
    assert out.startswith("signature: the same\n")
    kinds = {line.split()[0] for line in out.splitlines() if line}
    assert {"cost", "profile"} <= kinds
    assert "quality" in out
    assert shop("diff", "shop:1", "shop:1").out == "shop:1 and shop:1 are the same bundle\n"
    assert shop("diff", "shop:1", "shop:2", "--json").json["diff"]["same"] is False


def compared(**costs: tuple[float | None, float | None]) -> list[str]:
    shifts = (
        Shift(column="age", distance=0.2, missing=(0.0, 0.0)),
        Shift(column="same", distance=0.0004, missing=(0.0, 0.0)),
    )
    found = BundleDiff(
        before="a:1",
        after="a:2",
        same=False,
        signature=(),
        quality={"accuracy": (0.91234, 0.91239), "roc_auc": (0.8, 0.9)},
        profile=shifts,
        costs=costs,
        other=(),
    )
    return [" ".join(line.split()) for line in difference(found)]


def test_a_comparison_shows_what_differs_in_three_digits_by_names_for_people() -> None:
    lines = compared(size_bytes=(1_000.0, 2_000.0), memory_bytes=(1e6, 1e6))
    assert lines[3:] == [
        "quality ROC AUC 0.8 0.9 +12.5%",
        "cost size 1.0 kB 2.0 kB +100.0%",
        "profile age moved 0.200",
    ]


@pytest.mark.parametrize(("after", "noise"), [(1.25e-3, True), (0.75e-3, True), (1.4e-3, False)])
def test_a_timing_that_moved_a_little_is_noise(after: float, noise: bool) -> None:
    (line,) = (line for line in compared(row_p50_s=(1e-3, after)) if "p50" in line)
    assert line.startswith("cost one row, p50 ")
    assert line.endswith("within noise") is noise


def test_a_bundle_goes_to_a_folder_that_learns_to_trust_its_signer(shop: Cloche, tmp_path: Path) -> None:
    signer = shop("models", "show", "shop:1", "--json").json["signer"]
    exported = shop("export", "shop:1")
    assert (tmp_path / "shop-1.cloche").is_file(), exported.err
    away = tmp_path / "away"
    away.mkdir()
    shutil.move(tmp_path / "shop-1.cloche", away)

    refused = shop("-C", str(away), "import", "shop-1.cloche")
    assert refused.code == 4
    assert f"cloche verify shop-1.cloche --trust {signer}" in refused.err
    verified = shop("-C", str(away), "verify", "shop-1.cloche", "--trust", signer)
    assert verified.code == 0, verified.err
    assert shop("-C", str(away), "import", "shop-1.cloche", "--name", "bought").out == "imported as bought:1\n"
    again = shop("-C", str(away), "import", "shop-1.cloche", "--name", "bought")
    assert again.out == "already there as bought:1\n"


def test_one_flipped_byte_is_refused_by_name(shop: Cloche, tmp_path: Path) -> None:
    shop("export", "shop:1", "out.cloche")
    archive = tmp_path / "out.cloche"
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    result = shop("verify", "out.cloche")
    assert result.code == 4
    assert "CL-E40" in result.err


def test_a_version_is_verified_where_it_lies(shop: Cloche, tmp_path: Path) -> None:
    assert shop("verify", "shop:1").code == 0
    digest = shop("models", "show", "shop:1", "--json").json["digest"]
    card = tmp_path / ".cloche" / "bundles" / digest / "card.md"
    card.chmod(0o644)
    card.write_text("another card")
    result = shop("verify", "shop:1")
    assert result.code == 4
    assert "card.md" in result.err
