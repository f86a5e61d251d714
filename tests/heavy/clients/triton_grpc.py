"""Asks by tritonclient's gRPC client: columns as JSON on standard input, outputs as JSON on standard output."""

from __future__ import annotations

import json
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype


def main() -> None:
    task = json.load(sys.stdin)
    name = task["model"]
    client = triton.InferenceServerClient(url=task["url"])
    live = client.is_server_live() and client.is_server_ready() and client.is_model_ready(name)
    metadata = client.get_model_metadata(name)
    inputs = []
    for each in metadata.inputs:
        array = np.array(task["columns"][each.name], dtype=triton_to_np_dtype(each.datatype))
        inputs.append(triton.InferInput(each.name, list(array.shape), each.datatype).set_data_from_numpy(array))
    names = [each.name for each in metadata.outputs]
    wanted = [triton.InferRequestedOutput(output) for output in names]
    answers = [
        client.infer(name, inputs, outputs=wanted, request_id="from-triton", compression_algorithm=how)
        for how in (None, "gzip", "deflate")
    ]
    said = [{output: _plain(answer.as_numpy(output)) for output in names} for answer in answers]
    assert said[0] == said[1] == said[2]
    try:
        client.infer(name, inputs[:1])
        refused = ""
    except InferenceServerException as error:
        refused = str(error)
    print(json.dumps({"live": live, "id": answers[0].get_response().id, "outputs": said[0], "refused": refused}))


def _plain(array: np.ndarray) -> list:
    if array.dtype == object:
        return [item.decode() if isinstance(item, bytes) else item for item in array.ravel()]
    return array.tolist()


if __name__ == "__main__":
    main()
