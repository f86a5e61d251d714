"""What machines counted, by time: carried from their boards second by second, folded as it grows old."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from cloche.store import sqlite
from cloche.store.increases import DAY, KEPT, SECOND, Fold, Increases, due, merge, pack, since, unpack
from cloche.store.machines import database_now
from cloche.store.watch import WatchStore, carried, series, statistics

#: How many values one statement names.
_AT_ONCE = 1000
Labels = Mapping[str, str]


class Counted(NamedTuple):
    """A Counted is one series of a board: the hash of its labels, those, and what was counted there ever."""

    hash: int
    labels: Labels
    value: int


class Grown(NamedTuple):
    """A Grown is by how much series grew, by their numbers, in the `step` seconds from `start` on."""

    start: int
    step: int
    increases: Increases


class Statistics:
    """A Statistics is all that was counted by the machines of a store; times are the database's clock."""

    def __init__(self, watch: WatchStore) -> None:
        self._watch = watch
        #: The numbers of series by their hashes, as they were looked up on this day.
        self._numbers: dict[int, int] = {}
        self._day = 0.0

    def carry(self, machine: str, board: int, counted: Iterable[Counted]) -> None:
        """Add by how much a board grew since it was carried last; `board` tells it from others of the machine.

        How far it was carried stands in the same transaction, so that nothing is added twice or left out,
        whoever dies when.
        """
        found = {one.hash: one for one in counted if one.value}
        mine = carried.c.machine == machine
        with self._watch.note() as connection:
            now = database_now(self._watch, connection)
            held = connection.execute(select(carried).where(mine).with_for_update()).first()
            day = now - now % DAY
            numbers = self._look_up(connection, found, day)
            sums = {numbers[key]: one.value for key, one in found.items()}
            is_known = held is not None and held.board == board
            grown = since(unpack(held.sums) if held is not None and is_known else {}, sums)
            if grown:
                _add(connection, SECOND, int(now), machine, grown)
            if grown or not is_known:
                row = {"board": board, "sums": pack(sums)}
                if held is None:
                    connection.execute(insert(carried).values(machine=machine, **row))
                else:
                    connection.execute(update(carried).where(mine).values(row))
        self._numbers, self._day = numbers, day

    def fold(self, check: Callable[[Connection], None] | None = None) -> Fold | None:
        """Fold or drop what is due next, where something is; `check` refuses who may not, and nothing is kept."""
        table = statistics.c
        with self._watch.note() as connection:
            now = database_now(self._watch, connection)
            oldest = connection.execute(
                select(table.step, func.min(table.start).label("start")).group_by(table.step)
            )
            fold = due({row.step: row.start for row in oldest}, now)
            if fold is None:
                return None
            these = (table.step == fold.step) & (table.start >= fold.start) & (table.start < fold.end)
            wanted = select(table.machine, table.increases).where(these).order_by(table.start, table.machine)
            by_machine: dict[str, list[bytes]] = defaultdict(list)
            for machine, increases in connection.execute(wanted.with_for_update()):
                by_machine[machine].append(increases)
            connection.execute(delete(statistics).where(these))
            if fold.into is None:
                # on the last day when they were there they counted for the last time
                connection.execute(delete(series).where(series.c.used < fold.end))
            else:
                for machine, many in by_machine.items():
                    _add(connection, fold.into, fold.start, machine, merge(map(unpack, many)))
            sqlite.shrink(connection)
            if check is not None:
                check(connection)  # last: on PostgreSQL who leads can't be renewed meanwhile
        return fold

    def now(self) -> float:
        """The time by the clock that they are kept by."""
        with self._watch.read() as connection:
            return database_now(self._watch, connection)

    def read(
        self, begin: int, end: int, names: Collection[str], **labels: str
    ) -> tuple[dict[int, dict[str, str]], list[Grown]]:
        """The labels of the series of these names and labels, by their numbers; and how they grew, by time."""
        with self._watch.read() as connection:
            known = _described(connection, names, labels)
            table = statistics.c
            wanted = (
                select(table.start, table.step, table.increases)
                # so that the index is of use
                .where(table.step.in_([step for step, *_ in KEPT]), table.start >= begin, table.start < end)
                .order_by(table.start)
            )
            found = []
            for start, step, packed in connection.execute(wanted):
                increases = unpack(packed)
                found.append(Grown(start, step, {one: increases[one] for one in known.keys() & increases.keys()}))
        return known, found

    def _look_up(self, connection: Connection, found: Mapping[int, Counted], day: float) -> dict[int, int]:
        """The numbers of these series, which are new or were there on this day, too."""
        known = self._numbers if day == self._day else {}
        new = sorted(found.keys() - known.keys())
        if not new:
            return known
        known = known | _numbers(connection, new)
        seen = [{"number": known[key]} for key in new if key in known]
        if seen:
            touch = update(series).where(series.c.id == bindparam("number")).values(used=day)
            connection.execute(touch, seen)
        missing = [key for key in new if key not in known]
        if missing:
            rows = [{"hash": key, "labels": _text(found[key].labels), "used": day} for key in missing]
            connection.execute(insert(series), rows)
            known |= _numbers(connection, missing)
        return known


def _add(connection: Connection, step: int, start: int, machine: str, increases: Increases) -> None:
    table = statistics.c
    this = (table.step == step) & (table.start == start) & (table.machine == machine)
    held = connection.execute(select(table.increases).where(this).with_for_update()).scalar_one_or_none()
    if held is None:
        row = {"step": step, "start": start, "machine": machine, "increases": pack(increases)}
        connection.execute(insert(statistics).values(row))
    else:
        both = pack(merge((unpack(held), increases)))
        connection.execute(update(statistics).where(this).values(increases=both))


def _numbers(connection: Connection, hashes: list[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for at in range(0, len(hashes), _AT_ONCE):
        wanted = select(series.c.hash, series.c.id).where(series.c.hash.in_(hashes[at : at + _AT_ONCE]))
        found.update((key, number) for key, number in connection.execute(wanted))
    return found


def _described(connection: Connection, names: Collection[str], labels: Labels) -> dict[int, dict[str, str]]:
    wanted = select(series.c.id, series.c.labels)
    for name, value in labels.items():  # most are ruled out before they are parsed
        wanted = wanted.where(series.c.labels.contains(_text({name: value})[1:-1], autoescape=True))
    found = {number: json.loads(text) for number, text in connection.execute(wanted)}
    return {
        number: one
        for number, one in found.items()
        if one["name"] in names and all(one.get(name) == value for name, value in labels.items())
    }


def _text(labels: Labels) -> str:
    return json.dumps(dict(labels), sort_keys=True, separators=(",", ":"))
