"""MLflow: `mlflow models serve` in this environment, with one worker."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--port", required=True)
parser.add_argument("--model", required=True)
options = parser.parse_args()

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # it starts `uvicorn` by name
arguments = ["-m", "mlflow", "models", "serve", "-m", f"{options.model}/mlflow", "--env-manager", "local"]
arguments += ["--host", "127.0.0.1", "--port", options.port, "--workers", "1"]
os.execv(sys.executable, [sys.executable, *arguments])
