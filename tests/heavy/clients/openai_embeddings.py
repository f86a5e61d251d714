"""Asks by OpenAI's client: texts as JSON on standard input, vectors as JSON on standard output."""

from __future__ import annotations

import json
import sys

import openai


def main() -> None:
    task = json.load(sys.stdin)
    client = openai.OpenAI(base_url=f"{task['url']}/v1", api_key="none")
    answers = {"models": [model.id for model in client.models.list()]}
    # by itself the client asks for base64, and decodes it
    answers["default"] = [one.embedding for one in _ask(client, task).data]
    answers["float"] = [one.embedding for one in _ask(client, task, encoding_format="float").data]
    try:
        client.embeddings.create(model="gpt", input="x")
    except openai.NotFoundError as error:
        answers["refused"] = error.body["message"]
    print(json.dumps(answers))


def _ask(client, task, **options):
    return client.embeddings.create(model=task["model"], input=task["texts"], **options)


if __name__ == "__main__":
    main()
