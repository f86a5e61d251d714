"""A real `cloche up` of a pipeline with strings, numbers and missing values; environments for foreign clients."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import cloche

TOP = Path(__file__).parents[2]


class Served(NamedTuple):
    """A model that is served, and the same bundle loaded in this process."""

    url: str
    loaded: cloche.Loaded
    rows: pd.DataFrame
    #: What gRPC's clients are told.
    grpc: str = ""


@pytest.fixture(scope="session")
def environment() -> Callable[[str], str]:
    """The interpreter of the environment that requirements/heavy/NAME.txt describes, built at its first use."""

    def build(name: str) -> str:
        command = [sys.executable, str(TOP / "benchmarks" / "environments.py")]
        command.append(str(TOP / "requirements" / "heavy" / f"{name}.txt"))
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return build


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("project")
    model, rows, labels = _pipeline()
    bundle = cloche.pack(model, rows, labels, name="fraud", directory=folder)
    (folder / "cloche.toml").write_text("[serve]\ngrpc = 0\n")
    with serve(folder, "fraud@champion") as url, cloche.load(bundle, directory=folder) as loaded:
        (grpc,) = re.findall(r"^  grpc +(\S+)$", (folder / "log").read_text(), re.MULTILINE)
        yield Served(url, loaded, rows, grpc)


@contextmanager
def serve(folder: Path, reference: str | None, *flags: str) -> Iterator[str]:
    """A real `cloche up` on a free port, of a version or of what cloche.toml describes; its URL."""
    runtime = tempfile.mkdtemp(prefix="heavy-")  # sockets want a short path
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).parent / "cloche"), "up", *filter(None, [reference]), "-C", str(folder)]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--workers", "1", *flags],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"XDG_RUNTIME_DIR": runtime},
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process, log)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(runtime, ignore_errors=True)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)
    raise AssertionError(f"not ready within a minute: {log.read_text()}")


def _pipeline() -> tuple[Pipeline, pd.DataFrame, np.ndarray]:
    """A fitted pipeline and 60 rows it has not seen, some with a missing number, some with a missing string."""
    random = np.random.default_rng(7)
    count = 400
    amount = random.gamma(2.0, 50.0, count)
    visits = random.integers(0, 20, count)
    country = random.choice(["DE", "FR", "Österreich", "日本"], count).astype(object)
    device = random.choice(["phone", "laptop"], count).astype(object)
    labels = np.where(
        amount + 10 * visits + 60 * (country == "FR") + random.normal(0, 20, count) > 200, "yes", "no"
    )
    amount[random.random(count) < 0.1] = np.nan
    country[random.random(count) < 0.1] = None
    frame = pd.DataFrame({"amount": amount, "visits": visits, "country": country, "device": device})
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    unknown = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="unknown"),
        OneHotEncoder(handle_unknown="ignore"),
    )
    model = make_pipeline(
        ColumnTransformer([("numbers", numbers, ["amount", "visits"]), ("words", unknown, ["country", "device"])]),
        LogisticRegression(),
    )
    model.fit(frame[60:], labels[60:])
    return model, frame[:60].reset_index(drop=True), labels[:60]
