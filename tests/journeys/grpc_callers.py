"""Callers of gRPC who go on asking, and what one call of it is made of."""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import Any

import grpc
import numpy as np
from tests.journeys.releases import Said
from tests.journeys.serving import Serving, Threads

from cloche.serving.grpc import messages as pb


def address(serving: Serving) -> str:
    """What the banner says."""
    found = re.search(r"^  grpc +(\S+:\d+)$", serving.log.read_text(), re.MULTILINE)
    assert found is not None, serving.log.read_text()
    return found[1]


def method(channel: grpc.Channel, name: str, answer: Any) -> Any:
    return channel.unary_unary(
        f"/inference.GRPCInferenceService/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )


def row(datatype: str = "FP32", **fields: Any) -> Any:
    message = pb.ModelInferRequest(**{"model_name": "toy", **fields})
    message.inputs.add(name="x", datatype=datatype, shape=[1, 2])
    message.raw_input_contents.append(np.array([0.25, 0.5], np.float32).tobytes())
    return message


_MOMENT_S = 0.05


class GrpcCallers(Threads):
    """Callers ask over one connection each until they are told to stop; UNAVAILABLE is tried once more.

    Version n of the model answers n + 1 times the sum of a row, or the answer counts as failed.

    What HTTP/2 says was not taken, gRPC's client sends again by itself. Half a millisecond after a connection
    broke it may still use that very one, so who tries again waits a moment, as gRPC's own policies do.
    """

    def __init__(
        self,
        target: str,
        threads: int = 4,
        credentials: grpc.ChannelCredentials | None = None,
        *,
        gap_s: float = 0.005,
    ) -> None:
        self.said: list[Said] = []
        self.models: Counter[str] = Counter()
        self.answers = [0] * threads  # by caller
        self.failed: list[str] = []
        self.retried: list[str] = []
        self.flipped = 0  # callers who were the candidate's and then stable's
        self._target = target
        self._credentials = credentials
        self._gap_s = gap_s
        super().__init__(threads)

    def _ask(self, number: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        if self._credentials is not None:
            channel = grpc.secure_channel(self._target, self._credentials, options)
        else:
            channel = grpc.insecure_channel(self._target, options)
        last = ""
        with channel:
            infer = method(channel, "ModelInfer", pb.ModelInferResponse)
            while not self._stop.wait(self._gap_s):
                began = time.monotonic()
                for is_last in (False, True):
                    try:
                        said, call = infer.with_call(
                            row(), timeout=10, metadata=[("x-user-id", str(number))], wait_for_ready=is_last
                        )
                    except grpc.RpcError as error:
                        if is_last or error.code() != grpc.StatusCode.UNAVAILABLE:
                            self.failed.append(f"{error.code()} {error.details()}")
                            break
                        self.retried.append(str(error.details()))
                        self._stop.wait(_MOMENT_S)
                    else:
                        model = dict(call.trailing_metadata())["cloche-model"]
                        answer = np.frombuffer(said.raw_output_contents[0], np.float32)[0]
                        if answer != 0.75 * (int(model.rpartition(":")[2]) + 1):
                            self.failed.append(f"{model} answered {answer}")
                        now = time.monotonic()
                        self.said.append(Said(now, 200, model, str(number), now - began))
                        self.flipped += model < last
                        self.models[model] += 1
                        self.answers[number] += 1
                        last = model
                        break
