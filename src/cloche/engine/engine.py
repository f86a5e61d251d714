"""The engine: runs rows through one bundle, for every door; synchronous, and knows no transport."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from cloche.core.errors import ModelError
from cloche.core.signature import FLOATS, Columns, Signature, count_rows
from cloche.engine.cache import Cache
from cloche.engine.validate import Flag, OnInvalid, Validator
from cloche.runtimes.base import Runtime


class Prepared(msgspec.Struct, gc=False):
    """Prepared is one request's rows after validation, with the cached answer where there is one."""

    columns: Columns
    rows: int
    flags: tuple[Flag, ...]
    #: The sizes of the axes that the signature leaves open: only requests with the same can be joined.
    sizes: tuple[int, ...] = ()
    #: The cache's key; None while there is no cache.
    key: bytes | None = None
    cached: Columns | None = None


class Result(msgspec.Struct, frozen=True):
    """A Result is what `predict` gives: the outputs by name and the flags of validation."""

    outputs: Columns
    flags: tuple[Flag, ...]


class Engine:
    """An Engine validates, looks into the cache and calls the runtime of one loaded version.

    `prepare` and `run` are the two halves that the online door puts its Batcher between; the other doors
    call `predict`. Raises InputError for rows that are refused and ModelError when the model fails.
    """

    def __init__(
        self,
        signature: Signature,
        runtime: Runtime,
        *,
        ref: str,
        digest: str = "",
        on_invalid: OnInvalid = "flag",
        cache: Cache | None = None,
    ) -> None:
        self.signature = signature
        self.runtime = runtime
        self.ref = ref
        self.cache = cache
        self._digest = digest.encode()
        self._check: Callable[[Columns], tuple[Flag, ...]] = Validator(signature, on_invalid).check
        self._inputs = [field.name for field in signature.inputs]
        self._open = [field.name for field in signature.inputs if -1 in field.shape[1:]]
        self._floats = [field.name for field in signature.outputs if field.datatype in FLOATS]

    def prepare(self, columns: Columns) -> Prepared:
        """Validate one request's columns and look them up; InputError names every bad row (at most 20)."""
        flags = self._check(columns)
        prepared = Prepared(columns, count_rows(columns), flags)
        if self._open:
            prepared.sizes = tuple(size for name in self._open for size in columns[name].shape[1:])
        if self.cache is not None:
            prepared.key = self.cache.key(self._digest, [columns[name] for name in self._inputs])
            prepared.cached = self.cache.get(prepared.key)
        return prepared

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        """The runtime's outputs, as many rows as came and every number finite; ModelError otherwise."""
        outputs = self.runtime.run(columns, timeout_s)
        rows = count_rows(columns)
        for name, output in outputs.items():
            if output.shape[0] != rows:
                raise ModelError(
                    f"{self.ref} answered {output.shape[0]} rows of `{name}` to {rows}", code="CL-E901"
                )
        for name in self._floats:
            # half the price of .all(), and a sum could overflow where every number is finite
            if b"\0" in np.isfinite(outputs[name]).tobytes():
                raise ModelError(f"{self.ref} answered `{name}` with a number that is not finite")
        return outputs

    def remember(self, prepared: Prepared, outputs: Columns) -> None:
        """Put a request's answer into the cache, where there is one."""
        if self.cache is not None and prepared.key is not None:
            self.cache.put(prepared.key, outputs)

    def predict(self, columns: Columns) -> Result:
        """Both halves: validated, from the cache or the runtime."""
        prepared = self.prepare(columns)
        if prepared.cached is not None:
            return Result(prepared.cached, prepared.flags)
        outputs = self.run(prepared.columns)
        self.remember(prepared, outputs)
        return Result(outputs, prepared.flags)
