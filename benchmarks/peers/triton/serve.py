"""Triton on CPU by nvidia-pytriton: the model in Python, dynamic batching, gRPC and metrics off."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import joblib
import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--model", type=Path, required=True)
options = parser.parse_args()
model = joblib.load(options.model / "model.joblib")


@batch
def predict(x):
    return {"label": model.predict(x).astype(np.int64).reshape(-1, 1)}


if __name__ == "__main__":
    settings = TritonConfig(
        http_address="127.0.0.1", http_port=options.port, allow_grpc=False, allow_metrics=False, log_verbose=0
    )
    # the workspace must be new at each start
    place = tempfile.TemporaryDirectory()
    with place, Triton(config=settings, workspace=f"{place.name}/triton") as triton:
        triton.bind(
            model_name="cancer",
            infer_func=predict,
            inputs=[Tensor(name="x", dtype=np.float64, shape=(30,))],
            outputs=[Tensor(name="label", dtype=np.int64, shape=(1,))],
            config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()
