"""The way of a bundle: loaded, exported, imported elsewhere, served; the answers are the original's everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tests.journeys.serving import Serving, up

import cloche
from cloche.app.archives import export_bundle, import_bundle
from cloche.app.project import open_project
from cloche.core.signature import NUMPY_TYPES, Columns

_NAMES = {dtype: name for name, dtype in NUMPY_TYPES.items()}


def check_journey(bundle: cloche.Bundle, folder: Path, rows: Columns, wanted: np.ndarray) -> None:
    """The first output is `wanted`, from the bundle, from its archive in another project, and over HTTP."""
    with cloche.load(bundle, directory=folder) as loaded:
        near(next(iter(loaded.run(rows).values())), wanted)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    with open_project(folder) as project, open_project(elsewhere) as other:
        file = export_bundle(project, str(bundle.reference), folder / "out.cloche")
        other.trust.add(bundle.signer, name="who packed it")
        imported = import_bundle(other, file)
        assert imported.digest == bundle.digest
    with up(elsewhere, str(imported.reference), "--workers", "1") as serving:
        if all(column.dtype != object for column in rows.values()):
            near(ask_binary(serving, bundle.name, rows), wanted)
        near(ask_json(serving, bundle.name, rows), wanted[:2])


def near(found: np.ndarray, wanted: np.ndarray) -> None:
    if wanted.dtype.kind in "OU":
        assert found.tolist() == wanted.tolist()
    else:
        np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-6)


def ask_binary(serving: Serving, name: str, rows: Columns) -> np.ndarray:
    """The first output, by binary tensors both ways."""
    parts = {key: np.ascontiguousarray(column).tobytes() for key, column in rows.items()}
    inputs = [
        {
            "name": key,
            "shape": list(column.shape),
            "datatype": _NAMES[column.dtype],
            "parameters": {"binary_data_size": len(parts[key])},
        }
        for key, column in rows.items()
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    answer = serving.ask(
        f"/v2/models/{name}/infer",
        head + b"".join(parts.values()),
        headers={"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))},
    )
    assert answer.status == 200, answer.body[:500]
    length = int(answer.headers["inference-header-content-length"])
    first = json.loads(answer.body[:length])["outputs"][0]
    size = first["parameters"]["binary_data_size"]
    data = np.frombuffer(answer.body[length : length + size], NUMPY_TYPES[first["datatype"]])
    return data.reshape(first["shape"])


def ask_json(serving: Serving, name: str, rows: Columns) -> np.ndarray:
    """The first output of the first two rows, by plain rows of JSON."""
    body = {"rows": [{key: column[row : row + 1].tolist()[0] for key, column in rows.items()} for row in range(2)]}
    answer = serving.ask(f"/predict/{name}", body)
    assert answer.status == 200, answer.body[:500]
    return np.array([next(iter(each.values())) for each in answer.json()["predictions"]])
