"""Packs a plain Python class with `load` and `predict`: its code travels, and runs in a host of its own."""

from __future__ import annotations

import inspect
import platform
import statistics
import time
import traceback
from pathlib import Path

import msgspec
import numpy as np

from cloche.bundle.converters._annotations import Column, read_column, read_outputs
from cloche.bundle.converters._source import find_source, read_files
from cloche.bundle.converters.base import PROOF_ROWS, Converted, ConvertOptions
from cloche.bundle.hush import hush
from cloche.bundle.rows import datatype_of, draw_rows, is_frame, require_rows, to_columns
from cloche.core.errors import ClocheError, ConfigError, ConversionError, ModelError
from cloche.core.signature import NUMPY_TYPES, Array, Columns, Field, Signature, count_rows, take_rows
from cloche.runtimes.answers import VALUE, to_outputs
from cloche.runtimes.base import RuntimeSpec
from cloche.runtimes.host import describe
from cloche.runtimes.model_class import Call, ModelClass, read_class
from cloche.runtimes.requirements import check_requirements

#: Drawn to see what `predict` gives back, where neither annotations nor rows say.
_DRAWN_ROWS = 8
#: The original is given rows for about so long, and so many at least.
_PROOF_S = 20.0
_LEAST_PROOF_ROWS = 64
_TIMED_CALLS = 50
#: Lines of a traceback that are shown, the last ones.
_MOST_FRAMES = 5
_TIMED_S = 0.5
#: A label with more values than this has no classes.
_MAX_CLASSES = 1_000
_DATATYPES = {dtype: name for name, dtype in NUMPY_TYPES.items()}


class PythonConverter:
    """A PythonConverter takes a class, or `sentiment.py:Sentiment`, as a text or a path.

    Inputs are the parameters of `predict`, by name; outputs are what it gives back. Types come from the
    annotations, else from the rows.
    """

    name = "python"

    def accepts(self, model: object) -> bool:
        if isinstance(model, (str, Path)):
            return ".py:" in str(model)
        # an object of such a class is taken to be refused in words
        return isinstance(model, type) or all(callable(getattr(model, verb, None)) for verb in _VERBS)

    def convert(self, model: object, rows: object | None, options: ConvertOptions) -> Converted:
        """The class's files, its signature, and what it answers here on the given rows.

        Raises ConfigError for a class or annotations that can't be served, and for rows that do not fit them;
        MissingExtraError for a requirement that is not installed; ConversionError when the class fails.
        """
        source = find_source(model)
        call = read_class(source.model)
        check_requirements(options.requirements)
        files = read_files(source, options.code)
        columns = None if rows is None else _take(rows, call, source.model.__name__)
        if columns is not None:
            require_rows(columns)
        inputs = _inputs(call, columns, source.model.__name__)
        if columns is not None:
            columns = {field.name: columns[field.name].astype(field.numpy_type) for field in inputs}
        loaded = _load(source.model)
        outputs, reference = _outputs(loaded, inputs, columns)
        return Converted(
            framework=f"Python {platform.python_version()}",
            description=source.model.__name__,
            task=_task(outputs),
            signature=Signature(inputs=inputs, outputs=outputs),
            runtime=RuntimeSpec(kind="python", entry=source.entry, files=tuple(sorted(files))),
            files=files,
            columns=columns,
            reference=reference,
            requirements=options.requirements,
            original_bytes=sum(map(len, files.values())),
            original_row_s=None if columns is None else _time_row(loaded, columns),
        )


_VERBS = ("load", "predict")


def _take(rows: object, call: Call, name: str) -> Columns:
    """The rows as one column a parameter. Raises ConfigError when names don't fit."""
    parameters = call.parameters
    required = [parameter.name for parameter in parameters if parameter.required]
    names = required or [parameters[0].name]
    if len(names) == 1 and not _is_named(rows):
        return to_columns({names[0]: rows if isinstance(rows, np.ndarray) else list(rows)})  # type: ignore[call-overload]
    columns = to_columns(rows)
    missing = [wanted for wanted in required if wanted not in columns]
    extra = [given for given in columns if given not in {parameter.name for parameter in parameters}]
    if missing or extra:
        raise ConfigError(
            f"{name}.predict takes {', '.join(names)}; the rows have {', '.join(columns)}",
            hint="name the parameters of predict as the columns are named",
        )
    return {parameter.name: columns[parameter.name] for parameter in parameters if parameter.name in columns}


