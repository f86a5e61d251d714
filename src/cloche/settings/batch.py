"""`[batch.X]`, decided."""

from __future__ import annotations

from cloche.batch.schedule import Schedule
from cloche.settings.reader import Reader
from cloche.settings.tree import Batch

_NEEDED = {
    "model": 'write model = "fraud@champion"',
    "source": 'write source = "data/*.parquet", or the URL of a table',
    "sink": 'write sink = "scores.parquet", or the URL of a table',
}
#: What says nothing where there is no schedule.
_OF_SCHEDULES = ("timezone", "catch_up")


def read_batch(reader: Reader, name: str) -> Batch | None:
    """The batch run of this name; None where the reader has been told what is wrong with it."""
    table = ("batch", name)
    for key, hint in _NEEDED.items():
        if not reader.mentions(*table, key):
            reader.blame((*table, key), f"the {key} is missing", hint)
    if not reader.mentions(*table, "schedule"):
        for key in _OF_SCHEDULES:
            if reader.mentions(*table, key):
                hint = 'write schedule = "0 2 * * *" beside it, or leave it out'
                reader.blame((*table, key), "without a schedule this has no effect", hint)
    rejects = reader.mentions(*table, "rejects")
    if rejects and not reader.mentions(*table, "rejects", "to"):
        reader.blame((*table, "rejects", "to"), "the file is missing", 'write to = "rejects.csv"')
    if reader.problems:
        return None
    cron = reader.value(*table, "schedule")
    told = {key: reader.value(*table, key) for key in (*_NEEDED, "key", "keep", "chunk", "at_least_once")}
    return Batch(
        name=name,
        **told,
        schedule=None
        if cron is None
        else Schedule(
            cron=cron,
            timezone=reader.value(*table, "timezone"),
            catch_up=reader.value(*table, "catch_up"),
        ),
        deadline_s=reader.value(*table, "deadline"),
        rejects=reader.value(*table, "rejects", "to"),
        fail_above=reader.value(*table, "rejects", "fail_above") if rejects else 0.0,
    )
