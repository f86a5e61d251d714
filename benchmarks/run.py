"""The benchmark of `make bench`: Cloche beside its peers, in one run on one machine, with the targets met or not.

Each server runs with all its processes on one core, the load generator on another. Rounds are interleaved, so that
whatever else the machine does falls on all of them; the table shows medians. It is written to
docs/reference/benchmarks.md, with what is needed to run it again.

    python benchmarks/run.py                           # everything, about 40 minutes
    python benchmarks/run.py --quick --case image      # one round of one second each, nothing written
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import environments
import load
import report
import request_path
from cases import CASES, ENCODER, Case
from field import PEERS, Row, Server
from servers import Running, ServerFailedError, free_port, started

HEADROOM = 1.25  # an open loop is only asked of a server that reaches this much more in a closed loop
PAGE = environments.TOP / "docs" / "reference" / "benchmarks.md"


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="bench-") as runtime:  # sockets want a short path
        os.environ["XDG_RUNTIME_DIR"] = runtime
        return _run_all(options)


def _run_all(options: argparse.Namespace) -> int:
    work = options.work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": _machine(options),
        "python": f"{platform.python_version()} ({platform.python_build()[1]}, {platform.python_compiler()})",
        "rounds": options.rounds,
        "seconds": options.seconds,
        "servers": [],
        "skipped": {},
        "cases": [],
        "request_path": [],
    }
    for case in CASES:
        if options.case and case.name not in options.case:
            continue
        found = run_case(case, work / case.name, options)
        if case is CASES[0]:
            results |= found
        else:
            words = {"title": case.title, "about": case.about, "closed": case.closed}
            wanted = {"targets": case.targets, "coalescing": case.coalescing}
            results["cases"].append(words | wanted | found)
    if not (options.only or options.case):
        results["request_path"] = _request_path(options)
    (work / "results.json").write_text(json.dumps(results, indent=1))
    page = report.page(results)
    print(page)
    if options.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page)
        print(f"written to {PAGE.relative_to(environments.TOP)}")
    missing = [name for found in (results, *results["cases"]) for name in found["skipped"] if "Cloche" in name]
    return 1 if missing else 0


def run_case(case: Case, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Every server of the case, in interleaved rounds: its line of medians, or why it is missing."""
    work.mkdir()
    servers = [s for s in case.field if not options.only or any(word in s.name.lower() for word in options.only)]
    skipped: dict[str, str] = {}
    ready: dict[str, Prepared] = {}
    for server in servers:
        try:
            ready[server.name] = prepare(server, case, work)
        except environments.EnvironmentFailedError as error:
            skipped[server.name] = str(error)
            print(f"{server.name}: skipped: {error}", flush=True)
    rows, labels = case.examples()
    os.sched_setaffinity(0, {options.client_core})
    samples: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number in range(options.rounds):
        for server in servers:
            if server.name in skipped:
                continue
            try:
                sample = measure(server, ready[server.name], case, rows, labels, options)
            except ServerFailedError as error:
                skipped[server.name] = str(error)
                print(f"{server.name}: failed: {error}", flush=True)
                continue
            samples[server.name].append(sample)
            print(f"{case.name}, round {number + 1}, {server.name}: {json.dumps(sample)}", flush=True)
    os.sched_setaffinity(0, {options.server_core, options.client_core})
    lines = [
        {"name": s.name, "family": s.family, "package": s.package, "version": ready[s.name].version}
        | _medians(samples[s.name])
        for s in servers
        if samples[s.name] and s.name not in skipped
    ]
    return {"servers": lines, "skipped": skipped}


class Prepared:
    """A Prepared server has its environment, its model on the disk, and the version for the table."""

    def __init__(self, python: Path, folder: Path, version: str) -> None:
        self.python, self.folder, self.version = python, folder, version


def prepare(server: Server, case: Case, work: Path) -> Prepared:
    """Build the server's environment and put its model where it will look; none of this is measured.

    Raises EnvironmentFailedError.
    """
    folder = work / server.name.lower().replace(" ", "-").replace(",", "").replace(":", "").replace("'", "")
    folder.mkdir()
    if server.own:
        python = Path(sys.executable)
    else:
        print(f"{server.name}: environment", flush=True)
        python = environments.build(server.lock, python=server.python or sys.executable)
    if case.model == "minilm":
        make_encoder()
        (folder / "minilm").symlink_to(ENCODER)
    elif not server.own:
        _write_model(case, python, folder)
    preparation = PEERS / server.folder / "prepare.py"
    if preparation.exists():
        _run([python, preparation, folder, case.model], folder)
    ask = f"from importlib.metadata import version; print(version({server.package!r}))"
    version = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    return Prepared(python, folder, version)


