"""Builds a bundle from a converted model: proves it, samples it, measures it, describes it, seals it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from cloche.bundle import golden as examples
from cloche.bundle.bundle import CARD, GOLDEN, PROFILE, SBOM, Bundle
from cloche.bundle.card import make_card
from cloche.bundle.converters.base import Converted
from cloche.bundle.folder import list_files, write_folder
from cloche.bundle.golden import Golden, encode_golden
from cloche.bundle.hush import kept_aside
from cloche.bundle.manifest import FORMAT, GoldenFacts, Lineage, Manifest, Measured, ParityFacts
from cloche.bundle.measure import Load, choose_threads, measure, rows_a_call
from cloche.bundle.notes import make_notes
from cloche.bundle.parity import compare
from cloche.bundle.profile import Holdout, encode_profile
from cloche.bundle.profiling import make_profile, with_facts
from cloche.bundle.quality import assess, check_labels
from cloche.bundle.rows import draw_rows, require_rows
from cloche.bundle.sbom import make_sbom
from cloche.bundle.sign import Signer
from cloche.core.errors import ConfigError, ConversionError, ModelError
from cloche.core.reference import check_name
from cloche.core.signature import Columns, count_rows, join_rows, take_rows
from cloche.runtimes.base import Runtime, RuntimePlace, RuntimeSpec, load_runtime
from cloche.runtimes.files import Held

#: Drawn where no rows were given.
_DRAWN_ROWS = 256
#: Examples that are also run alone.
_ALONE_ROWS = 16
#: A call with thousands of rows may take a slow model minutes.
_CALL_TIMEOUT_S = 600.0
#: Rows of the first call; the next ones take twice as many as long as a call is so short.
_FIRST_ROWS = 256
_SHORT_CALL_S = 0.5


class Progress(Protocol):
    """A Progress hears in a word or two what is done next, and how many rows of how many are done."""

    def __call__(self, what: str, done: int = 0, total: int = 0, /) -> None: ...


class PackOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A PackOptions is what may be said about a bundle beside its model and rows. Raises ConfigError."""

    #: How many golden examples are kept.
    golden: int = examples.ROWS
    #: How near answers must come: atol + rtol * |wanted|.
    rtol: float = examples.RTOL
    atol: float = examples.ATOL
    licence: str | None = None
    #: For whom the model is, and its limits; it goes into the card.
    about: str | None = None

    def __post_init__(self) -> None:
        if self.golden < 1 or not (0 <= self.rtol < math.inf and 0 <= self.atol < math.inf):
            raise ConfigError(
                "there must be golden examples, and their tolerance must be a number that is not negative",
                code="CL-E201",
                hint=f"the defaults are {examples.ROWS}, {examples.RTOL:g} and {examples.ATOL:g}",
            )


