"""Frames carry columns as they are, and what they claim is checked before it is believed."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cloche.core.signature import NUMPY_TYPES, Columns
from cloche.runtimes import frames
from cloche.runtimes.frames import (
    FrameError,
    FrameReader,
    FrameTooLargeError,
    Reply,
    Request,
    Tensor,
    frame_size,
    pack_columns,
    pack_frame,
    read_columns,
    read_header,
)

NUMBERS = sorted(set(NUMPY_TYPES) - {"BYTES"})


def carried(columns: Columns) -> Columns:
    tensors, body = pack_columns(columns)
    return read_columns(tensors, body)


@given(st.data())
def test_numbers_of_every_type_and_shape_arrive_bit_by_bit(data: st.DataObject) -> None:
    columns = {
        name: data.draw(arrays.arrays(NUMPY_TYPES[name], arrays.array_shapes(min_side=0, max_dims=3)))
        for name in data.draw(st.lists(st.sampled_from(NUMBERS), unique=True))
    }

    found = carried(columns)

    assert list(found) == list(columns)
    for name, column in columns.items():
        assert found[name].dtype == column.dtype
        assert found[name].shape == column.shape
        assert found[name].tobytes() == column.tobytes()


@given(st.lists(st.none() | st.text(alphabet=st.characters(exclude_categories=["Cs"]))))
def test_text_and_what_is_missing_arrive(texts: list[str | None]) -> None:
    column = np.empty(len(texts), dtype=object)
    column[:] = texts

    assert carried({"text": column, "n": np.arange(3.0)})["text"].tolist() == texts


def test_text_in_a_table_keeps_its_shape() -> None:
    table = np.array([["a", None], ["", "ü"]], dtype=object)

    assert carried({"x": table})["x"].tolist() == table.tolist()


def test_columns_that_are_no_rows_of_memory_are_carried_in_order() -> None:
    table = np.arange(12.0).reshape(3, 4)

    assert carried({"x": table.T})["x"].tolist() == table.T.tolist()


def test_numbers_that_arrive_can_be_written_to() -> None:
    tensors, body = pack_columns({"x": np.arange(3.0)})
    left, right = socket.socketpair()
    with left, right:
        left.sendall(pack_frame(Reply(1, "d", tensors), body))
        reader = FrameReader()
        reader.receive(right)
        frame = reader.next()
    assert frame is not None

    column = read_columns(tensors, frame[1])["x"]
    column[0] = 7

    assert column.tolist() == [7, 1, 2]


def test_a_byte_that_is_no_bool_becomes_one() -> None:
    column = read_columns((Tensor("b", "BOOL", (3,), 3),), bytes([0, 1, 255]) + bytes(5))["b"]

    assert column.tobytes() == bytes([0, 1, 1])


@pytest.mark.parametrize(
    ("tensors", "body"),
    [
        pytest.param([Tensor("x", "FP64", (2,), 8)], bytes(8), id="fewer bytes than the shape needs"),
        pytest.param([Tensor("x", "FP64", (-1, -1), 8)], bytes(8), id="negative dims whose product fits"),
        pytest.param([Tensor("x", "FP64", (-1,), -8)], b"", id="a negative size"),
        pytest.param([Tensor("x", "FP64", (2**62, 4), 0)], b"", id="a product that overflows 64 bits to 0"),
        pytest.param([Tensor("x", "FP64", (0, 2**62, 2**62), 0)], b"", id="an empty array that overflows"),
        pytest.param([Tensor("x", "FP64", (), 8)], bytes(8), id="no rows axis"),
        pytest.param([Tensor("x", "FP64", (1,) * 9, 8)], bytes(8), id="nine axes"),
        pytest.param([Tensor("x", "COMPLEX", (1,), 8)], bytes(8), id="an unknown datatype"),
        pytest.param([Tensor("x", "FP64", (1,), 8)], bytes(16), id="bytes left over"),
        pytest.param([Tensor("x", "FP64", (2,), 16)], bytes(8), id="longer than the body"),
        pytest.param([Tensor("x", "FP64", (1,), 8)] * 2, bytes(16), id="a name twice"),
        pytest.param([Tensor("x", "BYTES", (2**40,), 8)], bytes(8), id="more strings than bytes"),
        pytest.param([Tensor("x", "BYTES", (1,), 8)], b"\x92\xa1a\xa1b\xc0\xc0\xc0", id="trailing strings"),
        pytest.param([Tensor("x", "BYTES", (1,), 3)], b"\x91\xa1\xff" + bytes(5), id="no UTF-8"),
        pytest.param([Tensor("x", "BYTES", (1,), 2)], b"\x91\x01" + bytes(6), id="a number for text"),
        pytest.param([Tensor("x", "BYTES", (1,), 1)], b"\xdd" + bytes(7), id="a list that breaks off"),
        pytest.param([Tensor(str(i), "FP64", (0,), 0) for i in range(1025)], b"", id="too many"),
    ],
)
def test_a_tensor_that_can_not_be_is_refused(tensors: list[Tensor], body: bytes) -> None:
    with pytest.raises(FrameError):
        read_columns(tensors, body)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_an_error(data: bytes) -> None:
    try:
        header = read_header(data)
    except FrameError:
        return
    assert header.id is not None


@given(st.binary(max_size=64), st.lists(st.integers(-2, 9), max_size=3), st.sampled_from(sorted(NUMPY_TYPES)))
def test_any_claim_about_any_bytes_is_columns_or_an_error(body: bytes, shape: list[int], kind: str) -> None:
    tensor = Tensor("x", kind, tuple(shape), len(body))
    padded = body + bytes(-len(body) % 8)
    try:
        columns = read_columns((tensor,), padded)
    except FrameError:
        return
    assert columns["x"].shape == tuple(shape)


def test_a_frame_above_the_caps_is_refused_by_its_first_bytes() -> None:
    with pytest.raises(FrameError, match="a frame of 4294967295"):
        frame_size(b"\xff\xff\xff\xff\x00\x00\x00\x00")
    with pytest.raises(FrameError):
        frame_size(b"\x00\x00\x00\x01\xff\xff\xff\xff")


def test_columns_above_the_cap_are_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_BODY", 100)

    with pytest.raises(FrameTooLargeError):
        pack_columns({"x": np.zeros(20)})
    with pytest.raises(FrameTooLargeError):
        pack_columns({"x": np.array(["a" * 200], dtype=object)})
    assert pack_columns({"x": np.zeros(12)})[1] == bytes(96)


def test_what_is_no_text_is_not_packed() -> None:
    with pytest.raises(FrameError, match="'x' holds something that is no text"):
        pack_columns({"x": np.array(["\ud800"], dtype=object)})
    with pytest.raises(FrameError, match="complex"):
        pack_columns({"x": np.zeros(1, dtype=complex)})


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_frames_are_found_whatever_pieces_they_come_in(cuts: list[int]) -> None:
    tensors, body = pack_columns({"x": np.arange(4.0)})
    sent = [Request(number, "digest", 5, tensors) for number in range(3)]
    data = b"".join(pack_frame(request, body) for request in sent)
    left, right = socket.socketpair()
    reader, found = FrameReader(), []
    with left, right:
        while data:
            size = cuts[len(data) % len(cuts)]
            left.sendall(data[:size])
            data = data[size:]
            reader.receive(right)
            while (frame := reader.next()) is not None:
                found.append(frame)
        assert reader.is_between
        left.close()
        with pytest.raises(EOFError):
            reader.receive(right)

    assert [header for header, _ in found] == sent
    assert all(payload == body for _, payload in found)
