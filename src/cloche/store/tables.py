"""The tables of the store; SCHEMA is the version that later migrations start from."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA = 3

metadata = MetaData()

#: One row: the version of these tables, and a number that grows with each change that processes must see.
state = Table(
    "cloche_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("schema_version", Integer, nullable=False),
    Column("revision", Integer, nullable=False, default=0),
    CheckConstraint("id = 1", name="cloche_state_one_row"),
)

models = Table(
    "cloche_models",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("created", Float(53), nullable=False),
)

versions = Table(
    "cloche_versions",
    metadata,
    Column("model", String(63), ForeignKey(models.c.name), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),
    Column("created", Float(53), nullable=False),
    Column("framework", String(200), nullable=False),
    Column("size_bytes", Float(53), nullable=False),
    Column("metrics", JSON, nullable=False),
    UniqueConstraint("model", "digest", name="cloche_versions_digest_once"),
)

aliases = Table(
    "cloche_aliases",
    metadata,
    Column("model", String(63), primary_key=True),
    Column("alias", String(63), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("moved", Float(53), nullable=False),
    ForeignKeyConstraint(["model", "version"], [versions.c.model, versions.c.version]),
)

keys = Table(
    "cloche_keys",
    metadata,
    Column("id", String(10), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created", Float(53), nullable=False),
    Column("expires", Float(53)),
    Column("revoked", Float(53)),
)

trusted = Table(
    "cloche_trusted",
    metadata,
    Column("public_key", String(200), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("added", Float(53), nullable=False),
)

#: Which version of a deployment has traffic: how it is run stands in cloche.toml.
deployments = Table(
    "cloche_deployments",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("model", String(63), ForeignKey(models.c.name), nullable=False),
    # what cloche.toml, or who started it, named, and the version which that meant then
    Column("asked", Text, nullable=False),
    Column("resolved", Integer, nullable=False),
    Column("stable", Integer, nullable=False),
    Column("previous", Integer),
    Column("warm_until", Float(53)),
    Column("candidate", Integer),
    Column("weight", Integer, nullable=False),
    Column("rollout", Integer),
    # the store's revision since which it is so
    Column("revision", Integer, nullable=False),
    CheckConstraint("weight BETWEEN 0 AND 10000", name="cloche_deployments_weight"),
)

#: Passages from stable to candidate, one at a time a deployment; what is known of them so far.
rollouts = Table(
    "cloche_rollouts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("deployment", String(63), ForeignKey(deployments.c.name), nullable=False),
    Column("model", String(63), nullable=False),
    Column("stable", Integer, nullable=False),
    Column("candidate", Integer, nullable=False),
    Column("state", JSON, nullable=False),
    Column("evidence", JSON),
    # what a person wants of it, until the controller has seen it
    Column("command", String(20)),
    Column("commander", String(200)),
    Column("started", Float(53), nullable=False),
    Column("ended", Float(53)),
)

#: What happened to deployments, by whom and why; append-only.
events = Table(
    "cloche_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("time", Float(53), nullable=False),
    Column("deployment", String(63), nullable=False, index=True),
    Column("rollout", Integer),
    Column("who", String(200), nullable=False),
    Column("action", String(40), nullable=False),
    Column("version", Integer, nullable=False),
    Column("why", Text, nullable=False),
)

#: What people changed, append-only: `hash` is over the row and the hash before (see `store.audit`).
audit = Table(
    "cloche_audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("time", Float(53), nullable=False),
    Column("who", String(200), nullable=False),
    Column("action", String(40), nullable=False),
    Column("target", String(200), nullable=False),
    Column("details", JSON, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

#: Versions that were rolled back: nobody deploys them until a person clears them.
blocked = Table(
    "cloche_blocked",
    metadata,
    Column("model", String(63), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("since", Float(53), nullable=False),
    Column("why", Text, nullable=False),
    ForeignKeyConstraint(["model", "version"], [versions.c.model, versions.c.version]),
)

#: Who of several controllers leads; `fence` grows with each new leader, `until` is the database's clock.
leases = Table(
    "cloche_leases",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("holder", String(63), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("until", Float(53), nullable=False),
)

#: How many workers a person wants on a machine; no row: as its cloche.toml says.
scales = Table(
    "cloche_scales",
    metadata,
    Column("machine", String(63), primary_key=True),
    Column("workers", Integer, nullable=False),
    Column("who", String(200), nullable=False),
    Column("since", Float(53), nullable=False),
)

#: What each machine said last, and when, by the database's clock.
machines = Table(
    "cloche_machines",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("seen", Float(53), nullable=False),
    Column("report", JSON, nullable=False),
)

#: Batch runs; `attempt` grows with each process that takes a run, `heartbeat` is the database's clock.
batch_runs = Table(
    "cloche_batch_runs",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(63), index=True),
    Column("plan", JSON, nullable=False),
    Column("state", String(24), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("holder", String(200), nullable=False),
    Column("heartbeat", Float(53), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("total", BigInteger),
    # the moment that it is for, where a schedule began it
    Column("slot", Float(53)),
    Column("started", Float(53), nullable=False, index=True),
    Column("ended", Float(53)),
    Column("why", Text, nullable=False),
    Column("report", JSON),
    # who wants it cancelled
    Column("cancel", String(200)),
)

#: The moments of schedules, each at most once; the first of a schedule is when it began to hold.
batch_slots = Table(
    "cloche_batch_slots",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("slot", Float(53), primary_key=True, autoincrement=False),
    Column("schedule", Text, nullable=False),
    Column("state", String(20), nullable=False),
    Column("claimed", Float(53), nullable=False),
    Column("run", String(16)),
    Column("why", Text, nullable=False),
)
