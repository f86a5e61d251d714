"""Versions that were taken back: nobody sends them out again until a person clears them."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from cloche.core.errors import RefusedError
from cloche.store.tables import blocked


def why_blocked(connection: Connection, model: str, version: int) -> str | None:
    """Why a version was taken back; None where it may be sent out."""
    found = connection.execute(select(blocked.c.why).where(_is(model, version))).scalar_one_or_none()
    return None if found is None else str(found)


def check_blocked(connection: Connection, model: str, version: int) -> None:
    """Raise RefusedError CL-E413 for a version that was taken back."""
    why = why_blocked(connection, model, version)
    if why is not None:
        raise RefusedError(
            f"{model}:{version} was taken back: {why}",
            code="CL-E413",
            hint=f"if that is mended or was not its fault: cloche unblock {model}:{version}",
        )


def block_version(connection: Connection, now: float, model: str, version: int, why: str) -> None:
    """Keep a version back; what was said of it first stays."""
    if why_blocked(connection, model, version) is None:
        row = {"model": model, "version": version, "since": now, "why": why}
        connection.execute(insert(blocked).values(row))


def unblock(connection: Connection, model: str, version: int) -> bool:
    """Let it be sent out again; False where it was not blocked."""
    return bool(connection.execute(delete(blocked).where(_is(model, version))).rowcount)


def _is(model: str, version: int) -> ColumnElement[bool]:
    return (blocked.c.model == model) & (blocked.c.version == version)
