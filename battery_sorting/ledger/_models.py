"""Tables of the ledger. A change here, or of `BatteryRecord`, needs a new migration."""

from __future__ import annotations

import pkgutil
from dataclasses import Field, fields
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine

from .events import BatteryRecord
from .migrations import versions

SCHEMA_REVISION = max(module.name[1:5] for module in pkgutil.iter_modules(versions.__path__))
"""That of the newest migration, ``vNNNN_what``."""

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

# SQLite numbers its rows by itself only if the key is exactly INTEGER.
_RowId = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """Base of the tables, with named constraints so that SQLite can migrate them."""

    metadata = MetaData(naming_convention=_NAMES)


class ShiftRow(Base):
    """One run of a line."""

    __tablename__ = "shifts"

    id: Mapped[int] = mapped_column(_RowId, primary_key=True)
    line: Mapped[str] = mapped_column(String, index=True)
    site: Mapped[str] = mapped_column(String)
    started_at: Mapped[float]
    ended_at: Mapped[float | None]
    software_version: Mapped[str] = mapped_column(String)
    config: Mapped[dict[str, Any]] = mapped_column(JSON)


_TYPES: dict[str, type[TypeEngine[Any]]] = {
    "BatteryId": String, "str": String, "int": BigInteger, "float": Double, "Share": Double, "Stamp": Double,
    "bool": Boolean, "EjectOutcome": Integer,
}  # fmt: skip
"""Type of a field of `BatteryRecord` → type of its column."""


def _column(one: Field[Any]) -> Column[Any]:
    if one.name == "shift_id":
        return Column(one.name, _RowId, ForeignKey("shifts.id"), nullable=False, index=True)
    kind = str(one.type).removesuffix(" | None")
    return Column(one.name, _TYPES[kind], nullable=kind != one.type, primary_key=kind == "BatteryId")


batteries = Table(
    "batteries",
    Base.metadata,
    *map(_column, fields(BatteryRecord)),
    # The open batteries are few; this keeps finding them cheap in a ledger of millions.
    Index(
        "ix_batteries_open",
        "shift_id",
        "detected_at",
        sqlite_where=text("bin IS NULL"),
        postgresql_where=text("bin IS NULL"),
    ),
)
"""Current state of each battery, updated in the transaction of the event that changes it: the `BatteryRecord`."""


def _once(kind: str) -> Index:
    """Unique index that lets a battery have one event of this kind."""
    where = text(f"kind = '{kind}'")
    return Index(f"uq_events_{kind}", "battery_id", unique=True, sqlite_where=where, postgresql_where=where)


class EventRow(Base):
    """Append-only log: what happened, in the order in which it was written."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(_RowId, primary_key=True)
    shift_id: Mapped[int] = mapped_column(_RowId, ForeignKey("shifts.id"), index=True)
    battery_id: Mapped[str | None] = mapped_column(String, ForeignKey("batteries.battery_id"), index=True)
    stamp: Mapped[float]
    recorded_at: Mapped[float]
    kind: Mapped[str] = mapped_column(String)
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)

    __table_args__ = (_once("detected"), _once("disposed"))


class ImageRow(Base):
    """One image file, known by its content."""

    __tablename__ = "images"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    path: Mapped[str] = mapped_column(String)
    width: Mapped[int]
    height: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)


class BatteryImageRow(Base):
    """Which image shows which battery.

    The battery is no foreign key: the picture may be filed before the line controller has recorded the battery.
    """

    __tablename__ = "battery_images"

    battery_id: Mapped[str] = mapped_column(String, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), ForeignKey("images.sha256"), primary_key=True)
    station: Mapped[str] = mapped_column(String, primary_key=True)
    stamp: Mapped[float]
