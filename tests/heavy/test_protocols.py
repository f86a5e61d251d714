"""Clients and documented curl calls of TF Serving, KServe v1, MLflow and OpenAI get the bundle's answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from tests.heavy.conftest import serve

import cloche

if TYPE_CHECKING:
    from tests.heavy.conftest import Served

pytestmark = pytest.mark.heavy

CLIENTS = Path(__file__).parent / "clients"
Environment = Callable[[str], str]


def as_json(rows: pd.DataFrame) -> dict[str, list[Any]]:
    """Columns as JSON has them, a gap as null."""
    return {name: [None if pd.isna(one) else one for one in rows[name].tolist()] for name in rows}


def say(python: str, script: str, task: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [python, str(CLIENTS / script)], input=json.dumps(task), capture_output=True, text=True, timeout=180,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def curl(url: str, *words: str, body: str) -> Any:
    done = subprocess.run(
        ["curl", "--silent", "--fail-with-body", *words, "--data-binary", "@-", url],
        input=body, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_mlflows_client_gets_the_labels(served: Served, environment: Environment) -> None:
    task = {"url": served.url, "columns": as_json(served.rows)}
    answers = say(environment("mlflow"), "mlflow_scoring.py", task)
    assert answers["frame"] == served.loaded.predict(served.rows).tolist()
    assert answers["whole"] == served.loaded.predict(served.rows.dropna()).tolist()
    assert answers["version"]
    assert "INVALID_PARAMETER_VALUE" in answers["refused"]
    assert "`amount` is missing" in answers["refused"]


@pytest.mark.parametrize("form", ["split", "records", "inputs", "csv"])
def test_mlflows_documented_calls_get_the_labels(served: Served, form: str) -> None:
    rows = served.rows
    bodies = {
        "split": lambda: json.dumps({"dataframe_split": json.loads(rows.to_json(orient="split"))}),
        "records": lambda: json.dumps({"dataframe_records": json.loads(rows.to_json(orient="records"))}),
        "inputs": lambda: json.dumps({"inputs": as_json(rows)}),
        "csv": lambda: rows.to_csv(index=False),
    }
    kind = "text/csv" if form == "csv" else "application/json"
    answer = curl(f"{served.url}/invocations", "-H", f"Content-Type: {kind}", body=bodies[form]())
    assert answer == {"predictions": served.loaded.predict(rows).tolist()}


@pytest.mark.parametrize("place", ["", "/versions/1", "/labels/champion"])
@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_tf_servings_documented_calls_get_the_answers(served: Served, place: str, form: str) -> None:
    columns = as_json(served.rows)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    body = json.dumps({"instances": rows} if form == "instances" else {"inputs": columns})
    answer = curl(f"{served.url}/v1/models/fraud{place}:predict", body=body)
    outputs = answer.get("outputs")
    if form == "instances":
        predictions = answer["predictions"]
        outputs = {name: [row[name] for row in predictions] for name in predictions[0]}
    assert outputs["label"] == served.loaded.predict(served.rows).tolist()
    wanted = served.loaded.predict_proba(served.rows)
    np.testing.assert_allclose(outputs["probabilities"], wanted, rtol=1e-6)


def test_kserves_client_gets_the_answers_by_its_first_protocol(served: Served, environment: Environment) -> None:
    columns = as_json(served.rows)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    answers = say(environment("kserve"), "kserve_v1.py", {"url": served.url, "model": "fraud", "rows": rows})
    assert answers["ready"] is True
    labels = [row["label"] for row in answers["answer"]["predictions"]]
    assert labels == served.loaded.predict(served.rows).tolist()


ENCODER = """
import numpy as np


class Encoder:
    def load(self) -> None: ...

    def predict(self, text: list[str]):
        rows = [[len(one), one.count("a") / 7, hash(one) % 1 - 1e-7] for one in text]
        return {"embedding": np.array(rows, np.float32)}
"""


def test_openais_client_gets_the_vectors(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "encoder.py").write_text(ENCODER)
    texts = ["a bad day", "", "naïve 日本"]
    pack = [str(Path(sys.executable).parent / "cloche"), "pack", "encoder.py:Encoder", "--name", "encoder"]
    subprocess.run(pack, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    with cloche.load("encoder", directory=tmp_path, allow_code=True) as loaded:
        wanted = loaded.run({"text": texts})["embedding"]
    with serve(tmp_path, "encoder", "--allow-code") as url:
        answers = say(
            environment("mlflow"), "openai_embeddings.py", {"url": url, "model": "encoder", "texts": texts}
        )
    assert answers["models"] == ["encoder"]
    for way in ("default", "float"):
        assert np.array_equal(np.array(answers[way], np.float32), wanted), way
    assert "'gpt' is not live" in answers["refused"]
