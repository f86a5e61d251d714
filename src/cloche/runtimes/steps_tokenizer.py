"""Turns text into numbers of tokens with a `tokenizer.json`, padded to the longest text of a chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cloche.core.errors import InputError, ModelError
from cloche.core.extras import load_extra
from cloche.core.signature import Array, Columns
from cloche.runtimes.base import StepSpec

#: What a graph may be given, and which list of an encoding that is.
TENSORS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
#: More rows at a time gain nothing on a CPU, and attention takes memory by the square of the length.
_MOST_ROWS = 32
_MOST_TOKENS = 4_096


class TokenizerStep:
    """A TokenizerStep is one tokenizer, which truncates as its file says."""

    def __init__(self, tokenizer: Any, column: str, outputs: tuple[str, ...]) -> None:
        padding = tokenizer.padding or {}
        tokenizer.no_padding()  # what is padded here needs no second look at each token
        self._encode = tokenizer.encode
        self._column = column
        fill = {"input_ids": padding.get("pad_id", 0), "token_type_ids": padding.get("pad_type_id", 0)}
        self._outputs = [(name, TENSORS[name], fill.get(name, 0)) for name in outputs]
        self._from_left = padding.get("direction") == "left"

    @classmethod
    def load(cls, spec: StepSpec, read: Callable[[str], bytes]) -> TokenizerStep:
        """Raises MissingExtraError without `tokenizers`, ModelError for a file that it does not read."""
        library = load_extra("tokenizers", "a model that takes text", "text")
        if unknown := set(spec.outputs) - TENSORS.keys():
            raise ModelError(f"the graph wants {', '.join(sorted(unknown))}, which no tokenizer gives")
        try:
            tokenizer = library.Tokenizer.from_buffer(read(spec.entry))
        except Exception as error:
            raise ModelError(f"tokenizers can't read {spec.entry}: {error}") from error
        return cls(tokenizer, spec.inputs[0], spec.outputs)

    def run(self, columns: Columns) -> Iterator[tuple[Array, Columns]]:
        """Places of rows and the tensors of each chunk. Raises InputError for a text without a token."""
        encodings = [self._encode(text) for text in columns[self._column].tolist()]
        lengths = np.array([len(encoding) for encoding in encodings], np.intp)
        if not lengths.all():  # a tokenizer that adds none of its own
            raise _empty(int(lengths.argmin()), self._column)
        for places in chunks(lengths):
            longest = int(lengths[places].max(initial=0))
            chosen = [encodings[place] for place in places]
            yield places, {name: self._pad(chosen, kind, longest, fill) for name, kind, fill in self._outputs}

    def _pad(self, encodings: list[Any], kind: str, longest: int, fill: int) -> Array:
        result = np.full((len(encodings), longest), fill, np.int64)
        for row, encoding in zip(result, encodings, strict=True):
            values = getattr(encoding, kind)
            if self._from_left:
                row[longest - len(values) :] = values
            else:
                row[: len(values)] = values
        return result


def _empty(row: int, column: str) -> InputError:
    message = f"row {row}, {column}: the text has no token"
    return InputError(
        message,
        code="CL-E106",
        hint="send a text with at least one word",
        details=[{"row": row, "field": column, "code": "CL-E106", "message": message}],
    )


def chunks(lengths: Array) -> Iterator[Array]:
    """Places of rows that go together: few at a time, texts of like length together where there are many."""
    if len(lengths) * lengths.max(initial=0) <= _MOST_TOKENS and len(lengths) <= _MOST_ROWS:
        yield np.arange(len(lengths))
        return
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = min(start + _MOST_ROWS, len(order))
        while stop - start > 1 and (stop - start) * lengths[order[stop - 1]] > _MOST_TOKENS:
            stop -= 1
        yield order[start:stop]
        start = stop
