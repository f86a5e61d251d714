"""Tables that an older Cloche made are brought up to date by alembic's operations, one step a version.

A step describes tables as they were at its version, so it never names those of `tables`, which go on changing.
"""

from __future__ import annotations

from collections.abc import Callable

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    String,
    Text,
    update,
)

from cloche.store.tables import SCHEMA, state


def migrate(connection: Connection, version: int) -> None:
    """Take every step from `version` to SCHEMA, in the transaction that `connection` is in."""
    # First, as in every change: who has this row's lock may still want the tables that a step would lock.
    connection.execute(update(state).values(schema_version=SCHEMA))
    op = Operations(MigrationContext.configure(connection))
    for number in range(version + 1, SCHEMA + 1):
        STEPS[number](op)


def to_2(op: Operations) -> None:
    """Deployments, rollouts, what happened and who did it; versions taken back; machines, who leads, scales."""
    op.create_table(
        "cloche_deployments",
        Column("name", String(63), primary_key=True),
        Column("model", String(63), ForeignKey("cloche_models.name"), nullable=False),
        Column("asked", Text, nullable=False),
        Column("resolved", Integer, nullable=False),
        Column("stable", Integer, nullable=False),
        Column("previous", Integer),
        Column("warm_until", Float(53)),
        Column("candidate", Integer),
        Column("weight", Integer, nullable=False),
        Column("rollout", Integer),
        Column("revision", Integer, nullable=False),
        CheckConstraint("weight BETWEEN 0 AND 10000", name="cloche_deployments_weight"),
    )
    op.create_table(
        "cloche_rollouts",
        Column("id", Integer, primary_key=True),
        Column("deployment", String(63), ForeignKey("cloche_deployments.name"), nullable=False),
        Column("model", String(63), nullable=False),
        Column("stable", Integer, nullable=False),
        Column("candidate", Integer, nullable=False),
        Column("state", JSON, nullable=False),
        Column("evidence", JSON),
        Column("command", String(20)),
        Column("commander", String(200)),
        Column("started", Float(53), nullable=False),
        Column("ended", Float(53)),
    )
    op.create_table(
        "cloche_events",
        Column("id", Integer, primary_key=True),
        Column("time", Float(53), nullable=False),
        Column("deployment", String(63), nullable=False),
        Column("rollout", Integer),
        Column("who", String(200), nullable=False),
        Column("action", String(40), nullable=False),
        Column("version", Integer, nullable=False),
        Column("why", Text, nullable=False),
    )
    op.create_index("ix_cloche_events_deployment", "cloche_events", ["deployment"])
    op.create_table(
        "cloche_audit",
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("time", Float(53), nullable=False),
        Column("who", String(200), nullable=False),
        Column("action", String(40), nullable=False),
        Column("target", String(200), nullable=False),
        Column("details", JSON, nullable=False),
        Column("previous", String(64), nullable=False),
        Column("hash", String(64), nullable=False),
    )
    op.create_table(
        "cloche_blocked",
        Column("model", String(63), primary_key=True),
        Column("version", Integer, primary_key=True, autoincrement=False),
        Column("since", Float(53), nullable=False),
        Column("why", Text, nullable=False),
        ForeignKeyConstraint(["model", "version"], ["cloche_versions.model", "cloche_versions.version"]),
    )
    _shared(op)


def _shared(op: Operations) -> None:
    """What machines that share a store say, and what people did."""
    op.create_table(
        "cloche_leases",
        Column("name", String(63), primary_key=True),
        Column("holder", String(63), nullable=False),
        Column("fence", Integer, nullable=False),
        Column("until", Float(53), nullable=False),
    )
    op.create_table(
        "cloche_scales",
        Column("machine", String(63), primary_key=True),
        Column("workers", Integer, nullable=False),
        Column("who", String(200), nullable=False),
        Column("since", Float(53), nullable=False),
    )
    op.create_table(
        "cloche_machines",
        Column("id", String(63), primary_key=True),
        Column("seen", Float(53), nullable=False),
        Column("report", JSON, nullable=False),
    )


def to_3(op: Operations) -> None:
    """Batch runs and the slots of their schedules."""
    _batch(op)


def _batch(op: Operations) -> None:
    op.create_table(
        "cloche_batch_runs",
        Column("id", String(16), primary_key=True),
        Column("name", String(63)),
        Column("plan", JSON, nullable=False),
        Column("state", String(24), nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("holder", String(200), nullable=False),
        Column("heartbeat", Float(53), nullable=False),
        Column("rows", BigInteger, nullable=False),
        Column("rejected", BigInteger, nullable=False),
        Column("total", BigInteger),
        Column("slot", Float(53)),
        Column("started", Float(53), nullable=False),
        Column("ended", Float(53)),
        Column("why", Text, nullable=False),
        Column("report", JSON),
        Column("cancel", String(200)),
    )
    op.create_index("ix_cloche_batch_runs_name", "cloche_batch_runs", ["name"])
    op.create_index("ix_cloche_batch_runs_started", "cloche_batch_runs", ["started"])
    op.create_table(
        "cloche_batch_slots",
        Column("name", String(63), primary_key=True),
        Column("slot", Float(53), primary_key=True, autoincrement=False),
        Column("schedule", Text, nullable=False),
        Column("state", String(20), nullable=False),
        Column("claimed", Float(53), nullable=False),
        Column("run", String(16)),
        Column("why", Text, nullable=False),
    )


#: The step that makes each version from the one before.
STEPS: dict[int, Callable[[Operations], None]] = {2: to_2, 3: to_3}
