"""`cloche pack`: turn a model into a bundle and register it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cloche.app.choose import name_of
from cloche.app.local import pack_into
from cloche.app.models import version_body
from cloche.bundle.golden import ATOL, ROWS, RTOL
from cloche.bundle.pack import PackOptions
from cloche.bundle.tables import read_table
from cloche.cli.here import open_here
from cloche.cli.portrait import describe
from cloche.cli.terminal import Terminal, pairs
from cloche.cli.ticker import ticking
from cloche.registry import CHAMPION


def pack(
    model: str,
    /,
    *,
    name: str | None = None,
    data: Path | None = None,
    label: str | None = None,
    trust_pickle: bool = False,
    code: list[str] | None = None,
    requirement: list[str] | None = None,
    task: str | None = None,
    golden: int = ROWS,
    rtol: float = RTOL,
    atol: float = ATOL,
    about: str | None = None,
    licence: str | None = None,
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> None:
    """Turn a model into a bundle and register it.

    Parameters
    ----------
    model
        A file (model.onnx, or model.joblib with --trust-pickle), a class (sentiment.py:Sentiment), or a folder
        that Hugging Face or MLflow saved.
    name
        The model's name; this becomes its next version. By default that of the file.
    data
        Rows that it was not trained on: .parquet, .csv or .jsonl.
    label
        The column of the data that holds the truth.
    trust_pickle
        Read a .pkl or .joblib file, which can run code, in a process without network.
    code
        A file that travels with a class; may be given more than once.
    requirement
        A package that a class needs, as in "nltk>=3.9"; may be given more than once.
    task
        What a Hugging Face folder is for, where it does not say: text-classification or embeddings.
    golden
        How many examples are kept and run again at each load.
    rtol
        How near an answer must be to the original's: atol + rtol * |original|.
    atol
        See rtol.
    about
        What it is for and where its limits are; goes into the model card.
    licence
        The model's licence; goes into the manifest.
    """
    with _stoppable(terminal), open_here(terminal, create=True) as project, ticking(terminal) as tell:
        known = {version.digest for version in project.registry.list()}
        if tell is not None and data is not None:
            tell(f"reading {data.name}")
        X, y = (None, None) if data is None else read_table(data, label)
        bundle = pack_into(
            project,
            model,
            X,
            y,
            name=name or name_of(model),
            options=PackOptions(golden=golden, rtol=rtol, atol=atol, about=about, licence=licence),
            code=None if code is None else tuple(code),
            requirements=tuple(requirement or ()),
            task=task,
            trust_pickle=trust_pickle,
            progress=tell,
        )
        version = project.registry.resolve(str(bundle.reference))
    head = {"model": f"{bundle.reference}  sha256 {bundle.digest[:12]}"}
    terminal.answer("ModelVersion", version_body(version, bundle), pairs(head | describe(bundle.manifest)))
    if bundle.digest in known:
        terminal.note(f"nothing new: {bundle.reference} was packed from this very model and these rows before")
    is_champion = CHAMPION in version.aliases
    terminal.note(f"next  cloche up {f'{version.model}@{CHAMPION}' if is_champion else version}")


@contextmanager
def _stoppable(terminal: Terminal) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        terminal.note("stopped; nothing was registered")
        raise
