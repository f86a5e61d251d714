"""What `cloche up` prints once it serves: what it is, where, and a line to try it with."""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec

from cloche.bundle.bundle import Bundle
from cloche.core.signature import Columns, Signature, count_rows
from cloche.core.units import format_duration, format_size
from cloche.serving.protocols.schema import as_json

#: The supervisor puts the port in: it may be one that the system chose.
PORT = "{port}"
_LOOKS = 16
#: A longer command line is no pleasure to paste, and more than some terminals take.
_LONGEST_BODY = 2_000


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts are what is served: `model` is its version ("fraud:3"), `data` the folder that keeps it.

    `champion` is the version that is the champion, where that is another one.
    """

    deployment: str
    model: str
    bundle: Bundle
    #: What callers send: the signature, and a few rows of it.
    signature: Signature
    examples: Columns
    host: str
    workers: int
    keys_required: bool
    encrypted: bool
    data: Path
    champion: str | None = None


def banner(facts: Facts, runtime: Path, *, as_json: bool) -> str:
    """The lines for people, or one JSON object; `runtime` takes an example that is too long for a line."""
    scheme = "https" if facts.encrypted else "http"
    base = f"{scheme}://{_reachable(facts.host)}:{PORT}"
    predict, docs = f"{base}/predict/{facts.deployment}", f"{base}/docs"
    playground = f"{base}/playground/{facts.deployment}"
    curl = _curl(facts, predict, runtime)
    if as_json:
        answer = {
            "kind": "Up",
            "version": 1,
            "deployment": facts.deployment,
            "model": facts.model,
            "digest": facts.bundle.digest,
            "workers": facts.workers,
            "sandbox": False if facts.bundle.manifest.runtime.kind == "python" else None,
            "predict": predict,
            "docs": docs,
            "playground": playground,
            "try": curl,
        }
        return msgspec.json.encode(answer).decode() + "\n"
    what = facts.bundle.manifest
    size = format_size(sum(entry.size for entry in what.files))
    is_code = what.runtime.kind == "python"
    where = "in hosts of its own" if is_code else "in the workers"
    speed = "" if what.measured is None else f", {format_duration(what.measured.row_p50_s)} a row when packed"
    champion = "" if facts.champion is None else f"; champion is {facts.champion}"
    lines = {
        "model": f"{facts.model}  {_kind(facts.bundle)}, {_shape(facts.bundle)}"
        f"  ({size}, sha256 {facts.bundle.digest[:8]}…){champion}",
        "runtime": f"{what.runtime.kind}, {where}{speed}",
        "sandbox": "none: the model's code may do whatever you may" if is_code else "",
        "workers": str(facts.workers),
        "predict": predict,
        "docs": docs,
        "playground": playground,
        "keys": "each caller needs one: cloche keys create NAME" if facts.keys_required else "",
        "stop": f"Ctrl-C; models, versions and keys stay in {facts.data}",
    }
    shown = "".join(f"  {name:<10} {words}\n" for name, words in lines.items() if words)
    return f"\n{shown}  try\n\n{curl}\n\n"


def _kind(bundle: Bundle) -> str:
    what = bundle.manifest
    said = what.description.startswith(what.framework)
    return what.description if said else f"{what.framework} {what.description}"


def _shape(bundle: Bundle) -> str:
    inputs = len(bundle.signature.inputs)
    words = f"{inputs} input{'s' * (inputs != 1)}"
    classes = next((field.classes for field in bundle.signature.outputs if field.classes), None)
    return f"{words}, {len(classes)} classes" if classes else words


def _reachable(host: str) -> str:
    """An address that one can call: those that stand for all of a machine's are none."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _curl(facts: Facts, url: str, runtime: Path) -> str:
    body = _example(facts)
    if len(body) > _LONGEST_BODY:
        file = runtime / "example.json"
        file.write_text(body)
        body = f"@{file}"
    key = ' -H "Authorization: Bearer $CLOCHE_KEY"' if facts.keys_required else ""
    return f"curl -s {url}{key} -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def _example(facts: Facts) -> str:
    """An example in our own dialect; one without missing values where there is one."""
    count = min(_LOOKS, count_rows(facts.examples))
    names = [field.name for field in facts.signature.inputs]
    rows = [{name: as_json(facts.examples[name][row]) for name in names} for row in range(count)]
    whole = (row for row in rows if None not in row.values())
    return msgspec.json.encode(next(whole, rows[0])).decode()
