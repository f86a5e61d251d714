"""Compressed bodies: read to the last byte, never to more than may be taken."""

from __future__ import annotations

import gzip
import io
import random
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cloche.core.errors import InputError
from cloche.serving.inflate import TooLargeError, inflate

MOST = 1_000_000


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


def zstd_stream(data: bytes) -> bytes:
    """A frame that does not say how much it holds."""
    out = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(out, closefd=False) as writer:
        writer.write(data)
    return out.getvalue()


WAYS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstandard.compress),
    ("zstd", zstd_stream),
]
EACH = pytest.mark.parametrize(
    ("coding", "squeeze"), WAYS, ids=[f"{name}{at}" for at, (name, _) in enumerate(WAYS)]
)


@EACH
@given(data=st.binary(max_size=3000), times=st.sampled_from([1, 7, 100]))
def test_what_was_compressed_is_read(
    coding: str, squeeze: Callable[[bytes], bytes], data: bytes, times: int
) -> None:
    assert inflate(squeeze(data * times), coding.encode(), MOST) == data * times


@EACH
def test_up_to_the_limit_and_not_a_byte_beyond(coding: str, squeeze: Callable[[bytes], bytes]) -> None:
    data = random.Random(1).randbytes(500) * 200
    assert inflate(squeeze(data), coding.encode(), len(data)) == data
    with pytest.raises(TooLargeError):
        inflate(squeeze(data + b"x"), coding.encode(), len(data))


@EACH
def test_a_bomb_costs_no_more_than_the_limit(coding: str, squeeze: Callable[[bytes], bytes]) -> None:
    bomb = squeeze(bytes(30_000_000))
    start = time.process_time()
    with pytest.raises(TooLargeError):
        inflate(bomb, coding.encode(), MOST)
    assert time.process_time() - start < 0.2


@EACH
def test_a_body_that_is_cut_off_or_bent_is_refused(coding: str, squeeze: Callable[[bytes], bytes]) -> None:
    data = random.Random(1).randbytes(5000)
    whole = squeeze(data)
    for size in (0, 1, 5, 20, len(whole) // 2, len(whole) - 1):
        with pytest.raises(InputError) as raised:
            inflate(whole[:size], coding.encode(), MOST)
        assert raised.value.code == "CL-E101"
    with pytest.raises(InputError):
        inflate(b"nothing of the kind", coding.encode(), MOST)


def test_members_and_frames_one_behind_the_other_are_one_body() -> None:
    assert inflate(gzip.compress(b"a") + gzip.compress(b"b"), b"gzip", MOST) == b"ab"
    assert inflate(zstandard.compress(b"a") + zstandard.compress(b"b"), b"zstd", MOST) == b"ab"
    with pytest.raises(InputError, match="left over"):
        inflate(zlib.compress(b"a") + b"b", b"deflate", MOST)
    with pytest.raises(InputError, match="members"):
        inflate(gzip.compress(b"") * 10_001, b"gzip", MOST)


def test_a_window_that_would_fill_the_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    out = io.BytesIO()
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(out, closefd=False) as writer:
        writer.write(b"x" * 1000)
    with pytest.raises(InputError, match="zstd"):
        inflate(out.getvalue(), b"zstd", MOST)


@pytest.mark.parametrize("coding", [b"", b"identity", b" Identity "])
def test_a_plain_body_stays_as_it_is(coding: bytes) -> None:
    assert inflate(b"x", coding, MOST) == b"x"


@pytest.mark.parametrize("coding", [b"br", b"gzip, gzip", b"compress", b"\xff", b"x" * 500])
def test_another_coding_is_refused_in_words(coding: bytes) -> None:
    with pytest.raises(InputError) as raised:
        inflate(b"x", coding, MOST)
    assert raised.value.code == "CL-E115"
    assert "gzip" in str(raised.value.hint)


def test_a_bomb_over_http_is_too_large(make_door: Any, run: Any, row: Any) -> None:
    async def scenario() -> None:
        async with make_door(max_body=10_000).open() as door:
            for path, coding, squeeze in (
                ("/predict/fraud", "gzip", gzip.compress),
                ("/v2/models/fraud/infer", "deflate", zlib.compress),
                ("/invocations", "zstd", zstandard.compress),
            ):
                answer = await door.ask(path, squeeze(b" " * 10_001), headers={"content-encoding": coding})
                assert answer.status == 413, answer.body
                assert b"10,000" in answer.body
                assert door.app.held == 0

    run(scenario())
