"""Alembic environment of the ledger: runs on the connection that `Ledger.open` hands over."""

from __future__ import annotations

from alembic import context

from battery_sorting.ledger._models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
