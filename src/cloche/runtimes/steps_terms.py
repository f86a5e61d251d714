"""Counts terms in texts exactly as scikit-learn's vectorisers do; pattern, vocabulary and weights are data."""

from __future__ import annotations

import io
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec
import numpy as np

from cloche.core.errors import ModelError
from cloche.core.signature import NUMPY_TYPES, Array, Columns
from cloche.runtimes.base import StepSpec

Analyze = Callable[[str], list[str]]

_BLANKS = re.compile(r"\s\s+")
#: Numbers of one chunk of features: 32 MB.
_MOST_NUMBERS = 4_000_000


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Terms are how one column of text is cut into terms, and how each of them is weighed."""

    column: str
    analyzer: Literal["word", "char", "char_wb"]
    lowercase: bool
    strip_accents: Literal["ascii", "unicode"] | None
    #: What a word is, as Python's `re` reads it; for the analyzer "word".
    pattern: str | None
    stop_words: tuple[str, ...]
    #: Shortest and longest run of words or characters.
    ngrams: tuple[int, int]
    #: A term counts once, however often it comes.
    binary: bool
    #: 1 + log(count) instead of the count.
    sublinear: bool
    idf: tuple[float, ...] | None
    norm: Literal["l1", "l2"] | None
    #: Every term, in the order of the features.
    vocabulary: tuple[str, ...]


class TermsFile(msgspec.Struct, frozen=True, kw_only=True):
    """A TermsFile is the step's data: the features of all parts stand one behind the other."""

    parts: tuple[Terms, ...]
    #: The type of the features, or of their projection.
    datatype: Literal["FP32", "FP64"]
    #: The features that the graph gets, by number; None: all. Not used where there is a projection.
    kept: tuple[int, ...] | None = None


