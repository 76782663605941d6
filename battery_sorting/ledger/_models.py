"""Tables of the ledger. A change here needs a new migration and a new `SCHEMA_REVISION`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, MetaData, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA_REVISION = "0001"

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


class BatteryRow(Base):
    """Current state of one battery, updated in the transaction of the event that changes it."""

    __tablename__ = "batteries"

    battery_id: Mapped[str] = mapped_column(String, primary_key=True)
    shift_id: Mapped[int] = mapped_column(_RowId, ForeignKey("shifts.id"), index=True)
    detected_at: Mapped[float]
    trigger_count: Mapped[int] = mapped_column(BigInteger)
    encoder_count: Mapped[int] = mapped_column(BigInteger)
    gap_ahead_mm: Mapped[float | None]
    gap_behind_mm: Mapped[float | None]
    gate_seen: Mapped[bool | None]
    label: Mapped[str | None]
    confidence: Mapped[float | None]
    accepted: Mapped[bool | None]
    type_reason: Mapped[str | None]
    decided_bin: Mapped[str | None]
    decided_reason: Mapped[str | None]
    token: Mapped[int | None] = mapped_column(BigInteger)
    eject_outcome: Mapped[int | None]
    exited_at: Mapped[float | None]
    bin: Mapped[str | None]
    reason: Mapped[str | None]
    disposed_at: Mapped[float | None]

    __table_args__ = (
        # The open batteries are few; this keeps finding them cheap in a ledger of millions.
        Index(
            "ix_batteries_open",
            "shift_id",
            "detected_at",
            sqlite_where=text("bin IS NULL"),
            postgresql_where=text("bin IS NULL"),
        ),
    )


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
