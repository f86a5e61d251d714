"""FastAPI + scikit-learn as tutorials have it: a pydantic body, the model in a global, uvicorn with its extras."""

from __future__ import annotations

import argparse
from pathlib import Path

import joblib
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--threads", action="store_true", help="a plain `def` endpoint, run in the thread pool")
options = parser.parse_args()

app = FastAPI()
model = joblib.load(options.model / "model.joblib")


class Row(BaseModel):
    x: list[float]


class Answer(BaseModel):
    label: int


def predict(row: Row) -> Answer:
    return Answer(label=int(model.predict(np.array([row.x]))[0]))


async def predict_in_loop(row: Row) -> Answer:
    return predict(row)


app.post("/predict")(predict if options.threads else predict_in_loop)

if __name__ == "__main__":
    uvicorn.run(app, port=options.port, access_log=False, log_level="warning")
