"""The model in an endpoint of one's own, the plain way: `uvicorn loaded:app`.

`cloche.load` gives what scikit-learn would: an object with `predict`. Each request is a call of its own, on one of
FastAPI's threads.
"""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel

import cloche

model = cloche.load("sentiment@champion")
app = FastAPI(title="Film reviews")


class Review(BaseModel):
    text: str


class Feeling(BaseModel):
    label: str
    score: float


@app.post("/classify")
def classify(review: Review) -> Feeling:
    answer = model.run([{"text": review.text}])
    return Feeling(label=answer["label"][0], score=answer["probabilities"][0].max())
