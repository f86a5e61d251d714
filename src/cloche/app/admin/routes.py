"""The routes of the admin API: a path, a method, a scope, and the act that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from cloche.app.acts import Acts, Answer
from cloche.app.admin.guard import ADMIN, DEPLOY, READ
from cloche.app.uploads import Uploads
from cloche.bundle.manifest import MAX_MANIFEST_BYTES
from cloche.rollout.strategy import Metric

PREFIX = "/api/v1"
_SMALL = 64 * 1024


class _Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Window(_Form, frozen=True):
    """A Window is which part of a list is asked for: the newest `limit` rows, of one deployment or all."""

    limit: int = 50
    deployment: str | None = None


class Past(_Form, frozen=True):
    """A Past is how far to look back, as in 1h, 24h or 7d, at one deployment or all."""

    last: str = "1h"
    deployment: str | None = None


class NewRollout(_Form, frozen=True):
    """A NewRollout is a version that is to go out; strategy and steps are the deployment's unless given."""

    reference: str
    deployment: str | None = None
    strategy: str | None = None
    steps: str | None = None
    metric: Metric = ""
    breaking: bool = False


class Named(_Form, frozen=True):
    """A Named is a deployment; the only one where none is named."""

    deployment: str | None = None


class Back(Named, frozen=True):
    """A Back is where to go back to: the version before where none is given."""

    to: int | None = None
    why: str = "by hand"


class Referred(_Form, frozen=True):
    """A Referred is a version, by its number."""

    reference: str


class NewAlias(_Form, frozen=True):
    """A NewAlias is an alias, and the version that it is to name."""

    reference: str
    alias: str


class NewUpload(_Form, frozen=True):
    """A NewUpload is a bundle that is to come: the texts of manifest.json and seal.json."""

    manifest: str
    seal: str
    name: str | None = None


class Finish(_Form, frozen=True):
    """A Finish is the name of the model whose next version the bundle becomes; its own when not given."""

    name: str | None = None


class Asked(NamedTuple):
    """An Asked is what a request says: parts of the path, and its query or body as the route's form."""

    path: Mapping[str, str]
    form: Any = None


class Route(NamedTuple):
    """A Route is one thing that can be asked; `form` is of the query where it is a GET, else of the body."""

    method: str
    path: str
    scope: str
    summary: str
    act: Callable[[Acts, Asked], Answer]
    form: type[_Form] | None = None
    most_bytes: int = _SMALL


def _order(command: str) -> Callable[[Acts, Asked], Answer]:
    return lambda acts, asked: acts.order(asked.form.deployment, command)


def _deploy(acts: Acts, asked: Asked) -> Answer:
    form: NewRollout = asked.form
    return acts.deploy(
        form.reference,
        deployment=form.deployment,
        strategy=form.strategy,
        steps=form.steps,
        metric=form.metric,
        breaking=form.breaking,
    )


def _upload(acts: Acts, asked: Asked) -> Answer:
    form: NewUpload = asked.form
    return Uploads(acts.project).begin(form.manifest.encode(), form.seal.encode(), form.name)


def _finish(acts: Acts, asked: Asked) -> Answer:
    return Uploads(acts.project).finish(asked.path["digest"], asked.form.name)


ROUTES = (
    Route("GET", "/deployments", READ, "How every deployment stands", lambda acts, asked: acts.status()),
    Route(
        "GET", "/deployments/{name}", READ, "How one stands", lambda acts, asked: acts.status(asked.path["name"])
    ),
    Route("POST", "/rollouts", DEPLOY, "Send a version out", _deploy, NewRollout),
    Route(
        "GET",
        "/rollouts/{number:int}",
        READ,
        "One rollout",
        lambda acts, asked: acts.rollout(int(asked.path["number"])),
    ),
    Route("POST", "/promote", DEPLOY, "Give the candidate all of the traffic", _order("promote"), Named),
    Route("POST", "/abort", DEPLOY, "Give a rollout up", _order("abort"), Named),
    Route("POST", "/pause", DEPLOY, "Keep a rollout at its step", _order("pause"), Named),
    Route("POST", "/resume", DEPLOY, "Let a rollout go on", _order("resume"), Named),
    Route(
        "POST",
        "/rollback",
        DEPLOY,
        "Go back to the version before, at once",
        lambda acts, asked: acts.rollback(asked.form.deployment, asked.form.to, asked.form.why),
        Back,
    ),
    Route(
        "POST",
        "/unblock",
        DEPLOY,
        "Let a version that was taken back be deployed again",
        lambda acts, asked: acts.unblock(asked.form.reference),
        Referred,
    ),
    Route(
        "GET",
        "/history",
        READ,
        "What happened to deployments",
        lambda acts, asked: acts.history(asked.form.deployment, asked.form.limit),
        Window,
    ),
    Route(
        "GET",
        "/stats",
        READ,
        "What was answered, by time",
        lambda acts, asked: acts.stats(asked.form.deployment, asked.form.last),
        Past,
    ),
    Route("GET", "/models", READ, "Every version", lambda acts, asked: acts.models()),
    Route(
        "GET", "/models/{name}", READ, "A model's versions", lambda acts, asked: acts.models(asked.path["name"])
    ),
    Route(
        "GET",
        "/versions/{reference}",
        READ,
        "One version with its manifest",
        lambda acts, asked: acts.model(asked.path["reference"]),
    ),
    Route(
        "PUT",
        "/aliases",
        DEPLOY,
        "Point an alias at a version",
        lambda acts, asked: acts.alias(asked.form.reference, asked.form.alias),
        NewAlias,
    ),
    Route("GET", "/audit", ADMIN, "Who changed what", lambda acts, asked: acts.audit(asked.form.limit), Window),
    Route("GET", "/audit/verify", ADMIN, "Whether the audit log holds", lambda acts, asked: acts.verify_audit()),
    Route(
        "POST",
        "/uploads",
        DEPLOY,
        "Say which bundle is to come; what of it is missing",
        _upload,
        NewUpload,
        2 * MAX_MANIFEST_BYTES,
    ),
    Route("POST", "/uploads/{digest}/finish", DEPLOY, "Verify and register what was sent", _finish, Finish),
)
#: A file's bytes are taken as they come, so that what arrived before a break stays.
FILE_PATH = "/uploads/{digest}/files/{sha256}"
