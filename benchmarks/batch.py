"""The benchmark of batch runs: a million rows of 30 numbers through gradient boosting, into three kinds of sink.

Each run is beside two others: its bound, which is the processor time of reading, of inference and of writing, each
alone, over the number of cores; and what one writes by hand, pandas, scikit-learn and `to_sql`. Rounds are
interleaved, the table shows medians; memory is the most that the process held. Checkpoints are included.

    python benchmarks/batch.py                 # about five minutes
    python benchmarks/batch.py --rows 100000 --rounds 1
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[1]
COLUMNS = 30
TRAINED_ON = 5_000
SINKS = ("parquet", "sqlite", "postgresql")
NAMES = {"parquet": "Parquet", "sqlite": "SQLite", "postgresql": "PostgreSQL"}
#: Times the bound, and times faster than by hand.
TARGETS = {"parquet": (1.5, 2.0), "sqlite": (1.5, 1.5), "postgresql": (1.5, 2.0)}
MEMORY_MIB = 300


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--chunk", type=int, default=10_000)
    options.add_argument("--sink", choices=SINKS, action="append")
    options.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.alone:
        what, kind, folder, sink = asked.alone
        print(json.dumps(ALONE[what](kind, Path(folder), sink, asked.chunk)))
        return 0
    sys.path.insert(0, str(TOP))
    from tests.postgresql import postgresql_server

    folder = Path(tempfile.mkdtemp(prefix="bench-batch-"))
    try:
        _prepare(folder, asked.rows)
        with postgresql_server() as server:
            return _report(asked, _measure(asked, folder, server.new_database))
    finally:
        shutil.rmtree(folder)


def _prepare(folder: Path, rows: int) -> None:
    """A model, as scikit-learn's file and as a bundle, and the rows."""
    import joblib
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.ensemble import GradientBoostingClassifier

    import cloche

    generator = np.random.default_rng(0)
    names = [f"f{number}" for number in range(COLUMNS)]
    with pq.ParquetWriter(
        folder / "rows.parquet", pa.schema([("id", pa.int64()), *((n, pa.float64()) for n in names)])
    ) as writer:
        for start in range(0, rows, 100_000):
            count = min(100_000, rows - start)
            drawn = generator.standard_normal((COLUMNS, count))
            writer.write_table(
                pa.table({"id": np.arange(start, start + count), **dict(zip(names, drawn, strict=True))})
            )
    import pandas as pd

    known = pd.DataFrame(generator.standard_normal((2 * TRAINED_ON, COLUMNS)), columns=names)
    label = np.where(known["f0"] * known["f1"] + known["f2"] > 0, "yes", "no")
    model = GradientBoostingClassifier(random_state=0).fit(known[:TRAINED_ON], label[:TRAINED_ON])
    joblib.dump(model, folder / "model.joblib")
    os.environ["CLOCHE_DATA"] = str(folder / "data")
    cloche.pack(model, known[TRAINED_ON:], label[TRAINED_ON:], name="bench")


def _measure(
    asked: argparse.Namespace, folder: Path, new_database: Callable[[], str]
) -> dict[str, dict[str, list[Any]]]:
    found: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for number in range(asked.rounds):
        for kind in asked.sink or SINKS:
            for what in ALONE:
                if what == "hand" and number and kind == "postgresql":
                    continue  # it takes a minute
                place = folder / f"{what}-{kind}-{number}"
                place.mkdir()
                sink = new_database() if kind == "postgresql" else str(place / f"out.{kind}")
                words = [
                    sys.executable,
                    __file__,
                    "--chunk",
                    str(asked.chunk),
                    "--alone",
                    what,
                    kind,
                    str(folder),
                    sink,
                ]
                done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
                for name, value in json.loads(done.stdout.splitlines()[-1]).items():
                    found[kind][f"{what} {name}"].append(value)
                shutil.rmtree(place)
    return found


