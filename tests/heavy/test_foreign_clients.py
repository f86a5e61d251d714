"""Clients that nobody here wrote get the answers that the bundle gives in this process."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

if TYPE_CHECKING:
    from tests.heavy.conftest import Served

pytestmark = pytest.mark.heavy

CLIENTS = Path(__file__).parent / "clients"
DATATYPES = {"amount": "FP64", "visits": "INT64", "country": "BYTES", "device": "BYTES"}


def ask(python: str, script: str, served: Served, rows: pd.DataFrame, *, binary: bool) -> dict[str, Any]:
    """What the client says; a missing string travels as "", since neither client can send none."""
    columns = {
        name: rows[name].map(lambda value: "" if value is None else value).tolist()
        if DATATYPES[name] == "BYTES"
        else rows[name].tolist()
        for name in rows
    }
    task = {
        "url": served.url,
        "model": "fraud",
        "binary": binary,
        "columns": columns,
        "typed": {name: [DATATYPES[name], values] for name, values in columns.items()},
        "outputs": ["label", "probabilities"],
    }
    done = subprocess.run(
        [python, str(CLIENTS / script)],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def assert_same(answer: dict[str, Any], served: Served, rows: pd.DataFrame) -> None:
    assert answer["live"] is True
    assert answer["outputs"]["label"] == served.loaded.predict(rows).tolist()
    wanted = served.loaded.predict_proba(rows)
    assert np.shape(answer["outputs"]["probabilities"]) == wanted.shape
    np.testing.assert_allclose(answer["outputs"]["probabilities"], wanted, rtol=1e-6)


def complete(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose numbers are all there: these clients' JSON has no way to say that one is missing."""
    kept = rows[rows["amount"].notna()]
    assert 0 < len(kept) < len(rows)
    return kept


def test_tritonclient_gets_the_same_answers_by_binary_tensors(
    served: Served, environment: Callable[[str], str]
) -> None:
    assert any(math.isnan(value) for value in served.rows["amount"])
    assert any(value is None for value in served.rows["country"])
    answer = ask(environment("tritonclient"), "triton.py", served, served.rows, binary=True)
    assert_same(answer, served, served.rows)
    assert answer["id"] == "from-triton"


def test_tritonclient_gets_the_same_answers_by_json(served: Served, environment: Callable[[str], str]) -> None:
    rows = complete(served.rows)
    assert_same(ask(environment("tritonclient"), "triton.py", served, rows, binary=False), served, rows)


def test_kserves_client_gets_the_same_answers_by_json(served: Served, environment: Callable[[str], str]) -> None:
    rows = complete(served.rows)
    answer = ask(environment("kserve"), "kserve_rest.py", served, rows, binary=False)
    assert_same(answer, served, rows)
    assert answer["id"] == "from-kserve"


def test_kserves_client_gets_the_same_answers_by_binary_tensors(
    served: Served, environment: Callable[[str], str]
) -> None:
    answer = ask(environment("kserve"), "kserve_rest.py", served, served.rows, binary=True)
    assert_same(answer, served, served.rows)


def test_schemathesis_finds_nothing(served: Served, environment: Callable[[str], str], tmp_path: Path) -> None:
    program = Path(environment("schemathesis")).parent / "schemathesis"
    command = [str(program), "run", f"{served.url}/openapi.json", "--checks", "all", "--seed", "1"]
    command += ["--max-examples", "60", "--phases", "examples,coverage,fuzzing", "--no-color"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "No issues found" in done.stdout