def _is_named(rows: object) -> bool:
    """Whether the rows have names for their columns: a frame, a mapping or a list of mappings."""
    if isinstance(rows, (list, tuple)):
        return bool(rows) and isinstance(rows[0], dict)
    return isinstance(rows, dict) or is_frame(rows)


def _inputs(call: Call, columns: Columns | None, name: str) -> tuple[Field, ...]:
    fields = []
    for parameter in call.parameters:
        if parameter.name not in columns if columns is not None else not parameter.required:
            continue
        where = f"{parameter.name} of {name}.predict"
        said = read_column(parameter.annotation, where)
        if columns is not None:
            fields.append(_fit_input(parameter.name, said, columns[parameter.name], where))
        elif said.datatype is None or said.axes is None:
            raise ConfigError(
                f"the type of {where} is not known",
                hint=f"give rows, or annotate it: {parameter.name}: list[str]",
            )
        else:
            shape = (-1,) * (1 + said.axes)
            fields.append(Field(name=parameter.name, datatype=said.datatype, shape=shape, missing=said.missing))
    return tuple(fields)


def _fit_input(name: str, said: Column, column: Array, where: str) -> Field:
    """The field of an annotated column, which the rows must fit. Raises ConfigError."""
    found = datatype_of(column)
    datatype = said.datatype or found
    widens = datatype == "FP64" and found in ("FP32", "FP16", "INT64")
    if datatype != found and not widens:
        raise ConfigError(f"{where} is annotated as {datatype}, and the rows hold {found}")
    if said.axes is not None and said.axes != column.ndim - 1:
        raise ConfigError(f"{where} is annotated with {said.axes + 1} axes, the rows have {column.ndim}")
    return Field(name=name, datatype=datatype, shape=(-1, *column.shape[1:]), missing=said.missing)


def _load(model: type) -> ModelClass:
    try:
        with hush():
            return ModelClass(model)
    except ClocheError:
        raise
    except Exception as error:  # the model's own code: it may raise anything
        raise ConversionError(
            f"{model.__name__} did not load here: {describe(error)}{_own_lines(error, model)}",
            hint='a file beside the class is Path(__file__).with_name("weights.bin"), here and where it is served'
            if isinstance(error, OSError)
            else None,
        ) from error


def _own_lines(error: BaseException, model: type) -> str:
    """The traceback from the class's own file on, without our frames; "" where it has none."""
    try:
        file = inspect.getfile(model)
    except (TypeError, OSError):
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    first = next((place for place, frame in enumerate(frames) if frame.filename == file), len(frames))
    return "".join(
        f"\n  {Path(f.filename).name}, line {f.lineno}: {f.line}" for f in frames[first:][-_MOST_FRAMES:]
    )


def _outputs(
    loaded: ModelClass, inputs: tuple[Field, ...], columns: Columns | None
) -> tuple[tuple[Field, ...], Columns | None]:
    """The outputs, and the class's own answers to the first of the given rows."""
    said = read_outputs(loaded.call.returns, f"the answer of {loaded.name}.predict")
    if columns is None and said is not None:
        return said, None
    rows = columns or draw_rows(Signature(inputs=inputs, outputs=()), _DRAWN_ROWS)
    answer = _answer_within(loaded, rows, "rows drawn at random" if columns is None else "the rows")
    try:
        fields = _found(answer) if said is None else _shaped(said, answer)
        reference = to_outputs(answer, Signature(inputs=inputs, outputs=fields))
    except ModelError as error:
        raise ConversionError(error.message, hint="mend the annotation of predict, or its answer") from error
    if columns is None:
        return fields, None
    return tuple(_with_classes(field, reference) for field in fields), reference


