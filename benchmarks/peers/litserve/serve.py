"""LitServe: a LitAPI with one worker and one API server, its fast queue on; with batching where asked."""

from __future__ import annotations

import argparse
from pathlib import Path

import joblib
import litserve
import numpy as np


class BreastCancer(litserve.LitAPI):
    def __init__(self, folder: Path, **settings) -> None:
        super().__init__(**settings)
        self.folder = folder

    def setup(self, device) -> None:
        self.model = joblib.load(self.folder / "model.joblib")

    def decode_request(self, request):
        return np.asarray(request["x"])

    def predict(self, x):
        return self.model.predict(np.atleast_2d(x))

    def encode_response(self, output):
        return {"label": int(np.ravel(output)[0])}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--batching", action="store_true")
    options = parser.parse_args()
    settings = {"max_batch_size": 64, "batch_timeout": 0.0} if options.batching else {}
    server = litserve.LitServer(
        BreastCancer(options.model, **settings), accelerator="cpu", workers_per_device=1, fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=options.port,
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
