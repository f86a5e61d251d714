"""`cloche batch run` and `resume`: a whole source through a model, chunk by chunk, each row once."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cloche.app.batch import Run, Runs
from cloche.app.batch_task import RunPlace
from cloche.app.batch_view import outlook, run_body
from cloche.app.project import Project
from cloche.cli.batch_shown import conclusion, teller
from cloche.cli.here import open_here
from cloche.cli.stopping import stopping
from cloche.cli.terminal import Terminal
from cloche.cli.ticker import ticking
from cloche.core.errors import ConfigError, NotFoundError
from cloche.settings import Batch, described_batch
from cloche.store.batches import Batches

_Terminal = Annotated[Terminal, Parameter(parse=False)]


def run(
    what: str,
    /,
    *,
    source: str | None = None,
    sink: str | None = None,
    key: str | None = None,
    keep: str | None = None,
    chunk: int | None = None,
    rejects: Path | None = None,
    fail_above: str | None = None,
    at_least_once: bool = False,
    name: str | None = None,
    no_progress: bool = False,
    terminal: _Terminal,
) -> int:
    """Score a whole source into a sink, chunk by chunk.

    Parameters
    ----------
    what
        With --source and --sink a version (fraud@champion), else the name of a [batch.NAME] of cloche.toml.
    source
        Where rows come from: files ('data/*.parquet', .csv, .jsonl), sqlite:///… or postgresql://… with ?table= or
        ?query=, or env:NAME or file:PATH, where one of these stands.
    sink
        Where predictions go: a file, a folder (scores/), a table of a database, or env:NAME or file:PATH.
    key
        The column that names a row.
    keep
        Columns that are carried over besides the key, as in age,plan; all that are no inputs when not given.
    chunk
        Rows between two checkpoints; 10000 when not given.
    rejects
        The file for rows that can't be answered; without it the first of them ends the run.
    fail_above
        The share of rejected rows above which the run has failed; 1% when not given.
    at_least_once
        Write to a database where no ledger may be made: after a crash some rows may be there twice.
    name
        What the run is called; of one name one run goes on at a time.
    no_progress
        Show no bar.
    """
    bad = {"to": rejects and str(rejects), "fail_above": fail_above}
    told: dict[str, Any] = {
        "source": source,
        "sink": sink,
        "key": key,
        "keep": None if keep is None else keep.split(","),
        "chunk": chunk,
        "rejects": {part: value for part, value in bad.items() if value is not None} or None,
        "at_least_once": at_least_once or None,
    }
    with open_here(terminal, create=True) as project:
        if source is None and sink is None:
            if name is not None or any(value is not None for value in told.values()):
                raise ConfigError(
                    f"how {what} runs stands in cloche.toml",
                    hint="leave the flags out, or add --source and --sink",
                )
            batch = _described(project, what)
            name = batch.name
            if (expected := outlook(Batches(project.store), batch)) is not None:
                terminal.note(expected.words())
        else:
            batch = described_batch(name or "run", {"model": what, **told}, terminal.directory)
        begun = _runs(project).begin(batch, name=name)
        return _carry_out(begun, terminal, no_progress=no_progress)


def resume(which: str, /, *, no_progress: bool = False, terminal: _Terminal) -> int:
    """Go on with a batch run that was stopped, killed or failed.

    Parameters
    ----------
    which
        The run's id, the start of it, or the name whose newest run is meant.
    no_progress
        Show no bar.
    """
    with open_here(terminal, create=True) as project:
        return _carry_out(_runs(project).resume(which), terminal, no_progress=no_progress)


def _carry_out(begun: Run, terminal: Terminal, *, no_progress: bool) -> int:
    silent = terminal.json or terminal.verbosity < 0
    said = "" if silent else "stopping after this chunk; Ctrl-C again stops at once"
    with stopping(said) as asked, ticking(terminal) as ticker:
        tell = teller(None if no_progress else ticker, terminal, hidden=no_progress)
        row = begun.carry_out(tell, asked.event)
    found = run_body(row)
    terminal.answer("BatchRun", found, conclusion(row, begun.plan, found))
    if row.state in ("interrupted", "failed", "cancelled"):
        terminal.note(f"next  cloche batch resume {row.name or row.id}")
    if row.state == "interrupted":
        return 128 + (asked.signal or signal.SIGINT)
    return 0 if row.state.startswith("completed") else 1


def _runs(project: Project) -> Runs:
    place = RunPlace(
        machine=project.machine,
        bundles=str(project.bundles.root),
        allow_code=project.settings.serve.allow_code,
    )
    return Runs(project.store, place)


def _described(project: Project, name: str) -> Batch:
    found = next((one for one in project.settings.batch if one.name == name), None)
    if found is None:
        names = ", ".join(one.name for one in project.settings.batch)
        raise NotFoundError(
            f"cloche.toml has no [batch.{name}]" + (f"; it has {names}" if names else ""),
            code="CL-E320",
            hint="describe it there, or say what to read and write: --source … --sink …",
        )
    return found
