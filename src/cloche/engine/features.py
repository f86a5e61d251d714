"""Rows that are completed from a table before they reach the model: the caller sends a key, the rest is read."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Literal, Protocol, TypeAlias

import msgspec
import numpy as np

from cloche.core.errors import BusyError, InputError, ModelError
from cloche.core.signature import FLOATS, Array, Columns, Field, Signature
from cloche.engine.validate import Problem, Validator, refuse
from cloche.runtimes.base import Runtime

#: What happens to a row whose key is not in the table: refused, or answered with its columns missing.
OnMissing: TypeAlias = Literal["reject", "null"]

#: Rows that are remembered at most, absent ones included.
MOST_KEPT = 100_000
#: After a failure the table is left alone for so long, and requests are refused at once.
REST_S = 0.5
#: Reads that may be under way at a time: one that hangs holds none of the others up.
MOST_READS = 4
_UNKNOWN_KEY = "CL-E122"

Row: TypeAlias = tuple[Any, ...]


class Rows(Protocol):
    """Rows are where the columns of a key stand."""

    name: str

    def read(self, keys: Sequence[Any]) -> Mapping[Any, Row]: ...
    def close(self) -> None: ...


class FeatureSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A FeatureSpec says which inputs are read (`columns`) by which key, how long a row is remembered, and what
    becomes of a key that is not there."""

    key: Field
    columns: tuple[str, ...]
    ttl_s: float
    on_missing: OnMissing = "reject"


def wire_signature(signature: Signature, spec: FeatureSpec) -> Signature:
    """What callers send: the key, and the inputs that are not read."""
    rest = tuple(field for field in signature.inputs if field.name not in (*spec.columns, spec.key.name))
    return Signature(inputs=(spec.key, *rest), outputs=signature.outputs)


class FeatureRuntime:
    """A FeatureRuntime is a runtime for `wire_signature`: it completes the rows of a batch and runs the model.

    The rows of all requests of a batch are read in one go. One thread calls `run` at a time. What is read is
    validated as if it had been sent.
    """

    in_process = False  # it waits for a database, so it never runs in an event loop

    def __init__(
        self,
        runtime: Runtime,
        signature: Signature,
        rows: Rows,
        spec: FeatureSpec,
        *,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runtime = runtime
        self._rows = rows
        self._spec = spec
        self._timeout_s = timeout_s
        self._clock = clock
        self._fields = [signature.input(name) for name in spec.columns]
        self._passes_key = signature.input(spec.key.name) is not None
        self._check = Validator(signature, "allow").check
        self._kept: OrderedDict[Any, tuple[float, Row | None]] = OrderedDict()
        self._resting_until = 0.0
        self._readers = ThreadPoolExecutor(MOST_READS, thread_name_prefix="features")
        self._under_way: list[Future[Mapping[Any, Row]]] = []

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        """The model's outputs; InputError for keys that are refused, BusyError when the table can't be read."""
        ends = self._clock() + (self._timeout_s if timeout_s is None else timeout_s)
        keys = columns[self._spec.key.name].tolist()
        found = self._find(dict.fromkeys(keys), ends)
        rows = [found[key] for key in keys]
        self._refuse_absent(keys, rows)
        nothing = (None,) * len(self._spec.columns)
        values = zip(*(nothing if row is None else row for row in rows), strict=True)
        whole = {
            name: column for name, column in columns.items() if self._passes_key or name != self._spec.key.name
        }
        for field, column in zip(self._fields, values, strict=True):
            assert field is not None
            whole[field.name] = self._column(field, column)
        try:
            self._check(whole)
        except InputError as error:
            raise InputError(
                error.message,
                code=error.code,
                where=f"the table {self._rows.name}",
                hint=error.hint,
                details=error.details,
            ) from None
        return self._runtime.run(whole, max(ends - self._clock(), 0.001))

    def close(self) -> None:
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._rows.close()
        self._runtime.close()

    def _find(self, keys: Mapping[Any, None], ends: float) -> dict[Any, Row | None]:
        now = self._clock()
        found: dict[Any, Row | None] = {}
        for key in keys:
            kept = self._kept.get(key)
            if kept is not None and kept[0] > now:
                found[key] = kept[1]
                self._kept.move_to_end(key)
        unknown = [key for key in keys if key not in found]
        if unknown:
            read = self._read(unknown, ends)
            for key in unknown:
                found[key] = read.get(key)
                self._kept[key] = (now + self._spec.ttl_s, found[key])
                self._kept.move_to_end(key)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return found

    def _read(self, keys: list[Any], ends: float) -> Mapping[Any, Row]:
        now = self._clock()
        self._under_way = [one for one in self._under_way if not one.done()]
        if now < self._resting_until or len(self._under_way) >= MOST_READS:
            raise BusyError(f"the table {self._rows.name} did not answer a moment ago", code="CL-E607")
        reading = self._readers.submit(self._rows.read, keys)
        self._under_way.append(reading)
        try:
            return reading.result(max(ends - now, 0.001))
        except FutureTimeoutError:
            self._resting_until = self._clock() + REST_S
            raise BusyError(f"the table {self._rows.name} did not answer in time", code="CL-E607") from None
        except BusyError:
            self._resting_until = self._clock() + REST_S
            raise

    def _refuse_absent(self, keys: list[Any], rows: list[Row | None]) -> None:
        if self._spec.on_missing == "null" or None not in rows:
            return
        name = self._spec.key.name
        raise refuse(
            [
                Problem(_UNKNOWN_KEY, f"`{name}` {key!r} of row {row} is not in {self._rows.name}", name, row)
                for row, (key, values) in enumerate(zip(keys, rows, strict=True))
                if values is None
            ][:20]
        )

    def _column(self, field: Field, values: Sequence[Any]) -> Array:
        """A column of the table as the model's input; a missing number is NaN."""
        if field.datatype == "BYTES":
            column = np.empty(len(values), object)
            column[:] = [value if value is None else str(value) for value in values]
            return column
        if None in values and field.datatype not in FLOATS:
            row = values.index(None)
            raise refuse([Problem("CL-E106", f"`{field.name}` is null in row {row}", field.name, row)])
        try:
            return np.array([np.nan if value is None else value for value in values], field.numpy_type)
        except (TypeError, ValueError, OverflowError) as error:
            raise ModelError(
                f"what {self._rows.name} holds for `{field.name}` is no {field.datatype}: {error}"
            ) from None
