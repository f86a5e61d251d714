"""`cloche predict`: what a model says of one row or of a whole file, in this process or through a server."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from cloche.app.answering import Answerer, Here, There
from cloche.app.loaded import Loaded
from cloche.app.local import open_bundle
from cloche.batch.score import Score, score
from cloche.batch.sinks import make_sink, open_sink
from cloche.batch.sources import Source, Sources
from cloche.cli.here import open_here
from cloche.cli.terminal import Terminal
from cloche.cli.ticker import Ticker, ticking
from cloche.client.client import Client
from cloche.core.errors import ConfigError, InputError
from cloche.core.reference import parse_reference

#: What takes longer is told of in lines, where no terminal shows a bar.
_LASTS_S = 3.0


def predict(
    model: str,
    data: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=("-o", "--output"))] = None,
    rejects: Path | None = None,
    host: str | None = None,
    key: str | None = None,
    timeout: str = "1m",
    allow_code: bool = False,
    no_progress: bool = False,
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> None:
    """Say what a model answers to one row, or to the rows of a file.

    Parameters
    ----------
    model
        A version (fraud@champion) or a bundle's folder; with --host, the name of a deployment (fraud, fraud:3).
    data
        A .csv, .jsonl or .parquet file, one JSON object, or - for CSV or JSON lines from stdin. Columns that are
        no inputs, as an id, are carried over to the answer.
    output
        Where the answers go: .csv, .jsonl or .parquet, there in whole or not at all; stdout when not given.
    rejects
        Where rows go that can't be answered, with their number (from 1) and what is wrong; without it the first
        of them ends the command.
    host
        Ask the server at this address instead of loading the model here.
    key
        The API key for that server.
    timeout
        How long to wait for that server's answer to one part of a file.
    allow_code
        Run a bundle that carries Python code, in a process of its own.
    no_progress
        Show no bar.
    """
    with ExitStack() as stack:
        if host is None:
            answerer: Answerer = stack.enter_context(_load(model, terminal, allow_code=allow_code))
        else:
            answerer = stack.enter_context(_connect(model, host, key, timeout))
        if data.lstrip()[:1] in ("{", "["):
            _say_one(answerer, _parse(data), output, terminal)
            return
        source = stack.enter_context(Sources(None if data == "-" else Path(data), sys.stdin.buffer))
        began = time.monotonic()
        try:
            with ticking(terminal) as ticker:
                tell = _teller(None if no_progress else ticker, source, terminal, hidden=no_progress)
                done = _score(source, answerer, output, rejects, tell)
        except KeyboardInterrupt:
            if output is not None:
                terminal.note(f"stopped; {output} is as it was before")
            raise
    _conclude(done, answerer, output, rejects, time.monotonic() - began, terminal)


def _load(model: str, terminal: Terminal, *, allow_code: bool) -> Here:
    with open_here(terminal) as project:
        bundle = open_bundle(project, model)
        return Here(Loaded(bundle, allow_code=allow_code or project.settings.serve.allow_code))


def _connect(model: str, host: str, key: str | None, timeout: str) -> There:
    reference = parse_reference(model)
    if "@" in model:
        raise ConfigError(
            f"{model} names an alias, which a server does not know",
            code="CL-E203",
            hint=f"write {reference.model}, the name of the deployment",
        )
    return There(Client(host, key=key, timeout=timeout), reference.model, reference.version)


def _parse(data: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.ValidationError:
        raise InputError(
            "one JSON object is taken here", code="CL-E102", hint="write many, a line each, to a .jsonl file"
        ) from None
    except msgspec.DecodeError as error:
        raise InputError(f"this is not JSON: {error}", code="CL-E101", hint="""write '{"age": 41, …}'""") from None


def _say_one(answerer: Answerer, row: dict[str, Any], output: Path | None, terminal: Terminal) -> None:
    if output is not None:
        raise ConfigError("one row is answered on stdout", hint="leave -o out, or redirect with >")
    prediction = answerer.one(row)
    terminal.answer(
        "Prediction",
        {"model": answerer.reference, "prediction": prediction},
        [msgspec.json.encode(prediction).decode()],
    )
    _note_flags(answerer, terminal)


def _score(
    source: Source,
    answerer: Answerer,
    output: Path | None,
    rejects: Path | None,
    tell: Callable[[Score], None],
) -> Score:
    with ExitStack() as files:
        if output is None:
            sink = make_sink("jsonl" if source.kind == "jsonl" else "csv", sys.stdout.buffer)
            files.callback(sink.close)
        else:
            sink = files.enter_context(open_sink(output))
        bad = None if rejects is None else files.enter_context(open_sink(rejects))
        return score(source, answerer.signature, answerer.many, sink, bad, progress=tell)


def _teller(ticker: Ticker | None, source: Source, terminal: Terminal, *, hidden: bool) -> Callable[[Score], None]:
    """What hears how far it is: a bar on a terminal; elsewhere, once it lasts, a line per tenth."""
    began = time.monotonic()
    said = 0

    def tell(done: Score) -> None:
        nonlocal said
        part = source.done()
        if ticker is not None:
            # of a text file only the bytes are known: about so many rows
            total = done.rows if not part else float(f"{done.rows / part:.3g}")
            ticker("predicting", done.rows, round(max(total, done.rows)))
        elif not hidden and part is not None and int(part * 10) > said and time.monotonic() - began > _LASTS_S:
            said = int(part * 10)
            rate = done.rows / (time.monotonic() - began)
            terminal.note(f"{said * 10} %  {done.rows:,} rows, {rate:,.0f} rows/s")

    return tell


def _conclude(
    done: Score,
    answerer: Answerer,
    output: Path | None,
    rejects: Path | None,
    seconds: float,
    terminal: Terminal,
) -> None:
    if output is not None and terminal.json:
        value = {
            "model": answerer.reference,
            "output": output,
            "rows": done.rows,
            "rejected": done.rejected,
            "flagged": answerer.flagged,
            "seconds": round(seconds, 3),
        }
        terminal.answer("PredictionRun", value, [])
    where = "" if output is None else f"  ->  {output}"
    rate = f", {done.rows / seconds:,.0f} rows/s" if seconds > 1 else ""
    terminal.note(f"{_count(done.rows, 'row')} in {seconds:.1f} s{rate}{where}")
    if done.rejected:
        terminal.note(f"{_count(done.rejected, 'row')} set aside in {rejects}")
    if done.hidden:
        names = ", ".join(sorted(done.hidden))
        terminal.note(f"warning: the rows' own {names} was left out, since an output is called so")
    _note_flags(answerer, terminal)


def _note_flags(answerer: Answerer, terminal: Terminal) -> None:
    if answerer.flagged:
        terminal.note(f"warning: {_count(answerer.flagged, 'value')} beyond what the model was packed with")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
