"""What `cloche up` prints once it serves: what it is, where, and a line to try it with."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cloche.bundle.bundle import Bundle
from cloche.core.signature import Columns, Signature, count_rows
from cloche.core.units import format_duration, format_size
from cloche.serving.protocols.schema import as_json

#: The supervisor puts the port in: it may be one that the system chose.
PORT = "{port}"
ADMIN_PORT = "{controller}"
#: That of the workers' second address.
GRPC_PORT = "{port2}"
_LOOKS = 16
#: A longer command line is no pleasure to paste, and more than some terminals take.
_LONGEST_BODY = 2_000


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts are one deployment that is served: `model` is its version ("fraud:3").

    `champion` is the version that is the champion, where that is another one.
    """

    deployment: str
    model: str
    bundle: Bundle
    #: What callers send: the signature, and a few rows of it.
    signature: Signature
    examples: Columns
    keys_required: bool
    #: Whether it runs in hosts, not in the workers.
    is_hosted: bool = False
    champion: str | None = None


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A Server is where all of it is served, by how many workers at first; `data` is the folder that keeps it."""

    host: str
    workers: int
    most_workers: int
    encrypted: bool
    data: Path
    has_admin: bool = False
    grpc: bool = False

    @property
    def scale(self) -> str:
        elastic = self.most_workers > self.workers
        return f"{self.workers} to {self.most_workers}, by the load" if elastic else str(self.workers)

    @property
    def url(self) -> str:
        return f"{self._origin}:{PORT}"

    @property
    def admin(self) -> str | None:
        return f"{self._origin}:{ADMIN_PORT}" if self.has_admin else None

    @property
    def _origin(self) -> str:
        return f"{'https' if self.encrypted else 'http'}://{_reachable(self.host)}"

    @property
    def grpc_address(self) -> str:
        """What gRPC's clients are told; "" where it is not spoken."""
        return f"{_reachable(self.host)}:{GRPC_PORT}" if self.grpc else ""


def banner(server: Server, facts: Sequence[Facts], runtime: Path, *, as_json: bool) -> str:
    """The lines for people, or one JSON object; `runtime` takes an example that is too long for a line."""
    tries = [_curl(one, f"{server.url}/predict/{one.deployment}", runtime) for one in facts]
    if as_json:
        return _json(server, facts, tries)
    lines = _of_one(server, facts[0]) if len(facts) == 1 else _of_several(server, facts)
    shown = "".join(f"  {name:<10} {words}\n" for name, words in lines if words)
    return f"\n{shown}  try\n\n" + "\n\n".join(tries) + "\n\n"


def _json(server: Server, facts: Sequence[Facts], tries: Sequence[str]) -> str:
    url = server.url
    deployments = [
        {
            "deployment": one.deployment,
            "model": one.model,
            "digest": one.bundle.digest,
            "sandbox": False if _is_code(one.bundle) else None,
            "predict": f"{url}/predict/{one.deployment}",
            "docs": f"{url}/docs" if len(facts) == 1 else f"{url}/docs/{one.deployment}",
            "playground": f"{url}/playground/{one.deployment}",
            "try": curl,
        }
        for one, curl in zip(facts, tries, strict=True)
    ]
    told = {"kind": "Up", "version": 1, "url": url, "workers": server.workers, "deployments": deployments}
    told |= {"admin": server.admin} if server.has_admin else {}
    told |= {"grpc": server.grpc_address} if server.grpc else {}
    return msgspec.json.encode(told).decode() + "\n"


def _of_one(server: Server, facts: Facts) -> list[tuple[str, str]]:
    what, url = facts.bundle.manifest, server.url
    is_code = _is_code(facts.bundle)
    where = "in a host that the workers share" if facts.is_hosted else "in the workers"
    where = "in hosts of its own" if is_code else where
    speed = "" if what.measured is None else f", {format_duration(what.measured.row_p50_s)} a row when packed"
    return [
        ("model", _described(facts)),
        ("runtime", f"{what.runtime.kind}, {where}{speed}"),
        ("sandbox", "none: the model's code may do whatever you may" if is_code else ""),
        ("workers", server.scale),
        ("predict", f"{url}/predict/{facts.deployment}"),
        ("grpc", server.grpc_address),
        ("docs", f"{url}/docs"),
        ("playground", f"{url}/playground/{facts.deployment}"),
        ("admin", _admin(server)),
        ("keys", "each caller needs one: cloche keys create NAME" if facts.keys_required else ""),
        ("stop", _stop(server)),
    ]


def _of_several(server: Server, facts: Sequence[Facts]) -> list[tuple[str, str]]:
    width = max(len(one.deployment) for one in facts)
    code = [one.deployment for one in facts if _is_code(one.bundle)]
    keyed = [one.deployment for one in facts if one.keys_required]
    return [
        *(
            ("" if number else "live", f"{one.deployment:<{width}}  {_described(one)}")
            for number, one in enumerate(facts)
        ),
        ("sandbox", f"none for {', '.join(code)}: their code may do whatever you may" if code else ""),
        ("workers", server.scale),
        ("predict", f"{server.url}/predict/NAME"),
        ("grpc", server.grpc_address),
        ("docs", f"{server.url}/docs"),
        ("admin", _admin(server)),
        ("keys", f"each caller of {', '.join(keyed)} needs one: cloche keys create NAME" if keyed else ""),
        ("stop", _stop(server)),
    ]


def _admin(server: Server) -> str:
    return f"{server.admin}, with a key: cloche keys create NAME --scope deploy" if server.has_admin else ""


def _stop(server: Server) -> str:
    return f"Ctrl-C; models, versions and keys stay in {server.data}"


def _is_code(bundle: Bundle) -> bool:
    return bundle.manifest.runtime.kind == "python"


def _described(facts: Facts) -> str:
    """The version, and what kind of model it is, how large, and whether another is the champion."""
    size = format_size(sum(entry.size for entry in facts.bundle.manifest.files))
    champion = "" if facts.champion is None else f"; champion is {facts.champion}"
    said = f"{facts.model}  {_kind(facts.bundle)}, {_shape(facts.bundle)}"
    return f"{said}  ({size}, sha256 {facts.bundle.digest[:8]}…){champion}"


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
        file = runtime / f"example-{facts.deployment}.json"
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
