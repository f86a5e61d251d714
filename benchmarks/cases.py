"""The cases beside the table of rows: what is asked, which answer is right, and who is asked in which form."""

from __future__ import annotations

import dataclasses
import json
import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from environments import TOP
from field import FIELD, PEERS, Row, Server, first_output

sys.path.insert(0, str(PEERS))
import models

#: The encoder's folder with an ONNX file, made once: it takes PyTorch.
ENCODER = TOP / ".bench" / "models" / "minilm"

_BINARY = {"Content-Type": "application/octet-stream"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A Case is one kind of model under load."""

    name: str
    #: Which of peers/models.py is served.
    model: str
    title: str
    about: str
    field: tuple[Server, ...]
    #: Some rows that the model has not seen, and its answers to them.
    examples: Callable[[], tuple[list[Row], list[Any]]]
    same: Callable[[Any, Any], bool] = operator.eq
    closed: tuple[int, ...] = (1, 16)
    open: tuple[int, ...] = ()
    #: The server whose line is Cloche's -> how often the best of a family at 16 connections it must be.
    targets: tuple[tuple[str, float], ...] = ()
    #: How much more Cloche must answer at 16 connections than at one.
    coalescing: float | None = None


def _fields(
    case: str,
    inner: Callable[[Row], Any],
    tensor: Callable[[Row], Any],
    first: Callable[[Any], Any] = first_output,
) -> list[Server]:
    """The peers, asked in JSON: a row by `inner` as plain JSON, by `tensor` in the Open Inference Protocol."""
    arguments = ("--case", case)
    answer = operator.itemgetter("label")
    common: dict[str, Any] = {"family": "peer", "path": "/predict", "arguments": arguments}
    plain: dict[str, Any] = {**common, "body": lambda row: {"x": inner(row)}, "label": answer}
    listed: dict[str, Any] = {
        **common,
        "folder": "bentoml",
        "package": "bentoml",
        "body": lambda row: {"x": [inner(row)]},
        "label": lambda found: found[0],
    }
    batching = {"arguments": (*arguments, "--batching")}
    litserve = {**plain, "folder": "litserve", "package": "litserve"}
    mlserver: dict[str, Any] = {
        **common,
        "folder": "mlserver",
        "package": "mlserver",
        "path": "/v2/models/cancer/infer",
        "body": lambda row: {"inputs": [tensor(row)]},
        "label": first,
        "spare_port": True,
    }
    return [
        Server(name="FastAPI", folder="fastapi", package="fastapi", **plain),
        Server(name="BentoML", **listed),
        Server(name="BentoML, batching", **{**listed, **batching}),
        Server(name="LitServe", **litserve),
        Server(name="LitServe, batching", **{**litserve, **batching}),
        Server(name="MLServer", **mlserver),
        Server(name="MLServer, batching", **{**mlserver, **batching}),
        Server(
            name="KServe's Python server",
            folder="kserve",
            package="kserve",
            **{**common, "path": "/v1/models/cancer:predict"},
            body=lambda row: {"instances": [inner(row)]},
            label=lambda found: found["predictions"][0],
        ),
    ]


def _cloche(case: str, name: str, path: str, body: Callable[[Row], Any], label: Callable[[Any], Any]) -> Server:
    common: dict[str, Any] = {"family": "cloche", "folder": "cloche", "package": "cloche", "own": True}
    return Server(name=name, path=path, body=body, label=label, arguments=("--case", case), **common)


def _image_tensor(row: Row) -> dict[str, Any]:
    return {"name": "pixels", "shape": [1, *row.shape], "datatype": "FP32"}


def _image_binary(row: Row) -> tuple[bytes, dict[str, str]]:
    described = {**_image_tensor(row), "parameters": {"binary_data_size": row.nbytes}}
    head = json.dumps({"inputs": [described]}).encode()
    return head + row.tobytes(), {**_BINARY, "Inference-Header-Content-Length": str(len(head))}


IMAGE = Case(
    name="image",
    model="image",
    title="A small CNN on images",
    about="Two convolutions on [1, 3, 224, 224] float32, run by ONNX Runtime with one thread in every server:"
    " 600 kB in binary, 3 MB in JSON. “By hand” is an endpoint that takes raw bytes of a shape that it knows.",
    field=(
        *_fields(
            "image",
            lambda row: row.tolist(),
            lambda row: {**_image_tensor(row), "data": row.ravel().tolist()},
        ),
        Server(
            name="KServe's Python server, binary",
            family="peer",
            folder="kserve",
            package="kserve",
            path="/v2/models/cancer/infer",
            body=_image_binary,
            label=first_output,
            arguments=("--case", "image"),
        ),
        Server(
            name="by hand: FastAPI, raw bytes",
            family="hand",
            folder="fastapi",
            package="fastapi",
            path="/raw",
            body=lambda row: (row.tobytes(), _BINARY),
            label=operator.itemgetter("label"),
            arguments=("--case", "image"),
        ),
        _cloche(
            "image",
            "Cloche",
            "/predict/cancer",
            lambda row: {"pixels": row.tolist()},
            lambda found: int(np.argmax(found["prediction"]["scores"])),
        ),
        _cloche(
            "image",
            "Cloche, binary",
            "/v2/models/cancer/infer",
            _image_binary,
            lambda found: int(np.argmax(found["outputs"][0]["data"])),
        ),
    ),
    examples=models.image_examples,
    targets=(("Cloche", 1.0), ("Cloche, binary", 10.0)),
)

TEXT = Case(
    name="text",
    model="text",
    title="TF-IDF and logistic regression on texts",
    about="A scikit-learn pipeline on raw strings, fitted on the descriptions of scikit-learn's own data sets, one"
    " text of about 200 characters a request.",
    field=(
        *_fields(
            "text",
            lambda row: row,
            lambda row: {"name": "x", "shape": [1], "datatype": "BYTES", "data": [row]},
        ),
        _cloche(
            "text",
            "Cloche",
            "/predict/cancer",
            lambda row: {"text": row},
            lambda found: found["prediction"]["label"],
        ),
    ),
    examples=models.text_examples,
    closed=(1, 16, 64),
    open=(200, 1000),
    targets=(("Cloche", 8.0),),
)


def _encoder(name: str, title: str, words: int, about: str, coalescing: float = 1.5) -> Case:
    return Case(
        name=name,
        model="minilm",
        title=title,
        about=f"all-MiniLM-L6-v2 in float32, run by ONNX Runtime with one thread in every server. {about}",
        field=(
            *_fields(
                "minilm",
                lambda row: row,
                lambda row: {"name": "x", "shape": [1], "datatype": "BYTES", "data": [row]},
                first=lambda found: found["outputs"][0]["data"],
            ),
            _cloche(
                "minilm",
                "Cloche",
                "/predict/cancer",
                lambda row: {"text": row},
                lambda found: found["prediction"]["embedding"],
            ),
        ),
        examples=lambda: models.encoder_examples(ENCODER.parent, words),
        same=lambda found, wanted: np.allclose(found, wanted, atol=1e-3),
        targets=(("Cloche", 1.0),),
        coalescing=coalescing,
    )


QUERIES = _encoder(
    "minilm",
    "MiniLM embeddings of search queries",
    5,
    "One query of five words (8 tokens) a request. Joined requests read the encoder's weights once.",
)

SENTENCES = _encoder(
    "minilm-sentences",
    "MiniLM embeddings of sentences",
    11,
    "One sentence of 11 words (15 to 18 tokens) a request.",
)

LONG_SENTENCES = _encoder(
    "minilm-long",
    "MiniLM embeddings of longer sentences",
    14,
    "One sentence of 14 words (19 to 24 tokens) a request: enough arithmetic to keep a core busy by itself, so"
    " that joining them brings less.",
    coalescing=1.0,
)

ROWS = Case(
    name="rows",
    model="rows",
    title="Rows",
    about="One gradient boosting model (scikit-learn, 100 trees, 30 columns), one row a request, JSON over HTTP.",
    field=FIELD,
    examples=models.row_examples,
    closed=(1, 16, 64),
    open=(200, 1000),
)

#: The first has the table of its own that the page begins with.
CASES = (ROWS, IMAGE, TEXT, QUERIES, SENTENCES, LONG_SENTENCES)