def make_encoder() -> None:
    """The encoder's folder, where it is not there yet. Raises EnvironmentFailedError."""
    lock = environments.TOP / "requirements" / "heavy" / "huggingface.txt"
    if (ENCODER / "model.onnx").exists():
        return
    if not lock.exists():
        raise environments.EnvironmentFailedError(f"there is no {lock}")
    python = environments.build(lock)
    ENCODER.parent.mkdir(parents=True, exist_ok=True)
    _run([python, "-P", PEERS / "minilm.py", ENCODER], ENCODER.parent)


def _write_model(case: Case, python: Path, folder: Path) -> None:
    """The model where a peer looks for it: a pickle of its own environment's scikit-learn, or one ONNX file."""
    own = case.model == "image"
    _run([sys.executable if own else python, PEERS / "models.py", case.model, folder], folder)


def _run(command: Sequence[str | Path], folder: Path) -> None:
    done = subprocess.run(command, env=_environ(folder), capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        words = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise environments.EnvironmentFailedError(words[-1] if words else f"{command[1]} failed")


def measure(
    server: Server,
    prepared: Prepared,
    case: Case,
    rows: list[Row],
    labels: list[Any],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Start the server, check its answers, and put each load on it; raises ServerFailedError."""
    port = free_port()
    command = [str(prepared.python), str(PEERS / server.folder / "serve.py"), "--port", str(port)]
    if server.folder != "echo":
        command += ["--model", str(prepared.folder), *server.arguments]
    if server.spare_port:
        command += ["--spare-port", str(free_port())]
    with started(
        server,
        command,
        port,
        core=options.server_core,
        folder=prepared.folder,
        environ=_environ(prepared.folder),
        row=rows[0],
    ) as running:
        running.verify(rows, labels, case.same)
        return {"start_s": round(running.start_s, 2), **_loads(running, case, rows[0], options)}


def _loads(running: Running, case: Case, row: Row, options: argparse.Namespace) -> dict[str, Any]:
    to = load.target(running.url, *running.server.request(row))
    sample: dict[str, Any] = {}
    best = 0.0
    for connections in case.closed:
        before = running.weigh().cpu_s
        warmup_s = options.seconds / 3
        result = load.run(to, connections=connections, duration_s=options.seconds, warmup_s=warmup_s)
        weight = running.weigh()
        _must_be_clean(result)
        best = max(best, result.requests_per_second)
        sample |= {
            f"c{connections}_rps": result.requests_per_second,
            f"c{connections}_p50_ms": result.p50_ms,
            f"c{connections}_p99_ms": result.p99_ms,
            f"c{connections}_client_us": result.client_cpu_us,
        }
        if connections == 16:
            whole = result.requests_per_second * (options.seconds + warmup_s)
            sample["cpu_us"] = round((weight.cpu_s - before) / max(1.0, whole) * 1e6, 1)
    sample |= {
        "rss_mib": round(weight.rss_mib, 1),
        "largest_mib": round(weight.largest_mib, 1),
        "processes": weight.processes,
    }
    for rate in case.open:
        if best >= rate * HEADROOM:
            result = load.run(to, connections=256, rate=rate, duration_s=options.seconds, warmup_s=0.5)
            if not result.errors:  # with errors it could not follow, which is no fault of the benchmark's
                sample[f"open{rate}_p99_ms"] = result.p99_ms
    return sample


def _request_path(options: argparse.Namespace) -> list[dict[str, Any]]:
    cores = {"server_core": options.server_core, "client_core": options.client_core}
    return request_path.measure(seconds=options.seconds, rounds=options.rounds, **cores)


def _must_be_clean(result: load.Result) -> None:
    if result.errors or not result.requests:
        raise ServerFailedError(f"errors under load: {result}")


def _medians(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over the rounds; a figure that a round lacks is taken from the others."""
    names = {name for sample in samples for name in sample}
    return {name: statistics.median(s[name] for s in samples if name in s) for name in sorted(names)}


def _environ(folder: Path) -> dict[str, str]:
    names = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_RUNTIME_DIR")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return kept | {"CLOCHE_DATA": str(folder / "data"), "PYTHONUNBUFFERED": "1"}


def _machine(options: argparse.Namespace) -> str:
    model = "unknown processor"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    cores = f"server on core {options.server_core}, client on core {options.client_core}"
    return f"{model}, {os.cpu_count()} cores ({cores}), {platform.system()} {platform.machine()}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of one second each; writes no page")
    parser.add_argument("--only", nargs="+", help="servers whose name holds one of these words; writes no page")
    parser.add_argument(
        "--case", nargs="+", choices=[case.name for case in CASES], help="only these; writes no page"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--work", type=Path, default=environments.TOP / ".bench" / "work")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    options.only = [word.lower() for word in options.only or ()]
    options.write = not (options.quick or options.only or options.case)
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("the benchmark needs two cores: one for the server, one for the client")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
