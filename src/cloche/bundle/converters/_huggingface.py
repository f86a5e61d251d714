"""The heavy half of the Hugging Face converter: a folder becomes a tokenizer step and a graph behind it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import onnx

from cloche.bundle.converters import _hf_graph, _onnx_file
from cloche.bundle.converters._hf_folder import Folder, read_folder, read_tokenizer, refuse
from cloche.bundle.converters._texts import HARD, TEXT, Texts, read_texts
from cloche.bundle.converters.base import PROOF_ROWS, Converted, ConvertOptions, load_heavy
from cloche.bundle.parity import compare
from cloche.core.errors import ConversionError, ModelError
from cloche.core.signature import Columns, Field, Signature
from cloche.runtimes.base import RuntimePlace, RuntimeSpec, StepSpec, load_runtime
from cloche.runtimes.files import Held
from cloche.runtimes.onnx import DATATYPES, open_session
from cloche.runtimes.steps_tokenizer import TENSORS

TOKENIZER_FILE = "model/tokenizer.json"
#: What a serving machine needs beside Cloche.
REQUIREMENT = "tokenizers>=0.20"
_FILES = ("model.onnx", "onnx/model.onnx")
_TIMED_S = 0.5
#: A number near zero, behind layers of float32.
_FLOAT32_NOISE = 1e-6


class _Source(NamedTuple):
    """A _Source is the graph, and where there is one, the model that it was made from."""

    model: onnx.ModelProto
    framework: str
    description: str
    size: int
    answer: Callable[[list[str]], Columns] | None


def convert(path: Path, rows: object | None, options: ConvertOptions) -> Converted:
    """The folder as a tokenizer and ONNX, proven on the rows and on texts that are hard to cut.

    Raises ConversionError, ConfigError, InputError, MissingExtraError.
    """
    folder = read_folder(path, options.task)
    tokenizer = read_tokenizer(folder)
    hard = [text for text in HARD if tokenizer.encode(text).ids]  # no model answers nothing
    texts = Texts(TEXT, np.array(hard, object)) if rows is None else read_texts(rows)
    source = _from_onnx(folder) or _from_torch(folder)
    names = [value.name for value in source.model.graph.input]
    if unknown := set(names) - TENSORS.keys():
        raise refuse(f"the graph wants {', '.join(sorted(unknown))}, which no tokenizer gives")
    _hf_graph.finish(source.model, folder, names)
    files = {
        _onnx_file.MODEL_FILE: source.model.SerializeToString(deterministic=True),
        TOKENIZER_FILE: _canonical(tokenizer.to_str()),
    }
    step = StepSpec(kind="tokenizer", entry=TOKENIZER_FILE, inputs=(texts.name,), outputs=tuple(names))
    runtime = RuntimeSpec(kind="onnx", entry=_onnx_file.MODEL_FILE, step=step)
    signature = Signature(
        inputs=(Field(name=texts.name, datatype="BYTES", shape=(-1,)),),
        outputs=_outputs(files[_onnx_file.MODEL_FILE], folder),
    )
    converted = Converted(
        framework=source.framework,
        description=source.description,
        task=_task(folder),
        signature=signature,
        runtime=runtime,
        files=files,
        columns=None if rows is None else {texts.name: texts.column},
        reference=None,
        requirements=(REQUIREMENT,),
        unused=texts.unused,
        original_bytes=source.size,
    )
    answers = _answer_hard(converted, hard)
    converted.signature = msgspec.structs.replace(
        signature, outputs=tuple(_sized(field, answers[field.name].shape) for field in signature.outputs)
    )
    if source.answer is not None:
        _prove_hard(source.answer(hard), answers, options)
        converted.reference = None if rows is None else source.answer(texts.column[:PROOF_ROWS].tolist())
        converted.original_row_s = _time_one(source.answer, str(texts.column[0]))
    return converted


def _answer_hard(converted: Converted, hard: list[str]) -> Columns:
    """What the bundle will answer to texts that are hard to cut. Raises ConversionError (CL-E803)."""
    try:
        runtime = load_runtime(
            converted.runtime, converted.signature, Held(converted.files), RuntimePlace(digest="")
        )
        try:
            return runtime.run({converted.signature.inputs[0].name: np.array(hard, object)})
        finally:
            runtime.close()
    except ModelError as error:
        raise ConversionError(
            f"the graph and the tokenizer don't go together: {error.message}",
            code="CL-E803",
            hint="export the model again, with dynamic axes for rows and tokens",
        ) from error


def _sized(field: Field, shape: tuple[int, ...]) -> Field:
    return msgspec.structs.replace(field, shape=(-1, *shape[1:]))


def _prove_hard(expected: Columns, answers: Columns, options: ConvertOptions) -> None:
    try:
        compare(expected, answers, rtol=options.rtol, atol=max(options.atol, _FLOAT32_NOISE))
    except ConversionError as error:
        raise ConversionError(
            f"texts that are hard to cut are answered otherwise: {error.message}",
            code="CL-E801",
            hint="save the tokenizer anew with the model, so that tokenizer.json says all that it does",
        ) from error


def _time_one(answer: Callable[[list[str]], Columns], text: str) -> float:
    """Median seconds of one text in the original, over at most half a second."""
    answer([text])
    spent: list[float] = []
    while len(spent) < 3 or (len(spent) < 50 and sum(spent) < _TIMED_S):
        start = time.perf_counter()
        answer([text])
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))


def _canonical(text: str) -> bytes:
    """The same bytes for the same tokenizer: the library writes its maps in any order."""
    return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")).encode()


def _task(folder: Folder) -> str:
    if folder.task == "embeddings":
        return "other"
    return "regression" if folder.problem == "regression" else "classification"


def _from_onnx(folder: Folder) -> _Source | None:
    """The folder's ONNX file, which is its own original; None where there is none."""
    file = next((found for name in _FILES if (found := folder.path / name).is_file()), None)
    if file is None:
        return None
    model, size = _onnx_file.read(file)
    _onnx_file.check(model)
    maker = f"{model.producer_name} {model.producer_version}".strip() or "ONNX"
    architecture = next(iter(folder.config.get("architectures") or []), file.name)
    return _Source(model, maker, _describe(architecture, folder), size, None)


def _from_torch(folder: Folder) -> _Source:
    heavy = load_heavy("cloche.bundle.converters._hf_torch", "a Hugging Face folder", "huggingface")
    transformer = heavy.Transformer(folder)
    data, _ = transformer.export()
    model = onnx.load_from_string(data)
    size = sum(file.stat().st_size for file in folder.inner.glob("*.safetensors"))
    return _Source(model, transformer.version, _describe(transformer.name, folder), size, transformer.answer)


def _describe(architecture: str, folder: Folder) -> str:
    if folder.task == "text-classification":
        return architecture
    return f"{architecture}, {folder.pooling} pooling{', length 1' if folder.normalize else ''}"


def _outputs(data: bytes, folder: Folder) -> tuple[Field, ...]:
    fields = []
    for node in open_session(data, 1).get_outputs():
        sizes = tuple(size if isinstance(size, int) else -1 for size in node.shape[1:])
        classes = folder.labels if node.name in ("label", "probabilities") else None
        fields.append(
            Field(name=node.name, datatype=DATATYPES[node.type], shape=(-1, *sizes), classes=classes or None)
        )
    return tuple(fields)
