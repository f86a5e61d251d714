"""The BentoML service: one worker, metrics and access log off; with adaptive batching when BATCHING is set."""

from __future__ import annotations

import os
from pathlib import Path

import bentoml
import joblib
import numpy as np

BATCHING = bool(os.environ.get("BATCHING"))


@bentoml.service(
    workers=1,
    threads=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    traffic={"timeout": 30},
)
class BreastCancer:
    def __init__(self) -> None:
        self.model = joblib.load(Path(os.environ["MODEL"]) / "model.joblib")

    @bentoml.api(batchable=BATCHING, max_batch_size=64, max_latency_ms=1000)
    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.model.predict(x)
