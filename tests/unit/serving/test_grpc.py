"""The gRPC door on a real socket: Google's own client for what callers see, raw frames for the rest."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import h2.config
import h2.connection
import h2.events
import numpy as np
import pytest

from cloche.core.keys import KeyRing, mint_key
from cloche.core.signature import NUMPY_TYPES, Columns, Field, Signature
from cloche.core.units import Rate
from cloche.engine.cost import CostLine
from cloche.serving.grpc import connection
from cloche.serving.grpc import messages as pb
from cloche.serving.grpc.calls import _METHODS, WATCH
from cloche.serving.grpc.inference import INFER
from cloche.serving.grpc.server import GrpcServer
from cloche.serving.guard import Policy

Run = Callable[[Any], None]
MakeDoor = Callable[..., Any]
SERVICE = "/inference.GRPCInferenceService/"
KEYED = Policy(keys_required=True, loopback=True)


class Grpc:
    """A Grpc is a door with gRPC beside it, and a client of it."""

    def __init__(self, door: Any, server: GrpcServer, address: tuple[str, int], channel: grpc.aio.Channel) -> None:
        self.door = door
        self.server = server
        self.address = address
        self.channel = channel

    def call(self, method: str, request: Any, answer: Any, **options: Any) -> Any:
        path = method if method.startswith("/") else SERVICE + method
        ask = self.channel.unary_unary(
            path, request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )  # fmt: skip
        return ask(request, **options)

    def infer(self, message: Any, **options: Any) -> Any:
        return self.call("ModelInfer", message, pb.ModelInferResponse, **options)

    async def refused(self, message: Any, **options: Any) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.infer(message, **options)
        return raised.value

    def count(self, code: str) -> int:
        slot = self.door.slot
        labels = {"deployment": "fraud", "version": "3", "dialect": "grpc", "code": code}
        return int(slot.cells[slot.series(name="cloche_requests_total", **labels)])


@pytest.fixture
def serve(make_door: MakeDoor) -> Callable[..., Any]:
    @asynccontextmanager
    async def serving(*options: tuple[str, Any], **door_options: Any) -> AsyncIterator[Grpc]:
        door = make_door(**door_options)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            server = GrpcServer(door.app, door.state, [listening])
            await server.start()
            address = listening.getsockname()
            target = f"{address[0]}:{address[1]}"
            try:
                async with grpc.aio.insecure_channel(target, options=options) as channel:
                    yield Grpc(door, server, address, channel)
            finally:
                await server.stop(5.0)
            await until(lambda: server.connections == 0)
            assert door.app.held == 0
        door.batcher.close()

    return serving


def typed(age: int = 41, **fields: Any) -> Any:
    """A row of `fraud` in typed contents."""
    message = pb.ModelInferRequest(model_name="fraud", **fields)
    add = message.inputs.add
    add(name="age", datatype="INT64", shape=[1]).contents.int64_contents.append(age)
    add(name="pay", datatype="FP64", shape=[1]).contents.fp64_contents.append(1000.0)
    add(name="job", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"cook")
    add(name="point", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([0.5, 1.5])
    return message


def raw(count: int = 1, **fields: Any) -> Any:
    """So many rows of `fraud` in raw contents."""
    message = pb.ModelInferRequest(model_name="fraud", **fields)
    parts = {
        "age": ("INT64", [count], np.full(count, 100, "<i8").tobytes()),
        "pay": ("FP64", [count, 1], np.full(count, np.nan, "<f8").tobytes()),
        "job": ("BYTES", [count], (struct.pack("<I", 5) + b"nurse") * count),
        "point": ("FP32", [count, 2], np.zeros((count, 2), "<f4").tobytes()),
    }
    for name, (datatype, shape, data) in parts.items():
        message.inputs.add(name=name, datatype=datatype, shape=shape)
        message.raw_input_contents.append(data)
    return message


def test_typed_contents_are_answered_in_typed_contents(run: Run, serve: Any) -> None:
    async def scenario() -> None:
        async with serve() as up:
            call = up.infer(typed(id="mine"), metadata=[("x-request-id", "r-1")])
            answer = await call
            assert (answer.model_name, answer.model_version, answer.id) == ("fraud", "3", "mine")
            label, probabilities = answer.outputs
            assert (label.name, label.datatype, list(label.shape)) == ("label", "BYTES", [1])
            assert list(label.contents.bytes_contents) == [b"no"]
            assert list(probabilities.shape) == [1, 2]
            np.testing.assert_allclose(probabilities.contents.fp32_contents, [0.795, 0.205], rtol=1e-6)
            assert not answer.raw_output_contents
            trailers = dict(await call.trailing_metadata())
            assert trailers["cloche-model"] == "fraud-model:3"
            assert len(trailers["cloche-prediction-id"]) == 24
            assert trailers["x-request-id"] == "r-1"
            assert up.count("200") == 1

    run(scenario())


def test_raw_contents_are_answered_in_raw_contents(run: Run, serve: Any) -> None:
    async def scenario() -> None:
        async with serve() as up:
            message = raw(3)
            message.outputs.add(name="probabilities")
            answer = await up.infer(message)
            assert [output.name for output in answer.outputs] == ["probabilities"]
            (data,) = answer.raw_output_contents
            np.testing.assert_array_equal(np.frombuffer(data, "<f4").reshape(3, 2), [[0.5, 0.5]] * 3)
            assert not answer.outputs[0].HasField("contents")
            assert len(answer.id) == 24

    run(scenario())


class Echo:
    in_process = True

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        return {f"{name}_again": column for name, column in columns.items()}

    def close(self) -> None: ...


SAMPLES: dict[str, list[Any]] = {
    "BOOL": [True, False], "BYTES": ["Ö", ""], "FP16": [0.5, -2.0], "FP32": [0.1, -2.0], "FP64": [0.1, 1e300],
    **{name: [np.iinfo(dtype).min, np.iinfo(dtype).max] for name, dtype in NUMPY_TYPES.items() if "INT" in name},
}  # fmt: skip


@pytest.mark.parametrize("datatype", NUMPY_TYPES)
def test_every_datatype_comes_back_as_it_went(run: Run, serve: Any, datatype: str) -> None:
    field = Field(name="x", datatype=datatype, shape=(-1,))
    signature = Signature(inputs=(field,), outputs=(Field(name="x_again", datatype=datatype, shape=(-1,)),))
    array = np.array(SAMPLES[datatype], NUMPY_TYPES[datatype])
    place = {
        "FP32": "fp32",
        "FP64": "fp64",
        "BOOL": "bool",
        "BYTES": "bytes",
        "INT64": "int64",
        "UINT64": "uint64",
    }

    async def scenario() -> None:
        async with serve(signature=signature, examples={"x": array}, runtime=Echo()) as up:
            message = pb.ModelInferRequest(model_name="fraud")
            tensor = message.inputs.add(name="x", datatype=datatype, shape=[2])
            if datatype != "FP16":
                values = [one.encode() if isinstance(one, str) else one for one in array.tolist()]
                name = place.get(datatype, "uint" if datatype.startswith("U") else "int") + "_contents"
                getattr(tensor.contents, name).extend(values)
                answer = await up.infer(message)
                assert list(getattr(answer.outputs[0].contents, name)) == values
            tensor.ClearField("contents")
            data = array.tobytes()
            if datatype == "BYTES":
                data = b"".join(struct.pack("<I", len(one.encode())) + one.encode() for one in array)
            message.raw_input_contents.append(data)
            answer = await up.infer(message)
            assert answer.raw_output_contents[0] == data

    run(scenario())


def bent(**changes: Any) -> Any:
    """`typed` with the first input changed."""
    message = typed()
    for name, value in changes.items():
        if name == "shape":
            message.inputs[0].shape[:] = value
        elif name == "contents":
            message.inputs[0].ClearField("contents")
            for place, values in value.items():
                getattr(message.inputs[0].contents, place).extend(values)
        else:
            setattr(message.inputs[0], name, value)
    return message


def small(value: int) -> Any:
    return bent(datatype="INT8", contents={"int_contents": [value]})


def with_outputs(*names: str) -> Any:
    message = typed()
    for name in names:
        message.outputs.add(name=name)
    return message


def short() -> Any:
    message = raw()
    message.raw_input_contents[0] = b"1234567"
    return message


def both() -> Any:
    message = raw()
    message.inputs[0].contents.int64_contents.append(1)
    return message


def missing() -> Any:
    message = typed()
    del message.inputs[0]
    return message


def missing_raw() -> Any:
    message = raw()
    del message.raw_input_contents[3]
    return message


INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("message", "status", "code", "words"),
    [
        (bent(name="agge"), INVALID, "CL-E103", "did you mean `age`"),
        (
            bent(datatype="FP64", contents={"fp64_contents": [0.5]}),
            INVALID,
            "CL-E105",
            "input `age`: datatype FP64",
        ),
        (bent(datatype="COMPLEX"), INVALID, "CL-E111", "input `age`: datatype 'COMPLEX' is not known"),
        (bent(datatype="BF16"), INVALID, "CL-E111", "input `age`: datatype 'BF16' is not known"),
        (bent(datatype="FP16"), INVALID, "CL-E111", "input `age`: FP16 has no typed contents"),
        (bent(datatype="FP64"), INVALID, "CL-E111", "input `age`: FP64 came as int64_contents"),
        (bent(shape=[2]), INVALID, "CL-E112", "input `age`: 1 values for shape [2]"),
        (bent(shape=[-1]), INVALID, "CL-E111", "input `age`: shape [-1] has a negative dimension"),
        (bent(shape=[10**12, 10**12]), grpc.StatusCode.RESOURCE_EXHAUSTED, "CL-E113", "input `age`"),
        (small(300), INVALID, "CL-E105", "input `age`: a value does not fit INT8"),
        (bent(name="point", datatype="FP32"), INVALID, "CL-E111", "`point`"),
        (missing(), INVALID, "CL-E104", "age"),
        (short(), INVALID, "CL-E112", "input `age`: 7 bytes"),
        (both(), INVALID, "CL-E112", "input `age`: it has `contents` beside"),
        (missing_raw(), INVALID, "CL-E112", "3 raw_input_contents for 4 inputs"),
        (with_outputs("scores"), INVALID, "CL-E111", "output `scores` is not known"),
        (pb.ModelInferRequest(model_name="spam"), grpc.StatusCode.NOT_FOUND, "CL-E305", "'spam'"),
        (typed(model_version="9"), grpc.StatusCode.NOT_FOUND, "CL-E305", "'9'"),
        (
            pb.ModelInferRequest(model_name="fraud/versions/3"),
            grpc.StatusCode.NOT_FOUND,
            "CL-E305",
            "fraud/versions",
        ),
    ],
)
def test_what_is_wrong_is_named(
    run: Run, serve: Any, message: Any, status: grpc.StatusCode, code: str, words: str
) -> None:
    async def scenario() -> None:
        async with serve() as up:
            error = await up.refused(message)
            assert error.code() == status
            assert words in error.details()
            assert dict(error.trailing_metadata())["cloche-error"] == code

    run(scenario())


def test_a_small_integer_is_widened_and_a_version_may_be_named(run: Run, serve: Any) -> None:
    async def scenario() -> None:
        async with serve() as up:
            message = small(100)
            message.model_version = "3"
            assert (await up.infer(message)).outputs[1].contents.fp32_contents[1] == 0.5

    run(scenario())


def test_metadata_and_health_are_told(run: Run, serve: Any) -> None:
    async def scenario() -> None:
        async with serve() as up:
            assert (await up.call("ServerLive", pb.Nothing(), pb.ServerLiveResponse)).live
            assert (await up.call("ServerReady", pb.Nothing(), pb.ServerReadyResponse)).ready
            server = await up.call("ServerMetadata", pb.Nothing(), pb.ServerMetadataResponse)
            assert (server.name, list(server.extensions)) == ("cloche", ["binary_tensor_data"])
            asked = pb.ModelMetadataRequest(name="fraud")
            model = await up.call("ModelMetadata", asked, pb.ModelMetadataResponse)
            assert (model.name, list(model.versions), model.platform) == ("fraud", ["3"], "onnx")
            shown = [(field.name, field.datatype, list(field.shape)) for field in model.inputs]
            assert shown[3] == ("point", "FP32", [-1, 2])
            ready = pb.ModelReadyRequest(name="fraud", version="3")
            assert (await up.call("ModelReady", ready, pb.ModelReadyResponse)).ready
            for service, status in (("", 1), ("inference.GRPCInferenceService", 1)):
                asked = pb.HealthCheckRequest(service=service)
                answer = await up.call("/grpc.health.v1.Health/Check", asked, pb.HealthCheckResponse)
                assert answer.status == status
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                asked = pb.HealthCheckRequest(service="other")
                await up.call("/grpc.health.v1.Health/Check", asked, pb.HealthCheckResponse)
            assert raised.value.code() == grpc.StatusCode.NOT_FOUND
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await up.call("ModelStream", pb.Nothing(), pb.Nothing)
            assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
            up.door.state.is_ready = False
            assert not (await up.call("ServerReady", pb.Nothing(), pb.ServerReadyResponse)).ready

    run(scenario())


def test_who_watches_hears_of_the_drain(run: Run, serve: Any) -> None:
    async def scenario() -> None:
        async with serve() as up:
            watch = up.channel.unary_stream(
                WATCH.decode(), request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=pb.HealthCheckResponse.FromString,
            )(pb.HealthCheckRequest())  # fmt: skip
            assert (await watch.read()).status == 1
            up.door.state.is_draining = True
            up.server.drain()
            assert (await watch.read()).status == 2
            await up.server.stop(1.0)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await watch.read()
            assert raised.value.code() == grpc.StatusCode.UNAVAILABLE

    run(scenario())


def test_every_method_but_the_public_ones_needs_a_key(run: Run, serve: Any) -> None:
    key = mint_key("mobile", created=time.time())
    public = {"ServerLive", "ServerReady", "Check"}

    async def scenario() -> None:
        async with serve(policy=KEYED, keys=KeyRing([key.record])) as up:
            methods = {path.decode(): method.request for path, method in _METHODS.items()}
            for path, request in (methods | {INFER.decode(): pb.ModelInferRequest, "/a.B/C": pb.Nothing}).items():
                message = request()
                for name in ("name", "model_name"):
                    if name in request.DESCRIPTOR.fields_by_name:
                        setattr(message, name, "fraud")
                for metadata in ([], [("authorization", "Bearer clk_live_wrong")]):
                    call = up.call(path, message, pb.Nothing, metadata=metadata)
                    is_refused = await call.code() == grpc.StatusCode.UNAUTHENTICATED
                    assert is_refused == (path.rpartition("/")[2] not in public), path
            bearer = [("authorization", f"Bearer {key.text}")]
            assert (await up.infer(typed(), metadata=bearer)).model_name == "fraud"
            asked = pb.ModelMetadataRequest(name="fraud")
            assert (
                await up.call("ModelMetadata", asked, pb.ModelMetadataResponse, metadata=bearer)
            ).name == "fraud"
            assert up.count("401") == 2
            error = await up.refused(pb.ModelInferRequest(model_name="spam"))
            assert error.code() == grpc.StatusCode.UNAUTHENTICATED
            assert "fraud" not in error.details()

    run(scenario())


def test_scopes_and_limits_hold(run: Run, serve: Any) -> None:
    metrics = mint_key("metrics", scopes=["metrics"], created=time.time())
    mobile = mint_key("mobile", created=time.time())
    policy = Policy(keys_required=True, loopback=True, limits={"mobile": Rate(2, 60)})

    async def scenario() -> None:
        async with serve(policy=policy, keys=KeyRing([metrics.record, mobile.record])) as up:
            error = await up.refused(typed(), metadata=[("authorization", f"Bearer {metrics.text}")])
            assert error.code() == grpc.StatusCode.PERMISSION_DENIED
            bearer = [("authorization", f"Bearer {mobile.text}")]
            await up.infer(typed(), metadata=bearer)
            await up.infer(typed(), metadata=bearer)
            error = await up.refused(typed(), metadata=bearer)
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            trailers = dict(error.trailing_metadata())
            assert trailers["cloche-error"] == "CL-E604"
            assert int(trailers["retry-after"]) > 0

    run(scenario())


def test_a_keyless_caller_is_refused_before_all_of_a_large_message(run: Run, serve: Any) -> None:
    async def scenario() -> None:
        async with serve(policy=KEYED) as up, Frames(up.address).open() as client:
            call = await client.begin(INFER)
            await client.send(call, struct.pack("!BI", 0, 900_000) + bytes(70_000))
            assert (await client.ends(call))["grpc-status"] == "16"

    run(scenario())


def test_a_message_may_be_as_large_as_a_body(run: Run, serve: Any) -> None:
    async def scenario() -> None:
        async with serve(max_body=400_000) as up:
            answer = await up.infer(raw(12_000))  # read on the side thread
            assert len(answer.raw_output_contents[1]) == 96_000
            error = await up.refused(raw(20_000))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "at most 400,000" in error.details()
            assert dict(error.trailing_metadata())["cloche-error"] == "CL-E114"

    run(scenario())


def test_gzip_is_taken_and_held_to_the_limit(run: Run, serve: Any) -> None:
    async def scenario() -> None:
        async with serve(max_body=400_000) as up:
            squeezed = {"compression": grpc.Compression.Gzip}
            assert (await up.infer(raw(1_000), **squeezed)).outputs[0].shape == [1_000]
            error = await up.refused(raw(20_000), **squeezed)
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

    run(scenario())


def test_very_many_parts_are_refused_before_they_are_made(run: Run, serve: Any) -> None:
    async def scenario() -> None:
        async with serve() as up, Frames(up.address).open() as client:
            call = await client.begin(INFER)
            await client.send(call, b"\x2a\x00" * 100_000, prefix=True, ends=True)
            assert (await client.ends(call))["cloche-error"] == "CL-E113"
            call = await client.begin(INFER)
            await client.send(call, b"\xff" * 100_000, prefix=True, ends=True)
            trailers = await client.ends(call)
            assert (trailers["grpc-status"], trailers["cloche-error"]) == ("3", "CL-E101")

    run(scenario())


def slow_cost() -> CostLine:
    """A cost that calls for the model thread and is not forgotten after one quick answer."""
    cost = CostLine()
    for _ in range(100):
        cost.observe(1, 0.01)
    return cost


def test_the_callers_deadline_is_the_requests(run: Run, serve: Any) -> None:
    gate = threading.Event()

    async def scenario() -> None:
        async with serve(cost=slow_cost()) as up, Frames(up.address).open() as client:
            up.door.runtime.acts = lambda _: gate.wait(10)
            first = asyncio.ensure_future(up.infer(typed()))
            await until(lambda: up.door.slot.cells[up.door.slot.place(6)])
            call = await client.begin(INFER, **{"grpc-timeout": "50m"})
            await client.send(call, typed(42).SerializeToString(), prefix=True, ends=True)
            trailers = await client.ends(call)
            assert (trailers["grpc-status"], trailers["cloche-error"]) == ("4", "CL-E602")
            gate.set()
            await first
            assert up.door.runtime.rows == 1
            assert up.count("504") == 1

    run(scenario())


def test_what_its_caller_gave_up_is_not_run(run: Run, serve: Any) -> None:
    gate = threading.Event()

    async def scenario() -> None:
        async with serve(cost=slow_cost()) as up:
            up.door.runtime.acts = lambda _: gate.wait(10)
            first = asyncio.ensure_future(up.infer(typed()))
            await until(lambda: up.door.slot.cells[up.door.slot.place(6)])
            second = up.infer(typed(42))
            await until(lambda: up.door.slot.cells[up.door.slot.place(7)] == 2)
            second.cancel()
            await until(lambda: up.count("499") == 1)
            gate.set()
            await first
            assert up.door.runtime.rows == 1

    run(scenario())


def test_a_failing_model_is_an_internal_error(run: Run, serve: Any) -> None:
    async def scenario() -> None:
        async with serve() as up:
            up.door.runtime.acts = lambda _: 1 / 0
            error = await up.refused(typed())
            assert error.code() == grpc.StatusCode.INTERNAL
            assert up.count("500") == 1

    run(scenario())


def test_both_protocols_share_a_batch(run: Run, serve: Any) -> None:
    gate = threading.Event()
    batches: list[int] = []

    def act(columns: Columns) -> None:
        batches.append(len(columns["age"]))
        gate.wait(10)

    async def scenario() -> None:
        async with serve(cost=slow_cost()) as up:
            up.door.runtime.acts = act
            first = asyncio.ensure_future(up.infer(typed()))
            await until(lambda: batches)
            row = {"age": 40, "pay": 1.0, "job": "cook", "point": [0.5, 1.5]}
            over_http = asyncio.ensure_future(up.door.call("POST", "/predict/fraud", json.dumps(row).encode()))
            over_grpc = asyncio.ensure_future(up.infer(typed(42)))
            await until(lambda: up.door.slot.cells[up.door.slot.place(7)] == 3)
            gate.set()
            assert (await over_http).status == 200
            await asyncio.gather(first, over_grpc)
            assert batches == [1, 2]

    run(scenario())


def test_a_drain_answers_what_is_in_flight_and_what_comes_late(run: Run, serve: Any) -> None:
    gate = threading.Event()

    async def scenario() -> None:
        async with serve(cost=slow_cost()) as up, Frames(up.address).open() as client:
            up.door.runtime.acts = lambda _: gate.wait(10)
            first = await client.begin(INFER)
            await client.send(first, typed().SerializeToString(), prefix=True, ends=True)
            await until(lambda: up.door.slot.cells[up.door.slot.place(6)])
            up.server.drain()
            late = await client.begin(INFER)  # sent before its GOAWAY is read
            await client.send(late, typed(42).SerializeToString(), prefix=True, ends=True)
            stopping = asyncio.ensure_future(up.server.stop(10.0))
            await until(lambda: up.door.slot.cells[up.door.slot.place(7)] == 2)
            gate.set()
            assert (await client.ends(first))["grpc-status"] == "0"
            assert (await client.ends(late))["grpc-status"] == "0"
            await client.closes()
            assert client.goaways == [2**31 - 1, 3]
            await stopping

    run(scenario())


def test_who_comes_while_it_drains_is_answered_and_sent_elsewhere(run: Run, serve: Any) -> None:
    async def scenario() -> None:
        async with serve() as up:
            up.server.drain()
            async with Frames(up.address).open() as client:
                call = await client.begin(INFER)
                await client.send(call, typed().SerializeToString(), prefix=True, ends=True)
                assert (await client.ends(call))["grpc-status"] == "0"
                await client.closes()
                assert client.goaways == [2**31 - 1, 1]

    run(scenario())


def test_a_client_that_shuts_down_gets_the_answers_to_its_calls(run: Run, serve: Any) -> None:
    gate = threading.Event()

    async def scenario() -> None:
        async with serve(cost=slow_cost()) as up, Frames(up.address).open() as client:
            up.door.runtime.acts = lambda _: gate.wait(10)
            call = await client.begin(INFER)
            await client.send(call, typed().SerializeToString(), prefix=True, ends=True)
            await client.write(bytes.fromhex("000008070000000000") + bytes(8))  # GOAWAY, as Java's shutdown() does
            await until(lambda: up.door.slot.cells[up.door.slot.place(6)])
            gate.set()
            assert (await client.ends(call))["grpc-status"] == "0"
            await client.closes()

    run(scenario())


def test_an_answer_waits_for_room_at_the_callers(run: Run, serve: Any) -> None:
    async def scenario() -> None:
        async with serve() as up, Frames(up.address, window=1_000).open() as client:
            call = await client.begin(INFER)
            await client.send(call, raw(5_000).SerializeToString(), prefix=True, ends=True)
            await until(lambda: client.received[call] == 1_000)
            client.h2.increment_flow_control_window(1_000_000, call)
            client.h2.increment_flow_control_window(1_000_000)
            await client.write(b"")
            assert (await client.ends(call))["grpc-status"] == "0"
            assert client.received[call] > 40_000

    run(scenario())


def test_old_connections_are_sent_elsewhere(run: Run, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "AGE_S", -1.0)

    async def scenario() -> None:
        async with serve() as up:
            for _ in range(5):
                assert (await up.infer(typed())).model_name == "fraud"
                up.server.tick()

    run(scenario())


@pytest.mark.parametrize("frame", ["ping", "reset"])
def test_a_flood_of_frames_that_ask_for_nothing_ends_the_connection(run: Run, serve: Any, frame: str) -> None:
    async def scenario() -> None:
        async with serve() as up, Frames(up.address).open() as client:
            for _ in range(connection.MOST_CONTROL + 10):
                if frame == "ping":
                    client.h2.ping(b"12345678")
                else:
                    call = client.request(INFER)
                    client.h2.reset_stream(call)
            await client.write(b"")
            await client.closes()
            assert client.error == 11  # ENHANCE_YOUR_CALM

    run(scenario())


def test_what_is_no_grpc_is_refused(run: Run, serve: Any) -> None:
    async def scenario() -> None:
        async with serve() as up:
            async with Frames(up.address).open() as client:
                call = await client.begin(INFER, **{"content-type": "application/json"}, ends=True)
                assert (await client.ends(call))[":status"] == "415"
                call = await client.begin(INFER, ends=True)
                assert (await client.ends(call))["grpc-status"] == "3"
                call = await client.begin(INFER)
                await client.send(call, b"\0\0\0\0\0" * 2, ends=True)  # two messages
                assert (await client.ends(call))["grpc-status"] == "3"
            reader, writer = await asyncio.open_connection(*up.address)
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert b"HTTP/1.1 200" not in await asyncio.wait_for(reader.read(), 5)
            writer.close()

    run(scenario())


def test_a_message_that_comes_too_slowly_is_refused(run: Run, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloche.serving.grpc.stream.HEADER_S", 0.0)

    async def scenario() -> None:
        async with serve() as up, Frames(up.address).open() as client:
            call = await client.begin(INFER)
            await until(lambda: any(one.streams for one in up.server._connections))
            up.server.tick()
            assert (await client.ends(call))["cloche-error"] == "CL-E119"

    run(scenario())


async def until(condition: Callable[[], Any]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends, "not within 10 s"
        await asyncio.sleep(0.005)


class Frames:
    """A Frames is a client that does what it is told, frame by frame."""

    def __init__(self, address: tuple[str, int], window: int | None = None) -> None:
        self._address = address
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._window = window
        self._headers: dict[int, dict[str, str]] = {}
        self._ended: dict[int, asyncio.Event] = {}
        self._closed = asyncio.Event()
        self.received: dict[int, int] = {}
        self.goaways: list[int] = []
        self.error: int | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Frames]:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        self.h2.initiate_connection()
        if self._window is not None:
            self.h2.update_settings({4: self._window})
        await self.write(b"")
        reading = asyncio.ensure_future(self._read())
        try:
            yield self
        finally:
            reading.cancel()
            self._writer.close()

    async def write(self, data: bytes) -> None:
        self._writer.write(self.h2.data_to_send() + data)
        await asyncio.sleep(0)

    def request(self, path: bytes, *, ends: bool = False, **headers: str) -> int:
        call = int(self.h2.get_next_available_stream_id())
        fields = {":method": "POST", ":scheme": "http", ":path": path.decode(), ":authority": "a"}
        fields |= {"content-type": "application/grpc", "te": "trailers"} | headers
        self.h2.send_headers(call, list(fields.items()), end_stream=ends)
        self._headers[call], self._ended[call], self.received[call] = {}, asyncio.Event(), 0
        return call

    async def begin(self, path: bytes, *, ends: bool = False, **headers: str) -> int:
        call = self.request(path, ends=ends, **headers)
        await self.write(b"")
        return call

    async def send(self, call: int, data: bytes, *, prefix: bool = False, ends: bool = False) -> None:
        if prefix:
            data = struct.pack("!BI", 0, len(data)) + data
        while data:
            room = min(self.h2.local_flow_control_window(call), self.h2.max_outbound_frame_size)
            if room == 0:
                await asyncio.sleep(0.001)
                continue
            part, data = data[:room], data[room:]
            self.h2.send_data(call, part, end_stream=ends and not data)
            await self.write(b"")

    async def ends(self, call: int) -> dict[str, str]:
        await asyncio.wait_for(self._ended[call].wait(), 10)
        return self._headers[call]

    async def closes(self) -> None:
        await asyncio.wait_for(self._closed.wait(), 10)

    async def _read(self) -> None:
        data = b""
        try:
            while more := await self._reader.read(65536):
                *frames, data = _frames(data + more)
                for frame in frames:
                    if frame[3] == 7:  # h2 would take a GOAWAY for the end of everything
                        last, self.error = struct.unpack("!II", frame[9:17])
                        self.goaways.append(last)
                    else:
                        self._hear(self.h2.receive_data(frame))
                await self.write(b"")
        finally:
            self._closed.set()

    def _hear(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                self._headers[event.stream_id] |= dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.received[event.stream_id] += len(event.data)
            elif isinstance(event, h2.events.StreamEnded):
                self._ended[event.stream_id].set()


def _frames(data: bytes) -> list[bytes]:
    """The frames that are whole, and what is left."""
    found = []
    while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
        length = 9 + int.from_bytes(data[:3], "big")
        found.append(data[:length])
        data = data[length:]
    return [*found, data]
