"""Who changed what, as every JSON answer shows it."""

from __future__ import annotations

from typing import Any

import msgspec

from cloche.app.project import Project
from cloche.core.shape import body, bounded, moment
from cloche.store import audit


def list_audit(project: Project, limit: int) -> dict[str, Any]:
    """The newest rows of the log, the newest last."""
    rows = audit.list_audit(project.store, most=bounded(limit))
    return body("AuditList", items=[{**msgspec.to_builtins(row), "time": moment(row.time)} for row in rows])


def verify_audit(project: Project) -> dict[str, Any]:
    """Whether the log holds."""
    chain = audit.verify_audit(project.store)
    return body("AuditChain", holds=chain.broken is None, **msgspec.to_builtins(chain))
