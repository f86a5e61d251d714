"""The BentoML service: one worker, metrics and access log off; with adaptive batching when BATCHING is set."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bentoml
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import models

BATCHING = bool(os.environ.get("BATCHING"))
CASE = os.environ["CASE"]
Input = list[str] if CASE in ("text", "minilm") else np.ndarray


@bentoml.service(
    workers=1,
    threads=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    traffic={"timeout": 30},
)
class BreastCancer:
    def __init__(self) -> None:
        self.model = models.load(CASE, Path(os.environ["MODEL"]))

    @bentoml.api(batchable=BATCHING, max_batch_size=64, max_latency_ms=1000)
    def predict(self, x: Input) -> np.ndarray:
        return np.asarray(self.model(x))
