"""KServe's Python server: one model class, one worker, gRPC and access log off."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import models


class BreastCancer(Model):
    def __init__(self, case: str, folder: Path) -> None:
        super().__init__("cancer")
        self.case, self.folder = case, folder
        self.load()

    def load(self) -> bool:
        self.model = models.load(self.case, self.folder)
        self.ready = True
        return self.ready

    async def predict(self, payload, headers=None, response_headers=None):
        if not isinstance(payload, InferRequest):
            return {"predictions": self.model(payload["instances"])}
        labels = self.model(payload.inputs[0].as_numpy())
        output = InferOutput(name="label", shape=[len(labels)], datatype="INT64", data=labels)
        return InferResponse(response_id=payload.id or "1", model_name=self.name, infer_outputs=[output])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--case", default="rows")
    options = parser.parse_args()
    server = ModelServer(http_port=options.port, workers=1, enable_grpc=False, access_log_format=None)
    server.start([BreastCancer(options.case, options.model)])
