"""Asks by MLflow's ScoringServerClient: columns as JSON on standard input, predictions on standard output."""

from __future__ import annotations

import json
import sys
from urllib.parse import urlsplit

import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient


def main() -> None:
    task = json.load(sys.stdin)
    address = urlsplit(task["url"])
    client = ScoringServerClient(address.hostname, address.port)
    client.wait_server_ready(timeout=10)
    frame = pd.DataFrame(task["columns"])
    answers = {
        "frame": client.invoke(frame).get_predictions()[0].tolist(),
        "whole": client.invoke(frame.dropna()).get_predictions("ndarray").tolist(),
        "version": client.get_version(),
    }
    try:
        client.invoke(frame.drop(columns=[frame.columns[0]]))
    except Exception as error:  # noqa: BLE001 - the client raises nothing narrower
        answers["refused"] = str(error)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
