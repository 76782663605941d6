"""First schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "images",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_images")),
    )
    op.create_table(
        "shifts",
        sa.Column("id", _ROW_ID, nullable=False),
        sa.Column("line", sa.String(), nullable=False),
        sa.Column("site", sa.String(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("software_version", sa.String(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shifts")),
    )
    op.create_index(op.f("ix_shifts_line"), "shifts", ["line"], unique=False)
    op.create_table(
        "batteries",
        sa.Column("battery_id", sa.String(), nullable=False),
        sa.Column("shift_id", _ROW_ID, nullable=False),
        sa.Column("detected_at", sa.Double(), nullable=False),
        sa.Column("trigger_count", sa.BigInteger(), nullable=False),
        sa.Column("encoder_count", sa.BigInteger(), nullable=False),
        sa.Column("gap_ahead_mm", sa.Double(), nullable=True),
        sa.Column("gap_behind_mm", sa.Double(), nullable=True),
        sa.Column("gate_seen", sa.Boolean(), nullable=True),
        sa.Column("label", sa.String(), nullable=True),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("accepted", sa.Boolean(), nullable=True),
        sa.Column("type_reason", sa.String(), nullable=True),
        sa.Column("decided_bin", sa.String(), nullable=True),
        sa.Column("decided_reason", sa.String(), nullable=True),
        sa.Column("token", sa.BigInteger(), nullable=True),
        sa.Column("eject_outcome", sa.Integer(), nullable=True),
        sa.Column("exited_at", sa.Double(), nullable=True),
        sa.Column("bin", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("disposed_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["shift_id"], ["shifts.id"], name=op.f("fk_batteries_shift_id")),
        sa.PrimaryKeyConstraint("battery_id", name=op.f("pk_batteries")),
    )
    op.create_index(
        "ix_batteries_open",
        "batteries",
        ["shift_id", "detected_at"],
        unique=False,
        sqlite_where=sa.text("bin IS NULL"),
        postgresql_where=sa.text("bin IS NULL"),
    )
    op.create_index(op.f("ix_batteries_shift_id"), "batteries", ["shift_id"], unique=False)
    op.create_table(
        "battery_images",
        sa.Column("battery_id", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("station", sa.String(), nullable=False),
        sa.Column("stamp", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["sha256"], ["images.sha256"], name=op.f("fk_battery_images_sha256")),
        sa.PrimaryKeyConstraint("battery_id", "sha256", "station", name=op.f("pk_battery_images")),
    )
    op.create_table(
        "events",
        sa.Column("id", _ROW_ID, nullable=False),
        sa.Column("shift_id", _ROW_ID, nullable=False),
        sa.Column("battery_id", sa.String(), nullable=True),
        sa.Column("stamp", sa.Double(), nullable=False),
        sa.Column("recorded_at", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["battery_id"], ["batteries.battery_id"], name=op.f("fk_events_battery_id")),
        sa.ForeignKeyConstraint(["shift_id"], ["shifts.id"], name=op.f("fk_events_shift_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_battery_id"), "events", ["battery_id"], unique=False)
    op.create_index(op.f("ix_events_shift_id"), "events", ["shift_id"], unique=False)
    op.create_index(
        "uq_events_detected",
        "events",
        ["battery_id"],
        unique=True,
        sqlite_where=sa.text("kind = 'detected'"),
        postgresql_where=sa.text("kind = 'detected'"),
    )
    op.create_index(
        "uq_events_disposed",
        "events",
        ["battery_id"],
        unique=True,
        sqlite_where=sa.text("kind = 'disposed'"),
        postgresql_where=sa.text("kind = 'disposed'"),
    )


def downgrade() -> None:
    """Drop all tables."""
    op.drop_table("events")
    op.drop_table("battery_images")
    op.drop_table("batteries")
    op.drop_table("shifts")
    op.drop_table("images")
