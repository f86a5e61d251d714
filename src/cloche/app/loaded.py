"""A bundle loaded into this process, with scikit-learn's verbs."""

from __future__ import annotations

import threading

import numpy as np

from cloche.bundle import golden
from cloche.bundle.bundle import Bundle
from cloche.bundle.rows import to_columns
from cloche.core.errors import ConfigError, RefusedError
from cloche.core.signature import Array, Columns, Signature, count_rows
from cloche.engine.engine import Engine, Result
from cloche.runtimes.base import Runtime, RuntimePlace, load_runtime
from cloche.runtimes.requirements import check_requirements

#: From so many rows on, the runtime for many rows answers, where it is another.
BULK_FROM = 512


class Loaded:
    """A Loaded is a model that answers in this process, by the very code that serves it.

    Rows are a data frame, an array, a dict of columns or a list of dicts; answers are numpy arrays. Use it in
    a `with` statement, or close it, to give back memory and end the process of a bundle with code.
    """

    def __init__(self, bundle: Bundle, *, allow_code: bool = False) -> None:
        spec = bundle.manifest.runtime
        if spec.kind == "python" and not allow_code:
            raise RefusedError(
                f"{bundle.reference or bundle.name} carries Python code, which is not allowed here",
                code="CL-E406",
                hint="if you trust who packed it: cloche.load(..., allow_code=True)",
            )
        check_requirements(bundle.manifest.requirements)
        self.bundle = bundle
        self._runtimes: list[Runtime] = []
        runtime = self._load(bulk=False)
        try:
            golden.check(bundle, runtime)
        except BaseException:
            runtime.close()
            raise
        self._engine = self._engine_of(runtime)
        self._bulk = self._engine if spec.threads == spec.bulk_threads else None
        self._loading = threading.Lock()

    @property
    def signature(self) -> Signature:
        return self.bundle.signature

    def run(self, rows: object) -> Columns:
        """All outputs by name, the first axis is rows. Raises InputError, which names row and field."""
        return self.result(rows).outputs

    def result(self, rows: object) -> Result:
        """`run`, and the flags of values that were answered although they were odd."""
        columns = to_columns(rows, self.signature)
        engine = self._engine
        if count_rows(columns) >= BULK_FROM:
            engine = self._bulk or self._load_bulk()
        return engine.predict(columns)

    def predict(self, X: object) -> Array:
        """The label of each row of a classifier, the value of a regressor, else the only output."""
        outputs = self.run(X)
        for name in ("label", "value"):
            if name in outputs:
                return _plain(outputs[name])
        if len(outputs) == 1:
            return _plain(next(iter(outputs.values())))
        raise ConfigError(
            f"{self.bundle.name} has the outputs {', '.join(outputs)}", hint="call run(rows) for all of them"
        )

    def predict_proba(self, X: object) -> Array:
        """The probability of each class, (rows, classes), in the order of the signature's classes."""
        outputs = self.run(X)
        if "probabilities" not in outputs:
            raise ConfigError(f"{self.bundle.name} gives no probabilities", hint="call predict or run")
        return outputs["probabilities"]

    def close(self) -> None:
        """Give back what it holds; a second call does nothing."""
        while self._runtimes:
            self._runtimes.pop().close()

    def __enter__(self) -> Loaded:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Loaded {self.bundle.reference or self.bundle.name} ({self.bundle.manifest.description})>"

    def _load_bulk(self) -> Engine:
        with self._loading:
            self._bulk = self._bulk or self._engine_of(self._load(bulk=True))
            return self._bulk

    def _load(self, *, bulk: bool) -> Runtime:
        place = RuntimePlace(digest=self.bundle.digest, bulk=bulk)
        runtime = load_runtime(self.bundle.manifest.runtime, self.signature, self.bundle, place)
        self._runtimes.append(runtime)
        return runtime

    def _engine_of(self, runtime: Runtime) -> Engine:
        reference = self.bundle.reference or self.bundle.name
        return Engine(self.signature, runtime, ref=reference, digest=self.bundle.digest)


def _plain(column: Array) -> Array:
    """Strings as scikit-learn gives them."""
    if column.dtype == object and all(isinstance(value, str) for value in column.flat):
        return column.astype(np.str_)
    return column
