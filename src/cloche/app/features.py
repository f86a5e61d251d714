"""A look-up table, from its settings to what a worker puts before its model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from cloche.core.errors import ConfigError
from cloche.core.signature import Columns, Field, Signature, take_rows
from cloche.engine.features import FeatureRuntime, FeatureSpec, OnMissing, wire_signature
from cloche.runtimes.base import Runtime

if TYPE_CHECKING:
    from cloche.settings.tree import Features
    from cloche.store.lookup import LookupTable

#: Keys that examples are made of.
_EXAMPLES = 4


class FeaturesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A FeaturesConfig is what `cloche up` hands to a worker; `keys` are a few that are in the table."""

    url: str
    table: str
    key: Field
    columns: tuple[str, ...]
    ttl_s: float
    missing: OnMissing
    keys: tuple[int | str, ...] = ()

    def spec(self) -> FeatureSpec:
        return FeatureSpec(key=self.key, columns=self.columns, ttl_s=self.ttl_s, on_missing=self.missing)


def describe_features(features: Features, signature: Signature) -> FeaturesConfig:
    """Look at the table once, before the start.

    Raises ConfigError CL-E208 where table and model don't fit, BusyError CL-E607 where it can't be read.
    """
    inputs = [field.name for field in signature.inputs]
    strange = [name for name in features.columns if name not in inputs]
    if strange:
        raise ConfigError(
            f"the model has no input {strange[0]!r} to be read from {features.table}",
            code="CL-E208",
            hint=f"its inputs are {', '.join(inputs)}",
        )
    wide = [field.name for field in signature.inputs if field.name in features.columns and len(field.shape) > 1]
    if wide:
        raise ConfigError(f"the input {wide[0]!r} is an array, which is no column of a table", code="CL-E208")
    table = _open(features.source, features.table, features.key, features.columns)
    try:
        datatype = table.key_datatype()
        keys = table.some_keys(_EXAMPLES)
    finally:
        table.close()
    return FeaturesConfig(
        url=features.source,
        table=features.table,
        key=signature.input(features.key) or Field(name=features.key, datatype=datatype, shape=(-1,)),
        columns=features.columns,
        ttl_s=features.ttl_s,
        missing=features.missing,
        keys=tuple(keys),
    )


def outward(signature: Signature, examples: Columns, config: FeaturesConfig) -> tuple[Signature, Columns]:
    """What callers see: the signature, and examples with keys that are in the table."""
    seen = wire_signature(signature, config.spec())
    keys: list[Any] = list(config.keys) or ["" if config.key.datatype == "BYTES" else 0]
    shown = {field.name: examples[field.name] for field in seen.inputs if field.name in examples}
    rows = min([len(keys), *(len(column) for column in shown.values())])
    key = {config.key.name: np.array(keys, config.key.numpy_type)}
    return seen, take_rows({**shown, **key}, 0, rows)


def put_before(runtime: Runtime, signature: Signature, config: FeaturesConfig, timeout_s: float) -> FeatureRuntime:
    """The runtime for what callers send, which completes their rows."""
    table = _open(config.url, config.table, config.key.name, config.columns)
    return FeatureRuntime(runtime, signature, table, config.spec(), timeout_s=timeout_s)


def _open(url: str, table: str, key: str, columns: tuple[str, ...]) -> LookupTable:
    # SQLAlchemy is 15 MiB of a worker's memory, and most have nothing to look up.
    opened: LookupTable = import_module("cloche.store.lookup").LookupTable(url, table, key, columns)
    return opened
