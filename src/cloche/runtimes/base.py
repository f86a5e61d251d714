"""What a runtime is: it loads one format of a bundle and predicts."""

from __future__ import annotations

from typing import Protocol

import msgspec

from cloche.core.errors import ConfigError
from cloche.core.plugins import plugins
from cloche.core.signature import Columns, Signature
from cloche.runtimes.files import Files

GROUP = "cloche.runtimes"


class StepSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A StepSpec is what is done before the graph: columns of text become tensors, as data in the bundle says."""

    #: "terms" or "tokenizer".
    kind: str
    #: The bundle's file that describes it: `model/tokenizer.json`.
    entry: str
    #: Every file that it needs besides `entry`.
    files: tuple[str, ...] = ()
    #: The columns of the signature that it takes; all others go to the graph as they are.
    inputs: tuple[str, ...]
    #: The graph's inputs that it makes.
    outputs: tuple[str, ...]


class RuntimeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A RuntimeSpec is how a bundle wants to be run; it stands in the manifest."""

    #: The name of an entry point in the group `cloche.runtimes`.
    kind: str
    #: The bundle's file, and for code the class in it: `model/model.onnx`, `code/sentiment.py:Sentiment`.
    entry: str
    #: Every file of the bundle that the runtime needs besides `entry`: the code and data of a Python class.
    files: tuple[str, ...] = ()
    #: Columns that stand side by side in the graph's first input.
    stacked: tuple[str, ...] = ()
    #: What turns text into the graph's tensors, where the model takes text.
    step: StepSpec | None = None
    #: Threads for one row, as online requests have.
    threads: int = 1
    #: Threads for many rows.
    bulk_threads: int = 1


class RuntimePlace(msgspec.Struct, frozen=True, kw_only=True):
    """A RuntimePlace is where and how a bundle is loaded; it never stands in the manifest."""

    #: The bundle's digest.
    digest: str
    #: Loaded for many rows at a time.
    bulk: bool = False
    timeout_s: float = 30.0
    #: "cpu" or "cuda".
    device: str = "cpu"
    #: A file descriptor for what a host of its own prints; None: where this process's errors go.
    output: int | None = None


class Runtime(Protocol):
    """A Runtime is one loaded bundle that answers."""

    #: False: predictions leave the process, so they never run in an event loop.
    in_process: bool

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        """All outputs of the signature for columns that were validated: dtype and shape as it says.

        Where predictions leave the process an answer is waited for `timeout_s` at most (default: the place's);
        a call in this process can't be cut short. Raises ModelError, and BusyError CL-E602 when it is too late.
        """
        ...

    def close(self) -> None:
        """Gives back what it holds; a second call does nothing."""
        ...


class RuntimeLoader(Protocol):
    """A RuntimeLoader is what an entry point of `cloche.runtimes` names: a class with `load`."""

    def load(self, spec: RuntimeSpec, signature: Signature, files: Files, place: RuntimePlace) -> Runtime: ...


def load_runtime(spec: RuntimeSpec, signature: Signature, files: Files, place: RuntimePlace) -> Runtime:
    """The runtime that `spec.kind` names, loaded. Raises ConfigError where no runtime has that name."""
    found = plugins(GROUP)
    if spec.kind not in found:
        raise ConfigError(
            f"no runtime is called {spec.kind!r}; there are {', '.join(found) or 'none'}",
            code="CL-E205",
            hint="install the package that this bundle's runtime comes with",
        )
    loader: RuntimeLoader = found[spec.kind].load()
    return loader.load(spec, signature, files, place)