def _report(asked: argparse.Namespace, found: dict[str, dict[str, list[Any]]]) -> int:
    cores = len(os.sched_getaffinity(0))
    print(f"{asked.rows:,} rows of {COLUMNS}, chunks of {asked.chunk:,}, {cores} cores, rounds: {asked.rounds}\n")
    print(
        "| Parquet → | read | infer | write | bound s | run s | CPU s | × bound | by hand s | × faster | MiB | |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    misses = 0
    for kind, measured in found.items():
        at = {name: statistics.median(values) for name, values in measured.items()}
        bound = (at["parts read"] + at["parts infer"] + at["parts write"]) / cores
        times, faster = at["run s"] / bound, at["hand s"] / at["run s"]
        most, least = TARGETS[kind]
        met = times <= most and faster >= least and at["run MB"] <= MEMORY_MIB
        misses += not met
        print(
            f"| {NAMES[kind]} | {at['parts read']:.2f} | {at['parts infer']:.2f} | {at['parts write']:.2f} "
            f"| {bound:.2f} | {at['run s']:.2f} | {at['run cpu']:.2f} | {times:.2f} (≤ {most}) "
            f"| {at['hand s']:.2f} | {faster:.1f} (≥ {least}) | {at['run MB']:.0f} | {_word(met)} |"
        )
    return 1 if misses else 0


def _word(met: bool) -> str:
    return "met" if met else "not met"


def alone_run(kind: str, folder: Path, sink: str, chunk: int) -> dict[str, float]:
    """A run as the command makes it."""
    from cloche.app.answering import Here
    from cloche.batch.fingerprint import fingerprint
    from cloche.batch.plan import Plan
    from cloche.batch.run import run_batch

    place = {"sqlite": f"sqlite:///{sink}?table=scores", "postgresql": f"{sink}?table=scores"}.get(kind, sink)
    source = str(folder / "rows.parquet")
    with Here(_loaded(folder)) as model:
        assert isinstance(model, Here)
        began, used = time.monotonic(), time.process_time()
        plan = Plan(
            run="run_0123456789ab", ref="bench:1", digest="", source=source, sink=place, key="id", chunk=chunk,
            fingerprint=fingerprint(source, "id"),
        )  # fmt: skip
        done = run_batch(
            plan, model.signature, model.many, look_up=str, tell=lambda progress: None, is_stopped=lambda: False
        )
        seconds = time.monotonic() - began
    assert done.end == "completed", done
    status = Path("/proc/self/status").read_text()
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return {"s": seconds, "MB": int(peak) / 1024, "cpu": time.process_time() - used}


def alone_parts(kind: str, folder: Path, sink: str, chunk: int) -> dict[str, float]:
    """The processor time of each stage alone, on chunks of the same size."""
    import numpy as np

    with _loaded(folder) as model:
        names = [field.name for field in model.signature.inputs]
        first = next(_batches(folder, chunk))
        wanted = {field.name: field.numpy_type for field in model.signature.inputs}
        columns = {name: first.column(name).to_numpy().astype(wanted[name]) for name in names}
        model.run(columns)
        began = time.process_time()
        rows = sum(batch.num_rows for batch in _batches(folder, chunk))
        read = time.process_time() - began
        began = time.process_time()
        for _ in range(0, rows, chunk):
            outputs = model.run(columns)
        infer = time.process_time() - began
    times = -(-rows // chunk)
    table = {
        "id": np.arange(times * chunk),
        "label": np.tile(outputs["label"], times),
        "probabilities.no": np.tile(outputs["probabilities"][:, 0], times),
        "probabilities.yes": np.tile(outputs["probabilities"][:, 1], times),
        "model_version": ["bench:1"] * times * chunk,
        "run_id": ["run_0123456789ab"] * times * chunk,
    }
    return {"read": read, "infer": infer, "write": _WRITE[kind](table, sink)}


def _write_parquet(table: dict[str, Any], sink: str) -> float:
    import pyarrow as pa
    import pyarrow.parquet as pq

    began = time.process_time()
    pq.write_table(pa.table(table), sink)
    return time.process_time() - began


def _write_sqlite(table: dict[str, Any], sink: str) -> float:
    connection = sqlite3.connect(sink)
    began = time.process_time()
    connection.execute(
        "CREATE TABLE scores (id INTEGER PRIMARY KEY, label TEXT, a REAL, b REAL, model_version TEXT, run_id TEXT)"
    )
    rows = zip(*(each if isinstance(each, list) else each.tolist() for each in table.values()), strict=True)
    connection.executemany("INSERT INTO scores VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.commit()
    return time.process_time() - began


def _write_postgresql(table: dict[str, Any], sink: str) -> float:
    """With the processor time of the server's process, which works on the same cores."""
    import pyarrow as pa
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(sink) as connection, connection.cursor() as cursor:
        cursor.execute(
            'CREATE TABLE scores (id bigint PRIMARY KEY, label text, "probabilities.no" real, '
            '"probabilities.yes" real, model_version text, run_id text)'
        )
        cursor.execute("SELECT pg_backend_pid()")
        [[pid]] = cursor.fetchall()
        began = time.process_time() + _server_time(pid)
        cursor.adbc_ingest("scores", pa.table(table), mode="append")
        connection.commit()
        return time.process_time() + _server_time(pid) - began


def _server_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


_WRITE = {"parquet": _write_parquet, "sqlite": _write_sqlite, "postgresql": _write_postgresql}


def alone_hand(kind: str, folder: Path, sink: str, chunk: int) -> dict[str, float]:
    """What one writes by hand."""
    import joblib
    import pandas as pd
    from sqlalchemy import create_engine

    model = joblib.load(folder / "model.joblib")
    began = time.monotonic()
    rows = pd.read_parquet(folder / "rows.parquet")
    inputs = rows.drop(columns="id")
    scores = pd.DataFrame(model.predict_proba(inputs), columns=["probabilities.no", "probabilities.yes"])
    scores.insert(0, "id", rows["id"])
    scores.insert(1, "label", model.classes_[(scores["probabilities.yes"] > 0.5).astype(int)])
    scores["model_version"], scores["run_id"] = "bench:1", "run_0123456789ab"
    scores["predicted_at"] = pd.Timestamp.now("UTC")
    if kind == "parquet":
        scores.to_parquet(sink, index=False)
    else:
        url = (
            sink.replace("postgresql://", "postgresql+psycopg://") if kind == "postgresql" else f"sqlite:///{sink}"
        )
        scores.to_sql("scores", create_engine(url), index=False, chunksize=chunk)
    return {"s": time.monotonic() - began}


ALONE = {"parts": alone_parts, "run": alone_run, "hand": alone_hand}


def _loaded(folder: Path) -> Any:
    import cloche

    os.environ["CLOCHE_DATA"] = str(folder / "data")
    return cloche.load("bench:1")


def _batches(folder: Path, chunk: int) -> Iterator[Any]:
    import pyarrow.parquet as pq

    return pq.ParquetFile(folder / "rows.parquet", buffer_size=1 << 18).iter_batches(chunk, use_threads=False)


if __name__ == "__main__":
    sys.exit(main())
