"""MLServer: its scikit-learn runtime in the serving process, gzip and metrics off; adaptive batching if asked."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--spare-port", type=int, required=True, help="gRPC can't be switched off")
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--case", default="rows")
parser.add_argument("--batching", action="store_true")
options = parser.parse_args()

server = {
    "host": "127.0.0.1",
    "http_port": options.port,
    "grpc_port": options.spare_port,
    "metrics_endpoint": None,
    "parallel_workers": 0,
    "debug": False,
    "gzip_enabled": False,
}
model = {
    "name": "cancer",
    "implementation": "mlserver_sklearn.SKLearnModel",
    "parameters": {"uri": str(options.model / "model.joblib"), "version": "1"},
}
if options.case != "rows":
    model |= {"implementation": "runtime.CaseModel", "parameters": {"uri": str(options.model), "version": "1"}}
    here = Path(__file__).resolve().parent
    os.environ |= {"CASE": options.case, "PYTHONPATH": f"{here}:{here.parent}"}
if options.batching:
    model |= {"max_batch_size": 64, "max_batch_time": 0.001}
folder = options.model / ("batching" if options.batching else "plain")
folder.mkdir(exist_ok=True)
(folder / "settings.json").write_text(json.dumps(server))
(folder / "model-settings.json").write_text(json.dumps(model))
start = Path(sys.executable).parent / "mlserver"
os.execv(sys.executable, [sys.executable, str(start), "start", str(folder)])
