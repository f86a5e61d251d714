"""The model as a part of a FastAPI app: `uvicorn mounted:app`.

`POST /classify` is the app's own endpoint; its concurrent callers are answered in batches. Below `/models` stands
everything else that Cloche serves: `/models/docs`, `/models/predict/sentiment`, `/models/v2/…`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.requests import Request

import cloche

models = cloche.asgi("sentiment@champion")


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await models.start()
    yield
    await models.stop()


app = FastAPI(title="Film reviews", lifespan=lifespan)
app.mount("/models", models)


class Review(BaseModel):
    text: str


class Feeling(BaseModel):
    label: str
    score: float


@app.post("/classify")
async def classify(review: Review) -> Feeling:
    answer = await models.predict({"text": review.text})
    return Feeling(label=answer["label"], score=answer["probabilities"][answer["label"]])


@app.exception_handler(cloche.BusyError)
async def busy(_: Request, error: cloche.BusyError) -> JSONResponse:
    return JSONResponse({"detail": error.message}, 503, {"Retry-After": f"{error.retry_after_s:.0f}"})
