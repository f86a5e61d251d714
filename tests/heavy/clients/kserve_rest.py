"""Asks by KServe's InferenceRESTClient: columns as JSON on standard input, outputs as JSON on standard output."""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from kserve.utils.numpy_codec import to_np_dtype


async def main() -> None:
    task = json.load(sys.stdin)
    name, url, binary = task["model"], task["url"], task["binary"]
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        live = (
            await client.is_server_live(url)
            and await client.is_server_ready(url)
            and await client.is_model_ready(url, name)
        )
        inputs = []
        for column, (datatype, values) in task["typed"].items():
            array = np.array(values, dtype=to_np_dtype(datatype))
            tensor = InferInput(column, list(array.shape), datatype)
            tensor.set_data_from_numpy(array, binary_data=binary)
            inputs.append(tensor)
        wanted = [RequestedOutput(output, {"binary_data": binary}) for output in task["outputs"]]
        request = InferRequest(name, inputs, request_id="from-kserve", request_outputs=wanted)
        answer = await client.infer(url, request, model_name=name)
    outputs = {output.name: _plain(output.as_numpy()) for output in answer.outputs}
    print(json.dumps({"live": live, "id": answer.id, "outputs": outputs}))


def _plain(array: np.ndarray) -> list:
    if array.dtype == object:
        return [item.decode() if isinstance(item, bytes) else item for item in array.ravel()]
    return array.tolist()


if __name__ == "__main__":
    asyncio.run(main())