def build(
    converted: Converted,
    *,
    name: str,
    y: Any = None,
    folder: Path,
    signer: Signer,
    lineage: Lineage,
    options: PackOptions | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Write the bundle into the new folder and open it; `y` are the labels of all rows of `converted`.

    Raises ConfigError (CL-E203 for the name, CL-E204 for labels that don't fit), ConversionError when the
    bundle does not answer as the original, ModelError.
    """
    options = options or PackOptions()
    tell = progress or _silent
    _check(converted, name, y)
    try:
        with kept_aside() as output:
            manifest, files = _describe(converted, name, y, lineage, options, tell, output)
        tell("sealing")
        return write_folder(folder, manifest, files, signer)
    except UnicodeEncodeError as error:
        near = error.object[max(error.start - 20, 0) : error.end]
        raise ConfigError(
            f"a name, a value or a word about the model is no valid text: {near!r}",
            hint="half a character (a lone surrogate) can't be written down: take it out",
        ) from None


def _describe(
    converted: Converted,
    name: str,
    y: Any,
    lineage: Lineage,
    options: PackOptions,
    tell: Progress,
    output: int,
) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest and the files; a host of the model's prints to the file descriptor `output`."""
    load = _loader(converted, output)
    given = converted.columns
    texts = () if converted.runtime.step is None else converted.runtime.step.inputs
    columns = draw_rows(converted.signature, _DRAWN_ROWS) if given is None else given

    proof = _prove(converted, columns, options, load, tell)
    files = {**converted.files, GOLDEN: encode_golden(proof.golden)}

    tell("measuring quality")
    quality: dict[str, float] | None = None
    holdout: Holdout | None = None
    if y is not None:
        quality, holdout = assess(converted.task, converted.signature, proof.outputs, y)
    if given is not None:
        profile = make_profile(converted.signature, columns, proof.outputs, holdout)
        files[PROFILE] = encode_profile(profile)

    tell("measuring speed")
    spec, measured = _measure(converted, columns, load, in_process=proof.in_process)

    manifest = Manifest(
        format=FORMAT,
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        task=converted.task,
        framework=converted.framework,
        description=converted.description,
        signature=converted.signature if given is None else with_facts(converted.signature, columns, texts),
        runtime=spec,
        requirements=converted.requirements,
        golden=GoldenFacts(rows=count_rows(proof.golden.inputs), rtol=options.rtol, atol=options.atol),
        quality=quality,
        rows=0 if given is None else count_rows(columns),
        parity=proof.parity,
        measured=measured,
        lineage=msgspec.structs.replace(lineage, origin=converted.origin),
        licence=options.licence,
        about=options.about,
        notes=make_notes(converted, proof.outputs, y, has_quality=quality is not None),
        files=(),
    )
    files[CARD] = make_card(manifest).encode()
    files[SBOM] = make_sbom(manifest, list_files(converted.files))
    return manifest, files


def _check(converted: Converted, name: str, y: Any) -> None:
    check_name(name, "name of a model")
    if converted.columns is None and y is not None:
        raise ConfigError("there are labels but no rows", code="CL-E204", hint="give the rows they belong to")
    if converted.columns is not None:
        require_rows(converted.columns)
        if y is not None:
            check_labels(y, count_rows(converted.columns))


def _loader(converted: Converted, output: int) -> Load:
    files = converted.files

    def load(spec: RuntimeSpec, *, bulk: bool) -> Runtime:
        place = RuntimePlace(digest="0" * 64, bulk=bulk, timeout_s=_CALL_TIMEOUT_S, output=output)
        return load_runtime(spec, converted.signature, Held(files), place)

    return load


def _run(runtime: Runtime, columns: Columns, tell: Callable[[int], None]) -> Columns:
    """The answers to all rows, a chunk at a time; `tell` hears how many rows are done."""
    most = rows_a_call(columns)
    parts: list[Columns] = []
    start, size = 0, min(_FIRST_ROWS, most)
    while start < count_rows(columns):
        tell(start)
        began = time.perf_counter()
        parts.append(runtime.run(take_rows(columns, start, start + size)))
        start += size
        if time.perf_counter() - began < _SHORT_CALL_S:
            size = min(2 * size, most)
    return join_rows(parts)


class _Proof(msgspec.Struct, frozen=True):
    """A _Proof is what the bundle's runtime answered, and how that compares with the original."""

    outputs: Columns
    golden: Golden
    parity: ParityFacts | None
    in_process: bool


def _prove(converted: Converted, columns: Columns, options: PackOptions, load: Load, tell: Progress) -> _Proof:
    """Run all rows; raise ConversionError unless the answers are the original's and each row's own."""
    parity = None
    what = "comparing answers" if converted.reference else "running the rows"
    total = count_rows(columns)
    runtime = load(converted.runtime, bulk=True)
    try:
        outputs = _run(runtime, columns, lambda done: tell(what, done, total))
        if (reference := converted.reference) is not None:
            answers = take_rows(outputs, 0, count_rows(reference))
            parity = compare(reference, answers, rtol=options.rtol, atol=options.atol)
        golden = _sample(converted, columns, outputs, options)
        _check_alone(runtime, golden)
    except ModelError as error:
        if converted.columns is not None:
            raise
        raise ConversionError(
            f"the model takes no rows drawn from its signature: {error.message}",
            hint="give rows that it takes: cloche pack … --data FILE",
        ) from error
    finally:
        runtime.close()
    return _Proof(outputs, golden, parity, runtime.in_process)


def _measure(
    converted: Converted, columns: Columns, load: Load, *, in_process: bool
) -> tuple[RuntimeSpec, Measured]:
    spec = converted.runtime
    if in_process:
        spec = choose_threads(load, spec, columns)
    return spec, measure(
        load,
        spec,
        columns,
        size_bytes=sum(map(len, converted.files.values())),
        original_bytes=converted.original_bytes,
        original_row_s=converted.original_row_s,
    )


def _sample(converted: Converted, columns: Columns, outputs: Columns, options: PackOptions) -> Golden:
    """Golden examples out of the rows whose answers the original gave, where there was one."""
    answers = converted.reference or outputs
    answers = {field.name: answers[field.name] for field in converted.signature.outputs}
    wanted = examples.fitting_rows({**columns, **outputs}, options.golden)
    places = examples.sample_rows(answers, wanted)
    return Golden(
        inputs={field.name: columns[field.name][places] for field in converted.signature.inputs},
        outputs={name: column[places] for name, column in answers.items()},
        rtol=options.rtol,
        atol=options.atol,
    )


def _check_alone(runtime: Runtime, golden: Golden) -> None:
    """An example alone must get the answer that it got among others: requests are joined when served."""
    few = examples.take(golden, _ALONE_ROWS)
    alone = [runtime.run(take_rows(few.inputs, row, row + 1)) for row in range(count_rows(few.inputs))]
    worst = examples.mismatch(few.outputs, join_rows(alone), rtol=few.rtol, atol=few.atol)
    if worst is not None:
        raise ConversionError(
            f"the model answers a row differently when it comes alone: {worst}",
            hint="an answer must depend on its own row only, since requests are answered together",
        )


def _silent(what: str, done: int = 0, total: int = 0, /) -> None:
    pass
