"""The keys of `[batch.X]`."""

from __future__ import annotations

from cloche.settings.key import Key
from cloche.settings.kinds import (
    CATCH_UP,
    CHUNK,
    COLUMNS,
    FLAG,
    MAX_CHUNK,
    PATH,
    REFERENCE,
    ROWS,
    SCHEDULE,
    TEXT,
    TIMEZONE,
    duration,
    share,
)

#: In the order of docs/reference/settings.md.
BATCH = (
    Key(
        path="batch.*.model",
        kind=REFERENCE,
        needed=True,
        meaning="Required. `name:3` or `name@champion`; a run keeps to the version that it names at its start.",
    ),
    Key(
        path="batch.*.source",
        kind=ROWS,
        needed=True,
        secret=True,
        meaning="Required. Where rows come from: files (`data/*.parquet`, .csv, .jsonl), or sqlite:///… or "
        "postgresql://… with ?table= or ?query=; `env:NAME` and `file:PATH` are followed by each run anew.",
    ),
    Key(
        path="batch.*.sink",
        kind=ROWS,
        needed=True,
        secret=True,
        meaning="Required. Where predictions go: a file, a folder (`scores/`), or sqlite:///… or postgresql://… "
        "with ?table=; `env:NAME` and `file:PATH` as well.",
    ),
    Key(
        path="batch.*.key",
        kind=TEXT,
        meaning="The column that names a row: a table of a database is read in its order, and one that is written "
        "has a row for each.",
    ),
    Key(
        path="batch.*.keep",
        kind=COLUMNS,
        meaning="The columns that are carried over besides the key; all that are no inputs when not given.",
    ),
    Key(
        path="batch.*.schedule",
        kind=SCHEDULE,
        meaning="When `cloche up` runs it: minute, hour, day, month and weekday, as in cron; without it only "
        "`cloche batch run` does.",
    ),
    Key(
        path="batch.*.timezone",
        kind=TIMEZONE,
        default="UTC",
        meaning="The time zone whose clock the schedule means, `Europe/Berlin`; each slot is run once, also "
        "on the days when that clock is changed.",
    ),
    Key(
        path="batch.*.catch_up",
        kind=CATCH_UP,
        default="latest",
        meaning="What becomes of slots that passed while nothing ran, or while a run took longer: latest makes up "
        "for the latest of them, all for each, none for none.",
    ),
    Key(
        path="batch.*.chunk",
        kind=CHUNK,
        default=10_000,
        meaning=f"Rows between two checkpoints, 1 to {MAX_CHUNK}; a run that was killed goes on at the last.",
    ),
    Key(
        path="batch.*.deadline",
        kind=duration("1s", "365d"),
        meaning="How long a run may take, 1s to 365d: one that is expected to, or does, take longer is told of.",
    ),
    Key(
        path="batch.*.rejects.to",
        kind=PATH,
        needed=True,
        meaning="The file for rows that can't be answered, with what is wrong with each; without it the first of "
        "them ends the run.",
    ),
    Key(
        path="batch.*.rejects.fail_above",
        kind=share("0%", "100%"),
        default="1%",
        meaning="The share of rejected rows above which a run has failed, 0% to 100%.",
    ),
    Key(
        path="batch.*.at_least_once",
        kind=FLAG,
        default=False,
        meaning="Whether to write to a database where no ledger may be made: after a crash some rows may be there "
        "twice.",
    ),
)
