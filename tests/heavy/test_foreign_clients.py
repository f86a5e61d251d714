"""Clients that nobody here wrote get the answers that the bundle gives in this process."""

from __future__ import annotations

import json
import re
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

# That a tensor has as many values as its shape says, and that each input comes once, no JSON Schema can say: a
# body of the protocol that fits the schema may still be refused.
# Nor that columns are of one length, and of a table only its media type is described.
SCHEMATHESIS = 'hooks = "hooks.py"\n' + "".join(
    f"""
[[operations]]
include-path = "{path}"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 413, 415, 422]
"""
    for path in ("/v2/models/fraud/infer", "/v1/models/fraud:predict", "/invocations", "/predict/fraud")
)
HOOKS = """
import schemathesis

schemathesis.serializer.alias(["text/csv", "application/jsonl"], "text/plain")
"""
CLIENTS = Path(__file__).parent / "clients"
DATATYPES = {"amount": "FP64", "visits": "INT64", "country": "BYTES", "device": "BYTES"}


def ask(python: str, script: str, served: Served, rows: pd.DataFrame, *, binary: bool) -> dict[str, Any]:
    """What the client says; a missing string travels as "", since neither client can send none."""
    columns = {
        name: rows[name].fillna("").tolist() if DATATYPES[name] == "BYTES" else rows[name].tolist()
        for name in rows
    }
    task = {
        "url": served.grpc if script.endswith("_grpc.py") else served.url,
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
    assert served.rows["amount"].hasnans
    assert served.rows["country"].hasnans
    answer = ask(environment("tritonclient"), "triton.py", served, served.rows, binary=True)
    assert_same(answer, served, served.rows)
    assert answer["id"] == "from-triton"


def test_tritonclient_gets_the_same_answers_by_json(served: Served, environment: Callable[[str], str]) -> None:
    rows = complete(served.rows)
    assert_same(ask(environment("tritonclient"), "triton.py", served, rows, binary=False), served, rows)


def test_tritonclient_gets_the_same_answers_over_grpc(served: Served, environment: Callable[[str], str]) -> None:
    answer = ask(environment("tritonclient-grpc"), "triton_grpc.py", served, served.rows, binary=True)
    assert_same(answer, served, served.rows)
    assert answer["id"] == "from-triton"
    assert "StatusCode.INVALID_ARGUMENT" in answer["refused"]


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
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    (tmp_path / "hooks.py").write_text(HOOKS)
    program = Path(environment("schemathesis")).parent / "schemathesis"
    command = [str(program), "run", f"{served.url}/openapi.json", "--checks", "all", "--seed", "1"]
    command += [
        "--max-examples",
        "60",
        "--phases",
        "examples,coverage,fuzzing",
        "--no-color",
        "--continue-on-failure",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-40000:] + done.stderr[-2000:]
    counts = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counts is not None and int(counts[1]) == int(counts[2]) > 100, done.stdout[-3000:]
