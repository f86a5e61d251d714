"""The tables of the store; SCHEMA is the version that later migrations start from."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

SCHEMA = 1

metadata = MetaData()

#: One row: the version of these tables, and a number that grows with each change that processes must see.
state = Table(
    "cloche_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("schema_version", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
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
