"""Cloche: `cloche up` with one worker; everything else as it comes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--port", required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--case", help="is packed already")
options = parser.parse_args()

command = str(Path(sys.executable).parent / "cloche")
arguments = ["up", "cancer@champion", "-C", options.model, "--port", options.port, "--workers", "1"]
os.execv(command, [command, *arguments])
