"""Keeps sampled rows with the model's answers, and checks that a runtime still gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from cloche.bundle.parity import differences
from cloche.core.errors import RefusedError
from cloche.core.signature import FLOATS, Array, Columns, Field, Signature, count_rows, take_rows

if TYPE_CHECKING:
    from cloche.bundle.bundle import Bundle
    from cloche.runtimes.base import Runtime

ROWS = 64
RTOL = 1e-4
ATOL = 1e-6
#: Numbers of all examples together: 64 rows of an image model would be a file of 100 MB.
MAX_NUMBERS = 400_000


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """Golden are examples: input columns, the outputs that belong to them, and how near is near enough."""

    inputs: Columns
    outputs: Columns
    rtol: float = RTOL
    atol: float = ATOL


class _Tensor(msgspec.Struct, frozen=True, kw_only=True):
    shape: tuple[int, ...]
    #: Row by row; null is missing, "inf" and "-inf" are what they say.
    data: list[Any]


class _File(msgspec.Struct, frozen=True, kw_only=True):
    rtol: float
    atol: float
    inputs: dict[str, _Tensor]
    outputs: dict[str, _Tensor]


def encode_golden(golden: Golden) -> bytes:
    """The bytes of `golden.json`; every number reads back as the same number."""
    return msgspec.json.encode(
        _File(
            rtol=golden.rtol,
            atol=golden.atol,
            inputs={name: _to_tensor(column) for name, column in golden.inputs.items()},
            outputs={name: _to_tensor(column) for name, column in golden.outputs.items()},
        ),
        order="sorted",
    )


def decode_golden(data: bytes, signature: Signature) -> Golden:
    """The examples in these bytes, in the signature's datatypes."""
    file = msgspec.json.decode(data, type=_File)
    return Golden(
        inputs={field.name: _to_array(file.inputs[field.name], field) for field in signature.inputs},
        outputs={field.name: _to_array(file.outputs[field.name], field) for field in signature.outputs},
        rtol=file.rtol,
        atol=file.atol,
    )


def sample_rows(outputs: Columns, count: int, seed: int = 0) -> Array:
    """Up to `count` row numbers, spread over the classes, or over the values where there are none.

    Sorted; the same for the same outputs and seed.
    """
    total = count_rows(outputs)
    if total <= count:
        return np.arange(total)
    first = next(iter(outputs.values()))
    order = np.random.default_rng(seed).permutation(total)
    if first.ndim == 1 and first.dtype.kind == "f":
        ranked = order[np.argsort(first[order], kind="stable")]
        return np.sort(ranked[np.linspace(0, total - 1, count).round().astype(np.int64)])
    if first.ndim > 1:
        return np.sort(order[:count])
    _, groups = np.unique(first[order].astype(str), return_inverse=True)
    # The k-th row of every class comes before the k+1-th of any.
    by_class = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[by_class], np.arange(groups.max() + 1))
    turn = np.empty(total, dtype=np.int64)
    turn[by_class] = np.arange(total) - starts[groups[by_class]]
    return np.sort(order[np.argsort(turn, kind="stable")[:count]])


def fitting_rows(columns: Columns, wanted: int) -> int:
    """How many examples of this size are kept: `wanted`, fewer where a row is large, one at least."""
    numbers = sum(int(np.prod(column.shape[1:], dtype=np.int64)) for column in columns.values())
    return max(1, min(wanted, MAX_NUMBERS // max(1, numbers)))


def check(bundle: Bundle, runtime: Runtime) -> None:
    """Raise RefusedError CL-E410 when the runtime does not give the golden answers."""
    golden = bundle.golden()
    answers = runtime.run(golden.inputs)
    worst = mismatch(golden.outputs, answers, rtol=golden.rtol, atol=golden.atol)
    if worst is not None:
        raise RefusedError(
            f"{bundle.reference or bundle.name} does not answer as when it was packed: {worst}",
            code="CL-E410",
            where=str(bundle.path),
            hint="compare the versions of the runtime here and in manifest.json (lineage), or pack it here",
        )


def mismatch(expected: Columns, answers: Columns, *, rtol: float, atol: float) -> str | None:
    """What differs, in words: output, rows, how far; None when labels are equal and numbers near enough."""
    for name, wanted in expected.items():
        given = answers.get(name)
        if given is None or given.shape != wanted.shape:
            return f"output {name} has shape {None if given is None else given.shape}, not {wanted.shape}"
        wrong, _ = differences(wanted, given, rtol=rtol, atol=atol)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            return (
                f"output {name} differs in {int(wrong.sum())} of {len(wrong)} rows; "
                f"row {row} gives {given[row]!s:.60}, not {wanted[row]!s:.60}"
            )
    return None


def take(golden: Golden, count: int) -> Golden:
    """The first `count` examples."""
    return msgspec.structs.replace(
        golden, inputs=take_rows(golden.inputs, 0, count), outputs=take_rows(golden.outputs, 0, count)
    )


def _to_tensor(column: Array) -> _Tensor:
    flat = column.reshape(-1)
    is_float = column.dtype.kind == "f"
    data: list[Any] = (flat.astype(np.float64) if is_float else flat).tolist()
    if is_float and not np.isfinite(flat).all():
        data = [_word(value) for value in data]
    return _Tensor(shape=column.shape, data=data)


def _word(value: float) -> float | str | None:
    if value != value:
        return None
    return value if abs(value) != float("inf") else str(value)


def _to_array(tensor: _Tensor, field: Field) -> Array:
    if field.datatype in FLOATS:
        numbers = [float("nan") if value is None else float(value) for value in tensor.data]
        return np.array(numbers, dtype=np.float64).astype(field.numpy_type).reshape(tensor.shape)
    array = np.empty(len(tensor.data), dtype=field.numpy_type)
    array[:] = tensor.data
    return array.reshape(tensor.shape)
