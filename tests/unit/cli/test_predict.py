"""`cloche predict`: a file or one row through a model in this process."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.unit.cli.conftest import Cloche

import cloche as package
from cloche.batch import sinks
from cloche.testing import toy_classifier


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `churn:1` and the same rows as CSV, JSON lines and Parquet."""
    folder = tmp_path_factory.mktemp("packed")
    model, frame, labels = toy_classifier()
    package.pack(model, frame, labels, name="churn", directory=folder)
    rows = frame.assign(id=range(len(frame)))
    rows.to_csv(folder / "rows.csv", index=False)
    rows.to_parquet(folder / "rows.parquet")
    lines = [{name: None if value != value else value for name, value in row.items()}
             for row in rows.to_dict("records")]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def churn(cloche: Cloche, packed: Path, tmp_path: Path) -> Cloche:
    shutil.copytree(packed, tmp_path, dirs_exist_ok=True)
    return cloche


def expected(folder: Path) -> list[str]:
    with package.load("churn", directory=folder) as model:
        return [str(label) for label in model.predict(pd.read_csv(folder / "rows.csv").drop(columns="id"))]


@pytest.mark.parametrize("source", ["rows.csv", "rows.jsonl", "rows.parquet"])
@pytest.mark.parametrize("output", ["out.csv", "out.jsonl", "out.parquet"])
def test_every_source_gives_every_output(churn: Cloche, tmp_path: Path, source: str, output: str) -> None:
    result = churn("predict", "churn@champion", source, "-o", output)
    assert (result.code, result.out) == (0, "")
    assert "200 rows in" in result.err
    readers: dict[str, Any] = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda path: pd.read_json(path, lines=True),
    }
    answer = readers[Path(output).suffix](tmp_path / output)
    assert answer["label"].tolist() == expected(tmp_path)
    assert [int(each) for each in answer["id"]] == list(range(200))  # what CSV carries is text


def test_without_an_output_the_answers_stand_on_stdout(churn: Cloche) -> None:
    header, first, *_ = churn("predict", "churn", "rows.csv").out.splitlines()
    assert header == "id,label,probabilities.no,probabilities.yes"
    assert first.startswith("0,")
    assert set(json.loads(churn("predict", "churn", "rows.jsonl").out.splitlines()[0])) == {
        "id",
        "label",
        "probabilities",
    }


def test_rows_come_by_stdin(churn: Cloche, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rows.csv", "rows.jsonl"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / name).read_bytes())))
        assert len(churn("predict", "churn", "-").out.splitlines()) >= 200


def test_one_object_gives_one_prediction(churn: Cloche) -> None:
    row = '{"age": 41, "visits": 12, "plan": "pro"}'
    assert set(json.loads(churn("predict", "churn", row).out)) == {"label", "probabilities"}
    answer = churn("predict", "churn", row, "--json").json
    assert (answer["kind"], answer["version"], answer["model"]) == ("Prediction", 1, "churn:1")
    assert set(answer["prediction"]["probabilities"]) == {"no", "yes"}


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (['{"age": "x", "visits": 1, "plan": "pro"}'], "CL-E105", 2),
        (['{"agee": 1, "visits": 1, "plan": "pro"}'], "CL-E103", 2),
        (['{"age": 1'], "CL-E101", 2),
        (["[1]"], "CL-E102", 2),
        (["nothing.csv"], "CL-E303", 3),
        (["rows.txt"], "CL-E206", 2),
        (["rows.csv", "-o", "out.xls"], "CL-E206", 2),
        (["rows.csv", "--host", "http://127.0.0.1:1"], "CL-E605", 6),
    ],
)
def test_what_is_wrong_is_said_with_its_code(churn: Cloche, words: list[str], code: str, exit_code: int) -> None:
    result = churn("predict", "churn", *words)
    assert (result.code, result.out) == (exit_code, "")
    assert f"error[{code}]" in result.err


def test_bad_rows_are_named_or_set_aside(churn: Cloche, tmp_path: Path) -> None:
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    lines[17] = "41,many,pro,16"
    (tmp_path / "bad.csv").write_text("\n".join(lines))
    refused = churn("predict", "churn", "bad.csv", "-o", "out.csv")
    assert refused.code == 2
    assert "row 17: `visits` is 'many'" in refused.err
    assert not (tmp_path / "out.csv").exists()
    done = churn("predict", "churn", "bad.csv", "-o", "out.csv", "--rejects", "rejects.csv", "--json")
    assert done.code == 0
    run = done.json
    assert (run["kind"], run["rows"], run["rejected"]) == ("PredictionRun", 200, 1)
    assert pd.read_csv(tmp_path / "rejects.csv").to_dict("records") == [
        {"age": 41, "visits": "many", "plan": "pro", "id": 16, "row": 17, "problem": "`visits` is 'many'"}
    ]
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 200


def test_an_interruption_leaves_no_half_file(
    churn: Cloche, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sinks.CsvSink, "write", interrupt)
    result = churn("predict", "churn", "rows.csv", "-o", "out.csv")
    assert result.code == 130
    assert "stopped; out.csv is as it was before" in result.err
    assert not [path for path in tmp_path.iterdir() if "out.csv" in path.name]
