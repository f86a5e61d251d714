"""What the supervisor is asked to run: one JSON object, read once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from cloche.core.board import SLOTS
from cloche.core.errors import ConfigError

#: Of starting: workers call hosts, the controller looks after both.
_ORDER = ("host", "worker", "controller")


class Group(NamedTuple):
    """A Group is `first` processes that are started alike, later up to `size`.

    `kind` is host, worker or controller.
    `argv` gets the number of a descriptor as its last word. `config` is handed to each process as it is; who is
    more than `first` and has none there gets one when it is asked for.
    """

    kind: str
    size: int
    first: int
    argv: tuple[str, ...]
    config: tuple[dict[str, Any], ...]


class Address(NamedTuple):
    """An Address is where to listen; processes of the kind `taker` accept there."""

    host: str
    port: int
    taker: str = "worker"


class Wish(NamedTuple):
    """A Wish is everything that one `cloche up` runs; while it runs, workers and hosts come and go."""

    runtime: Path
    data: str
    listen: tuple[Address, ...]
    groups: tuple[Group, ...]
    digest: str
    model: str = ""
    #: "{port}" stands for the port of the workers' first address, "{port2}" for their second, "{controller}"
    #: for the controller's.
    banner: str = ""
    colour: bool = False  # on stderr
    lame_duck_s: float = 5.0
    load_timeout_s: float = 300.0
    drain_s: float = 30.0  # after the lame duck, for what is in flight
    stuck_s: float = 30.0
    orphan_s: float = 600.0

    @classmethod
    def parse(cls, value: dict[str, Any]) -> Wish:
        """The wish of a JSON object; ConfigError when it asks for more processes than the board has room for.

        A group's `config` is one object for all of its processes or a list with one for each; its `most` is how
        many they may become, `count` where it is not there. Without a `digest`, addresses and groups make one.
        """
        groups = tuple(_group(group) for group in value["groups"])
        if sum(group.size for group in groups) >= SLOTS:
            raise ConfigError(
                f"{sum(group.size for group in groups)} processes are too many: the limit is {SLOTS - 1}",
                code="CL-E201",
                hint="ask for fewer with --workers",
            )
        listen = tuple(Address(*address) for address in value["listen"])
        body = json.dumps([listen, value["groups"]], sort_keys=True).encode()
        return cls(
            **{
                **value,
                "runtime": Path(value["runtime"]),
                "listen": listen,
                "groups": tuple(sorted(groups, key=lambda group: _ORDER.index(group.kind))),
                "digest": value.get("digest") or hashlib.sha256(body).hexdigest(),
            }
        )


def _group(value: dict[str, Any]) -> Group:
    config, count = value["config"], value["count"]
    size = max(count, value.get("most", count))
    return Group(
        kind=value["kind"],
        size=size,
        first=count,
        argv=tuple(value["argv"]),
        config=tuple(config) if isinstance(config, list) else (config,) * size,
    )
