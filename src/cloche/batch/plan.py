"""What a batch run is: decided once, at its start, and the same after every crash."""

from __future__ import annotations

from typing import Literal

import msgspec

#: How a run ended: rows were set aside but few enough, or too many were; `cancelled` by a person.
RunEnd = Literal["completed", "completed with rejects", "failed", "cancelled"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A Plan is what one BatchRun reads, answers by and writes; pinned, so that it can be resumed.

    Places are as they were written: a path, a glob, `sqlite:///…` or `postgresql://…` with `?table=` or `?query=`,
    or `env:NAME` and `file:PATH` for one of these, which is looked up anew by each process.
    """

    #: `run_` and twelve hex digits.
    run: str
    #: The version that answers, `fraud:3`, and the digest of its bundle.
    ref: str
    digest: str
    source: str
    sink: str
    #: The column that names a row; rows of a SQL source are read in its order, and a SQL sink has one for each.
    key: str | None = None
    #: Columns of the source that are carried over to the sink besides the key; None carries all but inputs.
    keep: tuple[str, ...] | None = None
    #: Rows between two checkpoints.
    chunk: int = 10_000
    #: The file for rows that can't be answered; None where the first of them ends the run.
    rejects: str | None = None
    #: The share of rejected rows, 0 to 1, above which the run has failed.
    fail_above: float = 0.0
    #: Whether a sink may be written without a ledger: after a crash some rows may be there twice.
    at_least_once: bool = False
    #: Of the source when the run began: who resumes reads the same.
    fingerprint: str = ""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A Progress is how far a run is: rows that are safe in the sink or in the rejects."""

    rows: int
    rejected: int
    #: How many there are in all, where that is known.
    total: int | None
    #: Rows that were safe before this process went on with the run.
    resumed: int = 0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """An Outcome is what a run came to; `why` says in words what ended it, if it failed."""

    end: RunEnd
    rows: int
    rejected: int
    seconds: float
    why: str = ""
