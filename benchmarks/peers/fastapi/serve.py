"""FastAPI + scikit-learn as tutorials have it: a pydantic body, the model in a global, uvicorn with its extras."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from pydantic import create_model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import models

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--case", default="rows")
parser.add_argument("--threads", action="store_true", help="a plain `def` endpoint, run in the thread pool")
options = parser.parse_args()

INPUT = {"rows": list[float], "image": list[list[list[float]]], "text": str, "minilm": str}
app = FastAPI()
model = models.load(options.case, options.model)
Row = create_model("Row", x=(INPUT[options.case], ...))
Answer = create_model("Answer", label=(list[float] if options.case == "minilm" else int, ...))


def predict(row: Row) -> Answer:
    return Answer(label=model([row.x])[0])


async def predict_in_loop(row: Row) -> Answer:
    return predict(row)


async def predict_raw(request: Request) -> Answer:
    pixels = np.frombuffer(await request.body(), np.float32)
    return Answer(label=model(pixels.reshape(1, *models.SHAPE))[0])


app.post("/predict")(predict if options.threads else predict_in_loop)
app.post("/raw")(predict_raw)

if __name__ == "__main__":
    uvicorn.run(app, port=options.port, access_log=False, log_level="warning")
