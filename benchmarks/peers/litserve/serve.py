"""LitServe: a LitAPI with one worker and one API server, its fast queue on; with batching where asked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import litserve
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import models


class BreastCancer(litserve.LitAPI):
    def __init__(self, case: str, folder: Path, **settings) -> None:
        super().__init__(**settings)
        self.case, self.folder = case, folder

    def setup(self, device) -> None:
        self.model = models.load(self.case, self.folder)

    def decode_request(self, request):
        return request["x"] if self.case in ("text", "minilm") else np.asarray(request["x"])

    def predict(self, x):
        return self.model(x) if self.max_batch_size > 1 else self.model([x])[0]

    def encode_response(self, output):
        return {"label": output}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--case", default="rows")
    parser.add_argument("--batching", action="store_true")
    options = parser.parse_args()
    settings = {"max_batch_size": 64, "batch_timeout": 0.0} if options.batching else {}
    server = litserve.LitServer(
        BreastCancer(options.case, options.model, **settings),
        accelerator="cpu",
        workers_per_device=1,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=options.port,
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
