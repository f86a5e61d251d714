"""The field: each server of the benchmark, how it is asked in its fastest documented form, and understood."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

PEERS = Path(__file__).resolve().parent / "peers"
#: What one request asks about: a list of numbers, an image as an array, a text.
Row = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Server:
    """A Server is one line of the table."""

    name: str
    family: str  #: "peer", "triton", "limit", "hand" or "cloche": what the ratios tell apart
    folder: str  #: under peers/
    package: str  #: the distribution whose version stands in the table
    path: str
    body: Callable[[Row], Any]  #: JSON to be, or bytes and the headers that go with them
    label: Callable[[Any], Any]  #: of an answer; for the echo, the whole answer
    arguments: tuple[str, ...] = ()
    python: str | None = None  #: the interpreter it needs; None for the one that runs the benchmark
    spare_port: bool = False
    own: bool = False  #: runs in Cloche's own environment

    @property
    def lock(self) -> Path:
        return PEERS / self.folder / "requirements.txt"

    def request(self, row: Row) -> tuple[bytes, dict[str, str]]:
        """The bytes that ask about `row`, and their headers."""
        body = self.body(row)
        return body if isinstance(body, tuple) else (json.dumps(body).encode(), {})


def _tensor(datatype: str) -> Callable[[Row], Any]:
    return lambda row: {"inputs": [{"name": "x", "shape": [1, len(row)], "datatype": datatype, "data": row}]}


def first_output(answer: Any) -> Any:
    return answer["outputs"][0]["data"][0]


_FASTAPI: dict[str, Any] = {
    "family": "peer",
    "folder": "fastapi",
    "package": "fastapi",
    "path": "/predict",
    "body": lambda row: {"x": row},
    "label": lambda answer: answer["label"],
}
_BENTOML: dict[str, Any] = {
    "family": "peer",
    "folder": "bentoml",
    "package": "bentoml",
    "path": "/predict",
    "body": lambda row: {"x": [row]},
    "label": lambda answer: answer[0],
}
_LITSERVE: dict[str, Any] = {**_FASTAPI, "folder": "litserve", "package": "litserve"}
_MLSERVER: dict[str, Any] = {
    "family": "peer",
    "folder": "mlserver",
    "package": "mlserver",
    "path": "/v2/models/cancer/infer",
    "body": _tensor("FP64"),
    "label": first_output,
    "spare_port": True,
}

FIELD = (
    Server(name="FastAPI + scikit-learn", **_FASTAPI),
    Server(name="FastAPI + scikit-learn, in threads", arguments=("--threads",), **_FASTAPI),
    Server(name="BentoML", **_BENTOML),
    Server(name="BentoML, batching", arguments=("--batching",), **_BENTOML),
    Server(name="LitServe", **_LITSERVE),
    Server(name="LitServe, batching", arguments=("--batching",), **_LITSERVE),
    Server(name="MLServer", **_MLSERVER),
    Server(name="MLServer, batching", arguments=("--batching",), **_MLSERVER),
    Server(
        name="MLflow models serve",
        family="peer",
        folder="mlflow",
        package="mlflow",
        path="/invocations",
        body=lambda row: {"inputs": [row]},
        label=lambda answer: answer["predictions"][0],
    ),
    Server(
        name="KServe's Python server",
        family="peer",
        folder="kserve",
        package="kserve",
        path="/v1/models/cancer:predict",
        body=lambda row: {"instances": [row]},
        label=lambda answer: answer["predictions"][0],
    ),
    Server(
        name="Triton on CPU, dynamic batching",
        family="triton",
        folder="triton",
        package="nvidia-pytriton",
        path="/v2/models/cancer/infer",
        body=_tensor("FP64"),
        label=first_output,
        python="/usr/bin/python3.11",
    ),
    Server(
        name="limit: uvicorn echoing the same bytes",
        family="limit",
        folder="echo",
        package="uvicorn",
        path="/predict/cancer",
        body=lambda row: {"x": row},
        label=lambda answer: answer,
        own=True,
    ),
    Server(
        name="Cloche",
        family="cloche",
        folder="cloche",
        package="cloche",
        path="/predict/cancer",
        body=lambda row: {"x": row},
        label=lambda answer: answer["prediction"]["label"],
        own=True,
    ),
)
