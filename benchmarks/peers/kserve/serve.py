"""KServe's Python server: one model class, one worker, gRPC and access log off."""

from __future__ import annotations

import argparse
from pathlib import Path

import joblib
import numpy as np
from kserve import Model, ModelServer


class BreastCancer(Model):
    def __init__(self, folder: Path) -> None:
        super().__init__("cancer")
        self.folder = folder
        self.load()

    def load(self) -> bool:
        self.model = joblib.load(self.folder / "model.joblib")
        self.ready = True
        return self.ready

    async def predict(self, payload, headers=None, response_headers=None):
        return {"predictions": self.model.predict(np.asarray(payload["instances"])).tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    options = parser.parse_args()
    server = ModelServer(http_port=options.port, workers=1, enable_grpc=False, access_log_format=None)
    server.start([BreastCancer(options.model)])
