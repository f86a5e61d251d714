"""Asks by tritonclient's HTTP client: columns as JSON on standard input, outputs as JSON on standard output."""

from __future__ import annotations

import json
import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import triton_to_np_dtype


def main() -> None:
    task = json.load(sys.stdin)
    name, binary = task["model"], task["binary"]
    client = triton.InferenceServerClient(url=task["url"].removeprefix("http://"))
    live = client.is_server_live() and client.is_server_ready() and client.is_model_ready(name)
    metadata = client.get_model_metadata(name)
    inputs = []
    for each in metadata["inputs"]:
        array = np.array(task["columns"][each["name"]], dtype=triton_to_np_dtype(each["datatype"]))
        tensor = triton.InferInput(each["name"], list(array.shape), each["datatype"])
        inputs.append(tensor.set_data_from_numpy(array, binary_data=binary))
    names = [each["name"] for each in metadata["outputs"]]
    wanted = [triton.InferRequestedOutput(output, binary_data=binary) for output in names]
    answer = client.infer(name, inputs, outputs=wanted, request_id="from-triton")
    outputs = {output: _plain(answer.as_numpy(output)) for output in names}
    print(json.dumps({"live": live, "id": answer.get_response()["id"], "outputs": outputs}))


def _plain(array: np.ndarray) -> list:
    if array.dtype == object:
        return [item.decode() if isinstance(item, bytes) else item for item in array.ravel()]
    return array.tolist()


if __name__ == "__main__":
    main()
