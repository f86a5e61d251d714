"""Asks by KServe's InferenceRESTClient in its v1 protocol: rows on standard input, answers on standard output."""

from __future__ import annotations

import asyncio
import json
import sys

from kserve import InferenceRESTClient, RESTConfig


async def main() -> None:
    task = json.load(sys.stdin)
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        ready = await client.is_model_ready(task["url"], task["model"])
        answer = await client.infer(task["url"], {"instances": task["rows"]}, model_name=task["model"])
    print(json.dumps({"ready": ready, "answer": answer}))


if __name__ == "__main__":
    asyncio.run(main())