def _answer_within(loaded: ModelClass, rows: Columns, what: str, budget_s: float = _PROOF_S) -> Columns:
    """The answers to the first PROOF_ROWS, or to as many as a slow class affords in about `budget_s`."""
    start = time.perf_counter()
    few = _answer(loaded, take_rows(rows, 0, _LEAST_PROOF_ROWS), what)
    row_s = (time.perf_counter() - start) / _LEAST_PROOF_ROWS
    affordable = PROOF_ROWS if row_s * PROOF_ROWS <= budget_s else int(budget_s / row_s)
    if count_rows(rows) <= _LEAST_PROOF_ROWS or affordable <= _LEAST_PROOF_ROWS:
        return few
    return _answer(loaded, take_rows(rows, 0, affordable), what)


def _answer(loaded: ModelClass, rows: Columns, what: str) -> Columns:
    try:
        with hush():
            return loaded.answer(rows)
    except ModelError as error:
        raise ConversionError(
            error.message,
            hint=f"columns of {count_rows(rows)} rows came in: as many must go out, one answer for each row",
        ) from error
    except Exception as error:  # the model's own code: it may raise anything
        raise ConversionError(f"{loaded.name}.predict failed on {what}: {describe(error)}") from error


def _found(answer: Columns) -> tuple[Field, ...]:
    return tuple(
        Field(
            name=name,
            datatype=_DATATYPES[column.dtype],
            shape=(-1, *column.shape[1:]),
            missing=_misses(column),
        )
        for name, column in answer.items()
    )


def _misses(column: Array) -> bool:
    if column.dtype == object:
        return any(value is None for value in column.flat)
    return column.dtype.kind == "f" and bool(np.isnan(column).any())


def _shaped(said: tuple[Field, ...], answer: Columns) -> tuple[Field, ...]:
    """The annotated fields, with the lengths of their axes as the answer has them."""
    return tuple(
        msgspec.structs.replace(field, shape=(-1, *answer[field.name].shape[1:]))
        if field.name in answer and answer[field.name].ndim == len(field.shape)
        else field
        for field in said
    )


def _with_classes(field: Field, reference: Columns) -> Field:
    """`label` and `probabilities` with the names of their classes, where the answers show them.

    Beside probabilities a class's place is that of the largest one, if all answers agree about it.
    """
    labels, shares = reference.get("label"), reference.get("probabilities")
    if labels is None or labels.ndim != 1 or labels.dtype.kind == "f":
        return field
    if field.name not in ("label", "probabilities"):
        return field
    names = [str(label) for label in labels.tolist()]
    if shares is None:
        classes = sorted(set(names))
        return msgspec.structs.replace(field, classes=tuple(classes)) if len(classes) <= _MAX_CLASSES else field
    if shares.ndim != 2:
        return field
    pairs = set(zip(shares.argmax(axis=1).tolist(), names, strict=True))
    if len(pairs) != shares.shape[1] or len(dict(pairs)) != len(pairs) or len({n for _, n in pairs}) != len(pairs):
        return field
    return msgspec.structs.replace(field, classes=tuple(name for _, name in sorted(pairs)))


def _task(outputs: tuple[Field, ...]) -> str:
    if any(field.name == "label" for field in outputs):
        return "classification"
    value = outputs[0]
    is_number = value.name == VALUE and value.datatype.startswith("FP") and len(value.shape) == 1
    return "regression" if len(outputs) == 1 and is_number else "other"


def _time_row(loaded: ModelClass, columns: Columns) -> float:
    """Median seconds of one row."""
    times: list[float] = []
    end = time.perf_counter() + _TIMED_S
    for call in range(_TIMED_CALLS):
        at = call % count_rows(columns)
        start = time.perf_counter()
        if len(times) >= 3 and start > end:
            break
        _answer(loaded, take_rows(columns, at, at + 1), f"row {at} alone")
        times.append(time.perf_counter() - start)
    return statistics.median(times)
