"""BentoML: `bentoml serve` of the service beside this file."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--port", required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--case", default="rows")
parser.add_argument("--batching", action="store_true")
options = parser.parse_args()

os.environ |= {"MODEL": options.model, "CASE": options.case, "BATCHING": "1" if options.batching else ""}
os.environ |= {"BENTOML_HOME": f"{options.model}/bentoml", "BENTOML_DO_NOT_TRACK": "true"}
Path(os.environ["BENTOML_HOME"]).mkdir(exist_ok=True)
os.chdir(Path(__file__).parent)
arguments = ["-m", "bentoml", "serve", "service:BreastCancer", "--host", "127.0.0.1", "--port", options.port]
os.execv(sys.executable, [sys.executable, *arguments])
