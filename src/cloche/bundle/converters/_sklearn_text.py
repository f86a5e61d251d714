"""scikit-learn pipelines on raw text: terms are counted by a step of ours, a graph does the rest."""

from __future__ import annotations

import io
import warnings
from typing import Any

import msgspec
import numpy as np
import sklearn
from sklearn.base import is_classifier

from cloche.bundle.converters import _skl2onnx
from cloche.bundle.converters._original import (
    Given,
    Original,
    answer,
    ask_original,
    given_rows,
    pickled_size,
    time_one_row,
    to_native,
)
from cloche.bundle.converters._prepare import describe
from cloche.bundle.converters._split import Split, split
from cloche.bundle.converters._terms import begins_with_text
from cloche.bundle.converters._texts import HARD, TEXT, read_texts
from cloche.bundle.converters.base import Converted, ConvertOptions
from cloche.bundle.parity import compare
from cloche.core.errors import ConversionError
from cloche.core.signature import Array, Columns, Field, Signature, take_rows
from cloche.runtimes.base import RuntimePlace, RuntimeSpec, StepSpec, load_runtime
from cloche.runtimes.files import Held
from cloche.runtimes.steps_terms import TermsFile, TermsStep

TERMS_FILE = "model/terms.json"
WEIGHTS_FILE = "model/weights.npy"


def convert(model: Any, rows: object | None, options: ConvertOptions) -> Converted:
    """The model as terms and ONNX that answer its rows exactly, and texts that are hard to take apart.

    Raises ConversionError, InputError.
    """
    _skl2onnx.check_kind(model)
    given = _read_rows(model, rows)
    with warnings.catch_warnings():
        # About feature names and the like: the user has seen them at fit.
        warnings.simplefilter("ignore")
        original = ask_original(model, given)
        parts = split(model, given.fields[0].name)
        runtime, files, outputs = _build(original, parts, options)
        used = {*(part.column for part in parts.parts), *parts.others}
        signature = Signature(inputs=tuple(each for each in given.fields if each.name in used), outputs=outputs)
        unused = tuple(name for name in given.columns if name not in used)
        converted = Converted(
            framework=f"scikit-learn {sklearn.__version__}",
            description=describe(model),
            task="classification" if is_classifier(model) else "regression",
            signature=signature,
            runtime=runtime,
            files=files,
            columns=None if rows is None else {name: given.columns[name] for name in _names(signature)},
            reference=None if rows is None else original.reference,
            unused=(*given.unused, *unused),
            original_bytes=pickled_size(model),
            original_row_s=time_one_row(original),
        )
        _prove_hard(original, parts, converted, options)
    return converted


def _names(signature: Signature) -> list[str]:
    return [field.name for field in signature.inputs]


def _read_rows(model: Any, rows: object | None) -> Given:
    if begins_with_text(model):
        name, column, unused = (TEXT, np.array(HARD, object), ()) if rows is None else read_texts(rows)
        return Given(column.tolist(), {name: column}, (Field(name=name, datatype="BYTES", shape=(-1,)),), unused)
    return given_rows(model, rows)


def _build(
    original: Original, parts: Split, options: ConvertOptions
) -> tuple[RuntimeSpec, dict[str, bytes], tuple[Field, ...]]:
    """How the model is run, its files, and its outputs. Raises ConversionError where no way is exact."""
    weights = parts.projection
    wide = weights is None or weights.dtype != np.float32
    file = TermsFile(
        parts=tuple(parts.parts),
        datatype="FP64" if wide else "FP32",
        kept=None if parts.kept is None else tuple(parts.kept.tolist()),
    )
    taken = {*original.columns, *original.reference}
    tensor = next(name for number in range(len(taken) + 1) if (name := f"terms{number or ''}") not in taken)
    spec = StepSpec(
        kind="terms",
        entry=TERMS_FILE,
        files=() if weights is None else (WEIGHTS_FILE,),
        inputs=tuple(dict.fromkeys(part.column for part in parts.parts)),
        outputs=(tensor,),
    )
    files = {TERMS_FILE: msgspec.json.encode(file)}
    if weights is not None:
        files[WEIGHTS_FILE] = _npy(weights)
    made = _made(TermsStep(file, tensor, weights), original.columns)[tensor]
    field = Field(name=tensor, datatype=file.datatype, shape=(-1, made.shape[1]))
    others = {name: original.columns[name] for name in parts.others}
    fields = (field, *(each for name in parts.others for each in original.fields if each.name == name))
    rest = Original(parts.rest, made, {tensor: made, **others}, fields, original.reference, None)
    exact = _skl2onnx.first_exact(rest, options)
    files = {_skl2onnx.MODEL_FILE: exact.data, **files}
    runtime = RuntimeSpec(kind="onnx", entry=_skl2onnx.MODEL_FILE, step=spec, stacked=exact.stacked)
    return runtime, files, exact.signature.outputs


def _npy(array: Array) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def _made(step: TermsStep, columns: Columns) -> Columns:
    """What the step makes of all rows at once."""
    chunks = [tensors for _, tensors in step.run(columns)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _prove_hard(original: Original, parts: Split, converted: Converted, options: ConvertOptions) -> None:
    """Texts that tell tokenisers apart must be answered alike as well. Raises ConversionError."""
    texts = {part.column for part in parts.parts}
    count = min(len(HARD), len(next(iter(original.columns.values()))))
    columns = take_rows(original.columns, 0, count)
    for name in texts:
        columns[name] = np.array(HARD[:count], object)
    names = [str(name) for name in getattr(original.model, "feature_names_in_", [])]
    rows = columns[converted.signature.inputs[0].name].tolist() if not parts.others and not names else None
    expected = answer(original.model, to_native(columns, names) if rows is None else rows)
    runtime = load_runtime(converted.runtime, converted.signature, Held(converted.files), RuntimePlace(digest=""))
    try:
        answers = runtime.run({name: columns[name] for name in _names(converted.signature)})
        compare(expected, answers, rtol=options.rtol, atol=options.atol)
    except ConversionError as error:
        raise ConversionError(
            f"texts that were never seen are answered otherwise: {error.message}",
            code="CL-E801",
            hint="pack a Python class with `load` and `predict`",
        ) from error
    finally:
        runtime.close()
