"""The Open Inference Protocol: JSON and binary tensors in and out, and every way to describe them wrongly."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cloche.core.errors import InputError
from cloche.core.signature import NUMPY_TYPES, Columns, Field, Signature
from cloche.engine.validate import Flag
from cloche.serving.protocols.base import Live
from cloche.serving.protocols.oip import OipDialect
from cloche.serving.protocols.tensors import check_shape, from_binary, to_binary, to_field


def field(name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (-1,), **facts: Any) -> Field:
    return Field(name=name, datatype=datatype, shape=shape, **facts)


def dialect(*inputs: Field, outputs: tuple[Field, ...] = ()) -> OipDialect:
    return OipDialect(
        Live(
            deployment="m", model="m", version=3, signature=Signature(inputs=inputs, outputs=outputs),
            platform="onnx", description="", examples={}, is_ready=lambda: True,
        )
    )  # fmt: skip


def tensor(name: str = "x", datatype: str = "FP32", shape: Any = (1,), data: Any = (1.0,), **more: Any) -> Any:
    made = {"name": name, "datatype": datatype, "shape": shape, "data": data, **more}
    return {key: value for key, value in made.items() if value is not None}


def body(*tensors: Any, **more: Any) -> bytes:
    return json.dumps({"inputs": list(tensors), **more}).encode()


def refusal(read: Callable[[], Any]) -> InputError:
    with pytest.raises(InputError) as raised:
        read()
    return raised.value


# -- JSON in -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]], [[1.0, 2], [3, 4.0]]])
def test_data_may_be_flat_or_nested(data: Any) -> None:
    columns, _ = dialect(field(shape=(-1, 2))).decode(body(tensor(shape=[2, 2], data=data)), {})
    assert columns["x"].tolist() == [[1, 2], [3, 4]]
    assert columns["x"].dtype == np.float32


def test_a_trailing_axis_of_one_may_stand_or_not() -> None:
    made = dialect(field())
    for shape, data in (([2], [1, 2]), ([2, 1], [1, 2]), ([2, 1], [[1], [2]])):
        assert made.decode(body(tensor(shape=shape, data=data)), {})[0]["x"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("datatype", "data", "expected"),
    [
        ("BOOL", [True, False], [True, False]),
        ("INT64", [-(2**63), 2**63 - 1], [-(2**63), 2**63 - 1]),
        ("UINT64", [0, 2**64 - 1], [0, 2**64 - 1]),
        ("UINT8", [0, 255], [0, 255]),
        ("FP16", [0.5, 1], [0.5, 1]),
        ("FP64", [1e300, 1], [1e300, 1]),
        ("BYTES", ["", "größe"], ["", "größe"]),
    ],
)
def test_every_datatype_comes_in_json(datatype: str, data: Any, expected: Any) -> None:
    columns, _ = dialect(field(datatype=datatype)).decode(
        body(tensor(datatype=datatype, shape=[2], data=data)), {}
    )
    assert columns["x"].tolist() == expected
    assert columns["x"].dtype == NUMPY_TYPES[datatype]


def test_null_stands_for_a_missing_value_where_that_is_allowed() -> None:
    data = body(tensor(shape=[2], data=[1, None]))
    assert np.isnan(dialect(field(missing=True)).decode(data, {})[0]["x"][1])
    assert refusal(lambda: dialect(field()).decode(data, {})).code == "CL-E106"
    strings = body(tensor(datatype="BYTES", shape=[2], data=["a", None]))
    columns, _ = dialect(field(datatype="BYTES", missing=True)).decode(strings, {})
    assert columns["x"].tolist() == ["a", None]


@pytest.mark.parametrize(
    ("sent", "code", "words"),
    [
        (tensor("y"), "CL-E103", "input `y`: this input is not known"),
        (tensor("xx"), "CL-E103", "did you mean `x` for `xx`?"),
        (tensor(datatype="FP8"), "CL-E111", "datatype 'FP8' is not known"),
        (tensor(datatype=""), "CL-E111", "datatype '' is not known"),
        (tensor(shape=[-1]), "CL-E111", "negative dimension"),
        (tensor(shape=[-2, -2]), "CL-E111", "negative dimension"),
        (tensor(shape=[1] * 9), "CL-E111", "9 axes"),
        (tensor(shape=[2]), "CL-E111", "1 values for shape [2]"),
        (tensor(shape=[]), "CL-E110", "shape []"),
        (tensor(shape=[1, 1, 1]), "CL-E110", "shape [1, 1, 1]"),
        (tensor(shape=[2**62, 4]), "CL-E113", "elements"),
        (tensor(shape=[10**30]), "CL-E113", "elements"),
        (tensor(shape=[0, 2**70]), "CL-E11", ""),
        (tensor(data=["1"]), "CL-E105", "value 0 is a string"),
        (tensor(data=[True]), "CL-E105", "value 0 is a boolean"),
        (tensor(data=[{}]), "CL-E105", "value 0 is an object"),
        (tensor(data=3), "CL-E111", "not a list"),
        (tensor(data="x"), "CL-E111", "not a list"),
        (tensor(data=[[1], 2], shape=[2, 1]), "CL-E111", "unevenly"),
        (tensor(data=[[[1]]]), "CL-E105", "value 0 is a list"),
        (tensor(data=None), "CL-E111", "neither `data` nor binary"),
        (tensor(datatype="FP64"), "CL-E105", "datatype FP64"),
        (tensor(datatype="INT32", data=[1.5]), "CL-E105", "value 0 is 1.5, a whole number is expected"),
        (tensor(datatype="UINT8", data=[256]), "CL-E105", "does not fit UINT8"),
        (tensor(datatype="UINT8", data=[-1]), "CL-E105", "does not fit UINT8"),
        (tensor(parameters={"binary_data_size": 4}), "CL-E112", "binary_data_size 4 does not fit"),
        (tensor(parameters={"binary_data_size": -4}, data=None), "CL-E112", "binary_data_size -4 does not fit"),
        (tensor(parameters={"binary_data_size": "4"}, data=None), "CL-E102", "binary_data_size"),
        ({"name": "x"}, "CL-E102", "shape"),
        ({"name": 3, "shape": [1], "datatype": "FP32", "data": [1]}, "CL-E102", "name"),
        (tensor(shape=[1.5]), "CL-E102", "shape"),
        (tensor(shape="1"), "CL-E102", "shape"),
        (tensor(shape=None), "CL-E102", "shape"),
        (3, "CL-E102", ""),
    ],
)
def test_a_tensor_that_is_described_wrongly_is_named(sent: Any, code: str, words: str) -> None:
    error = refusal(lambda: dialect(field()).decode(body(sent), {}))
    assert error.code.startswith(code)
    assert words in error.message


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", "CL-E101"),
        (b"{", "CL-E101"),
        (b"[]", "CL-E102"),
        (b"{}", "CL-E102"),
        (b'{"inputs": null}', "CL-E102"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [NaN]}]}', "CL-E101"),
        (b'{"inputs":' + b"[" * 100_000, "CL-E10"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data":' + b"[" * 100_000 + b"]" * 100_000
         + b"}]}", "CL-E1"),
        (body(tensor(), id=3), "CL-E102"),
        (body(tensor(), outputs=[{"name": "nope"}]), "CL-E111"),
        (body(tensor(), tensor()), "CL-E111"),
        (body(*[tensor()] * 1025), "CL-E113"),
    ],
)  # fmt: skip
def test_a_request_that_is_none_is_refused(sent: bytes, code: str) -> None:
    assert refusal(lambda: dialect(field()).decode(sent, {})).code.startswith(code)


def test_what_is_nested_too_deeply_is_told_in_our_words() -> None:
    start = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data":'
    sent = start + b"[" * 100_000 + b"]" * 100_000 + b"}]}"
    assert "nested too deeply" in refusal(lambda: dialect(field()).decode(sent, {})).message


@pytest.mark.parametrize("media_type", ["text/plain", "multipart/form-data; boundary=x", "application/xml", ""])
def test_another_media_type_is_refused(media_type: str) -> None:
    error = refusal(lambda: dialect(field()).decode(body(tensor()), {b"content-type": media_type.encode()}))
    assert error.code == "CL-E115"


@pytest.mark.parametrize(
    "media_type", ["application/json", "Application/JSON; charset=utf-8", "application/octet-stream"]
)
def test_json_and_octets_are_taken(media_type: str) -> None:
    dialect(field()).decode(body(tensor()), {b"content-type": media_type.encode()})


@pytest.mark.parametrize(
    ("came", "wanted", "is_fine"),
    [
        ("INT32", "INT64", True), ("UINT8", "INT16", True), ("FP32", "FP64", True), ("INT16", "FP32", True),
        ("INT64", "FP64", True), ("BOOL", "INT8", True),
        ("INT64", "INT32", False), ("FP64", "FP32", False), ("INT32", "FP32", False), ("FP32", "INT64", False),
        ("UINT64", "INT64", False), ("BYTES", "FP32", False), ("FP32", "BYTES", False),
    ],
)  # fmt: skip
def test_types_are_widened_where_nothing_is_lost(came: str, wanted: str, is_fine: bool) -> None:
    data = {"BOOL": [True], "BYTES": ["1"]}.get(came, [1])
    sent = body(tensor(datatype=came, data=data))
    made = dialect(field(datatype=wanted))
    if is_fine:
        column = made.decode(sent, {})[0]["x"]
        assert (column.dtype, column.tolist()) == (NUMPY_TYPES[wanted], [1])
    else:
        assert refusal(lambda: made.decode(sent, {})).code == "CL-E105"


def test_an_integer_that_no_double_holds_is_not_widened() -> None:
    sent = body(tensor(datatype="INT64", data=[2**53 + 1]))
    assert refusal(lambda: dialect(field(datatype="FP64")).decode(sent, {})).code == "CL-E105"
    sent = body(tensor(datatype="INT64", data=[-(2**63)]))
    assert refusal(lambda: dialect(field(datatype="FP64")).decode(sent, {})).code == "CL-E105"


# -- binary in -----------------------------------------------------------------------------------------------


def binary(*tensors: tuple[str, Any, str], **more: Any) -> tuple[bytes, dict[bytes, bytes]]:
    parts = [to_binary(array, datatype) for _, array, datatype in tensors]
    described = [
        tensor(name, datatype, list(array.shape), None, parameters={"binary_data_size": len(part)})
        for (name, array, datatype), part in zip(tensors, parts, strict=True)
    ]
    header = body(*described, **more)
    return header + b"".join(parts), {b"inference-header-content-length": str(len(header)).encode()}


@given(st.data())
def test_a_tensor_of_any_type_and_shape_is_read_back_from_its_bytes(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(list(NUMPY_TYPES)))
    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
    if datatype == "BYTES":
        array: Any = np.empty(int(np.prod(shape)), object)
        array[:] = data.draw(st.lists(st.text(max_size=9), min_size=array.size, max_size=array.size))
        array = array.reshape(shape)
    else:
        array = data.draw(arrays.arrays(NUMPY_TYPES[datatype], shape))
    made = dialect(field("pad", "UINT8"), field(datatype=datatype, shape=(-1,) * len(shape)))
    sent, headers = binary(("pad", np.ones(3, np.uint8), "UINT8"), ("x", array, datatype))
    columns, _ = made.decode(sent, headers)
    assert columns["x"].shape == array.shape
    assert columns["x"].dtype == NUMPY_TYPES[datatype]
    np.testing.assert_array_equal(columns["x"], array)
    assert columns["x"].flags.aligned


def test_json_and_binary_inputs_may_stand_side_by_side() -> None:
    made = dialect(field("a"), field("b"))
    header = body(tensor("a"), tensor("b", data=None, parameters={"binary_data_size": 4}))
    columns, _ = made.decode(
        header + struct.pack("<f", 2.5), {b"inference-header-content-length": str(len(header)).encode()}
    )
    assert (columns["a"].tolist(), columns["b"].tolist()) == ([1], [2.5])


@pytest.mark.parametrize("change", [b"x", b"xxxx", b"x" * 1000])
def test_bytes_that_belong_to_nothing_are_refused(change: bytes) -> None:
    sent, headers = binary(("x", np.ones(2, np.float32), "FP32"))
    made = dialect(field())
    assert refusal(lambda: made.decode(sent + change, headers)).code == "CL-E112"
    assert refusal(lambda: made.decode(sent[:-1], headers)).code == "CL-E112"


@pytest.mark.parametrize("length", [b"-1", b"x", b"", b"9999999999999", b"+1", b"1e3", b" 1", b"500"])
def test_a_header_length_that_does_not_fit_is_refused(length: bytes) -> None:
    sent, _ = binary(("x", np.ones(2, np.float32), "FP32"))
    error = refusal(lambda: dialect(field()).decode(sent, {b"inference-header-content-length": length}))
    assert error.code == "CL-E112"


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "code"),
    [
        ("FP32", [2], b"\0" * 7, "CL-E112"),
        ("FP32", [2], b"\0" * 12, "CL-E112"),
        ("INT64", [1], b"", "CL-E112"),
        ("BOOL", [2], b"\1\2", "CL-E105"),
        ("BYTES", [1], b"\5\0\0\0abc", "CL-E112"),  # claims more than there is
        ("BYTES", [1], b"\xff\xff\xff\xffabc", "CL-E112"),
        ("BYTES", [1], b"\1\0\0\0abc", "CL-E112"),  # bytes left over
        ("BYTES", [2], b"\1\0\0\0a", "CL-E112"),
        ("BYTES", [2], b"\4\0\0\0aaaa\1\0", "CL-E112"),
        ("BYTES", [1], b"\2\0\0\0\xff\xfe", "CL-E105"),  # no UTF-8
        ("BYTES", [16_000_000], b"\0\0\0\0", "CL-E112"),
        ("FP32", [2**40, 2**40], b"", "CL-E113"),
        ("FP32", [-1], b"\0" * 4, "CL-E111"),
        ("FP128", [1], b"\0" * 16, "CL-E111"),
    ],
)
def test_binary_data_that_does_not_fit_its_description_is_refused(
    datatype: str, shape: list[int], raw: bytes, code: str
) -> None:
    error = refusal(lambda: from_binary("x", datatype, shape, memoryview(raw)))
    assert error.code == code


@pytest.mark.parametrize(
    ("wanted", "raw", "expected"),
    [
        (field(), struct.pack("<f", 2.5), [2.5]),
        (field(shape=(-1, 2)), struct.pack("<2f", 1, 2), [[1, 2]]),
        (field(shape=(-1, -1)), struct.pack("<3f", 1, 2, 3), [[1, 2, 3]]),
        (field(shape=(-1, -1, 2)), struct.pack("<4f", 1, 2, 3, 4), [[[1, 2], [3, 4]]]),
        (field(datatype="BYTES"), "größe".encode(), ["größe"]),
    ],
)
def test_the_raw_form_is_the_one_input_of_one_row(wanted: Field, raw: bytes, expected: Any) -> None:
    columns, wants = dialect(wanted, outputs=(field("y"),)).decode(raw, {b"inference-header-content-length": b"0"})
    assert columns["x"].tolist() == expected
    assert wants.binary == {"y"}


@pytest.mark.parametrize(
    ("wanted", "raw"),
    [
        ((field(),), b"\0" * 5),
        ((field(),), b""),
        ((field(shape=(-1, 2)),), b"\0" * 4),
        ((field(shape=(-1, -1, 2)),), b"\0" * 4),
        ((field(shape=(-1, -1, -1)),), b"\0" * 4),
        ((field("a"), field("b")), b"\0" * 4),
        ((field(datatype="BYTES", shape=(-1, 2)),), b"ab"),
    ],
)
def test_the_raw_form_needs_one_input_whose_shape_can_be_told(wanted: Any, raw: bytes) -> None:
    error = refusal(lambda: dialect(*wanted).decode(raw, {b"inference-header-content-length": b"0"}))
    assert error.code in ("CL-E112", "CL-E105")


# -- out -----------------------------------------------------------------------------------------------------

OUTPUTS = (field("label", "BYTES"), field("p", "FP32", (-1, 2)))
ANSWER: Columns = {
    "label": np.array(["yes", "größe"], object),
    "p": np.array([[0.25, 0.75], [1, 0]], np.float32),
}


def encoded(request: Any, flags: Any = ()) -> tuple[Any, bytes]:
    made = dialect(field(), outputs=OUTPUTS)
    _, wants = made.decode(json.dumps({"inputs": [tensor()], **request}).encode(), {})
    answer = made.encode(ANSWER, flags, wants, "f" * 24)
    headers = dict(answer.headers)
    length = int(headers.get(b"inference-header-content-length", len(answer.body)))
    assert headers[b"content-type"] == (
        b"application/octet-stream" if b"inference-header-content-length" in headers else b"application/json"
    )
    return json.loads(answer.body[:length]), answer.body[length:]


def test_outputs_are_flat_in_json_with_name_version_and_id() -> None:
    answer, rest = encoded({"id": "mine"})
    assert rest == b""
    assert answer == {
        "model_name": "m",
        "model_version": "3",
        "id": "mine",
        "outputs": [
            {"name": "label", "shape": [2], "datatype": "BYTES", "data": ["yes", "größe"]},
            {"name": "p", "shape": [2, 2], "datatype": "FP32", "data": [0.25, 0.75, 1.0, 0.0]},
        ],
    }
    assert encoded({})[0]["id"] == "f" * 24
    assert encoded({"id": ""})[0]["id"] == ""


def test_outputs_are_chosen_in_the_order_that_is_asked() -> None:
    answer, _ = encoded({"outputs": [{"name": "p"}, {"name": "label"}, {"name": "p"}]})
    assert [output["name"] for output in answer["outputs"]] == ["p", "label"]
    assert [output["name"] for output in encoded({"outputs": []})[0]["outputs"]] == ["label", "p"]


def test_outputs_are_binary_where_that_is_asked() -> None:
    answer, rest = encoded({"parameters": {"binary_data_output": True}})
    sizes = [output["parameters"]["binary_data_size"] for output in answer["outputs"]]
    assert sum(sizes) == len(rest)
    assert from_binary("label", "BYTES", [2], memoryview(rest[: sizes[0]])).tolist() == ["yes", "größe"]
    assert np.frombuffer(rest[sizes[0] :], "<f4").tolist() == [0.25, 0.75, 1, 0]
    answer, rest = encoded({"outputs": [{"name": "label"}, {"name": "p", "parameters": {"binary_data": True}}]})
    assert "data" in answer["outputs"][0]
    assert len(rest) == answer["outputs"][1]["parameters"]["binary_data_size"] == 16
    answer, rest = encoded(
        {
            "parameters": {"binary_data_output": True},
            "outputs": [{"name": "p", "parameters": {"binary_data": False}}, {"name": "label"}],
        }
    )
    assert ["data" in output for output in answer["outputs"]] == [True, False]


def test_flags_stand_in_the_parameters() -> None:
    answer, _ = encoded({}, (Flag(1, "x", "CL-E109"),))
    assert json.loads(answer["parameters"]["flags"]) == [{"row": 1, "field": "x", "code": "CL-E109"}]


@pytest.mark.parametrize("datatype", [name for name in NUMPY_TYPES if name != "BYTES"])
def test_outputs_of_every_type_encode(datatype: str) -> None:
    made = dialect(field(), outputs=(field("y", datatype),))
    _, wants = made.decode(body(tensor()), {})
    array = np.ones(2, NUMPY_TYPES[datatype])
    answer = json.loads(made.encode({"y": array}, (), wants, "i").body)
    assert answer["outputs"][0]["data"] == [1, 1]


def test_problems_are_the_protocols_and_carry_the_code_in_a_header() -> None:
    answer = dialect(field()).problem(InputError("no", code="CL-E104", hint="do"), "id")
    assert (answer.status, json.loads(answer.body)) == (422, {"error": "no (do)"})
    assert (b"cloche-error", b"CL-E104") in answer.headers


def test_a_claim_is_checked_before_anything_is_made() -> None:
    assert check_shape("x", "FP32", [4, 4_000_000]) == 16_000_000
    assert refusal(lambda: check_shape("x", "FP32", [4, 4_000_001])).code == "CL-E113"
    assert check_shape("x", "FP32", [0, 5]) == 0


def test_a_column_has_its_fields_shape() -> None:
    column = to_field(np.arange(4, dtype=np.float32), field(shape=(-1, 2)), "FP32", [2, 2])
    assert column.tolist() == [[0, 1], [2, 3]]
    assert (
        refusal(lambda: to_field(np.zeros(6, np.float32), field(shape=(-1, 2)), "FP32", [2, 3])).code == "CL-E110"
    )