class TermsStep:
    """A TermsStep gives the features of each text, or their product with a matrix of weights.

    With the matrix a text costs what its own terms cost, whatever the size of the vocabulary.
    """

    def __init__(self, file: TermsFile, output: str, projection: Array | None) -> None:
        self._output = output
        self._dtype = NUMPY_TYPES[file.datatype]
        self._kept = None if file.kept is None else np.array(file.kept, np.intp)
        self._projection = projection
        self._parts: list[tuple[str, int, Callable[[str], tuple[list[int], list[float]]]]] = []
        self._features = 0
        for part in file.parts:
            self._parts.append((part.column, self._features, weigher(part)))
            self._features += len(part.vocabulary)
        if projection is not None and projection.shape[0] != self._features:
            raise ModelError(f"{self._features} terms, and weights for {projection.shape[0]}")

    @classmethod
    def load(cls, spec: StepSpec, read: Callable[[str], bytes]) -> TermsStep:
        """Raises ModelError for data that don't fit."""
        try:
            file = msgspec.json.decode(read(spec.entry), type=TermsFile)
            projection = np.load(io.BytesIO(read(spec.files[0])), allow_pickle=False) if spec.files else None
            return cls(file, spec.outputs[0], projection)
        except (ValueError, re.error) as error:
            raise ModelError(f"{spec.entry} can't be read: {error}") from error

    def run(self, columns: Columns) -> Iterator[tuple[slice, Columns]]:
        rows = len(columns[self._parts[0][0]])
        texts = [columns[column].tolist() for column, _, _ in self._parts]
        step = max(1, _MOST_NUMBERS // self._features) if self._projection is None else max(1, rows)
        for start in range(0, max(rows, 1), step):
            here = slice(start, min(start + step, rows))
            make = self._features_of if self._projection is None else self._projected
            yield here, {self._output: make([column[here] for column in texts])}

    def _projected(self, texts: list[list[str]]) -> Array:
        weights = self._projection
        assert weights is not None
        result = np.zeros((len(texts[0]), weights.shape[1]), self._dtype)
        for (_, offset, weigh), column in zip(self._parts, texts, strict=True):
            for row, text in enumerate(column):
                places, values = weigh(text)
                if places:
                    chosen = weights.take(places, 0) if not offset else weights[offset:].take(places, 0)
                    result[row] += np.dot(values, chosen)
        return result

    def _features_of(self, texts: list[list[str]]) -> Array:
        result = np.zeros((len(texts[0]), self._features), self._dtype)
        for (_, offset, weigh), column in zip(self._parts, texts, strict=True):
            for row, text in enumerate(column):
                places, values = weigh(text)
                result[row, [offset + place for place in places]] = values
        return result if self._kept is None else result[:, self._kept]


def weigher(terms: Terms) -> Callable[[str], tuple[list[int], list[float]]]:
    """A function from a text to the features that it has, ascending, and the weight of each."""
    analyze = analyzer(terms)
    number = {term: place for place, term in enumerate(terms.vocabulary)}.get
    binary, sublinear, idf, norm = terms.binary, terms.sublinear, terms.idf, terms.norm
    if idf is not None and len(idf) != len(terms.vocabulary):
        raise ValueError("not one idf a term")

    def weigh(text: str) -> tuple[list[int], list[float]]:
        counts = Counter(map(number, analyze(text)))
        del counts[None]
        found: dict[int, float] = counts  # type: ignore[assignment]
        places = sorted(found)
        values = [1.0] * len(places) if binary else [float(found[place]) for place in places]
        if sublinear:
            values = [math.log(value) + 1.0 for value in values]
        if idf is not None:
            values = [value * idf[place] for value, place in zip(values, places, strict=True)]
        return places, values if norm is None else _normalized(values, squares=norm == "l2")

    return weigh


def _normalized(values: list[float], *, squares: bool) -> list[float]:
    """In the order of scikit-learn's own loop, so that even the last digit is the same."""
    total = 0.0
    for value in values:
        total += value * value if squares else abs(value)
    length = math.sqrt(total) if squares else total
    return [value / length for value in values] if length else values


def analyzer(terms: Terms) -> Analyze:
    """A function from a text to its terms, in order and with repetitions."""
    clean = _cleaner(terms)
    least, most = terms.ngrams
    if terms.analyzer == "char":
        return lambda text: _runs(_BLANKS.sub(" ", clean(text)), least, most)
    if terms.analyzer == "char_wb":
        return lambda text: _bounded_runs(_BLANKS.sub(" ", clean(text)), least, most)
    split = re.compile(terms.pattern or "").findall
    stop = frozenset(terms.stop_words)
    if not stop and terms.ngrams == (1, 1):
        return lambda text: split(clean(text))

    def words(text: str) -> list[str]:
        found: list[str] = split(clean(text))
        if stop:
            found = [word for word in found if word not in stop]
        if most == 1:
            return found
        result = list(found) if least == 1 else []
        for length in range(max(least, 2), most + 1):
            result += map(" ".join, zip(*(found[start:] for start in range(length)), strict=False))
        return result

    return words


def _cleaner(terms: Terms) -> Callable[[str], str]:
    accents = {None: None, "ascii": _to_ascii, "unicode": _without_accents}[terms.strip_accents]
    if accents is None:
        return str.lower if terms.lowercase else str
    if not terms.lowercase:
        return accents
    return lambda text: accents(text.lower())


def _to_ascii(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _without_accents(text: str) -> str:
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _runs(text: str, least: int, most: int) -> list[str]:
    return [
        text[start : start + length]
        for length in range(least, most + 1)
        for start in range(len(text) - length + 1)
    ]


def _bounded_runs(text: str, least: int, most: int) -> list[str]:
    found = []
    for word in text.split():
        padded = f" {word} "
        for length in range(least, most + 1):
            # a word shorter than a run counts once, whole
            last = max(len(padded) - length, 0)
            found += [padded[start : start + length] for start in range(last + 1)]
            if not last:
                break
    return found
