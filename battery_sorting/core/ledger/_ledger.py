"""The ledger: one record for every battery, written before anything is done to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, Engine, Executable, select

from battery_sorting.core.types import EjectOutcome

from ._engine import Access, ledger_errors, open_engine
from ._models import BatteryImageRow, BatteryRow, EventRow, ImageRow, ShiftRow
from ._records import BatteryRecord, Event, EventKind, ImageRecord, OpenBattery, Shift
from ._transaction import Transaction

_SHIFT = select(
    ShiftRow.id,
    ShiftRow.line,
    ShiftRow.site,
    ShiftRow.started_at,
    ShiftRow.ended_at,
    ShiftRow.software_version,
    ShiftRow.config,
)
_BATTERY = select(*(getattr(BatteryRow, name) for name in BatteryRecord.__dataclass_fields__))
_EVENT = select(
    EventRow.id,
    EventRow.shift_id,
    EventRow.battery_id,
    EventRow.stamp,
    EventRow.recorded_at,
    EventRow.kind,
    EventRow.payload,
)


class Ledger:
    """Ledger of a cell. Open it with `Ledger.open`; it may be used by many threads and processes at once.

    Attributes:
        name: Path or URL (without password), for messages.
        shift_id: The shift that records are made in, or ``None``.
    """

    def __init__(self, engine: Engine, name: str, now: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._writer = engine.execution_options(ledger_write=True)
        self._now = now
        self.name = name
        self.shift_id: int | None = None

    @classmethod
    def open(
        cls,
        location: str | Path,
        create: bool = True,
        *,
        read_only: bool = False,
        now: Callable[[], float] = time.time,
    ) -> Ledger:
        """Open a ledger and bring its schema up to date.

        Args:
            location: Path of an SQLite file, or ``postgresql://user:password@host/database``.
            create: Make the file (and its folder) when missing.
            read_only: For reports: nothing is created, migrated or written.
            now: Clock that stamps when a record was written.

        Raises:
            LedgerError: Missing, another program's file, damaged, locked, read-only, disk full, or of a newer
                schema than this software knows. The message names the ledger and the remedy.
        """
        access = Access.READ if read_only else Access.CREATE if create else Access.WRITE
        engine, name = open_engine(location, access)
        return cls(engine, name, now)

    def close(self) -> None:
        """Close all connections. Closing twice does no harm."""
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- writing ----

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Records made inside the ``with`` are committed at its end, or none of them if it raises.

        Raises:
            LedgerError: The database refuses (locked for more than 5 s, disk full, …); nothing was written.
        """
        with ledger_errors(self.name), self._writer.begin() as connection:
            transaction = Transaction(connection, self.name, self.shift_id, self._now)
            yield transaction
        self.shift_id = transaction.shift_id

    def begin_shift(
        self,
        line: str,
        site: str,
        stamp: float,
        *,
        software_version: str = "",
        config: dict[str, Any] | None = None,
    ) -> int:
        """Start a shift and record in it from now on. ``config`` is the snapshot of site and recipe."""
        with self.transaction() as tx:
            tx.record(
                EventKind.SHIFT_STARTED,
                None,
                stamp,
                line=line,
                site=site,
                software_version=software_version,
                config=config or {},
            )
        assert self.shift_id is not None
        return self.shift_id

    def resume_shift(self, line: str) -> int | None:
        """Go on with the last shift of the line if it was not ended (after a crash). Returns its id or ``None``."""
        query = select(ShiftRow.id, ShiftRow.ended_at).where(ShiftRow.line == line).order_by(ShiftRow.id.desc())
        row = self._first(query.limit(1))
        if row is not None and row.ended_at is None:
            self.shift_id = int(row.id)
            return self.shift_id
        return None

    def join_shift(self, line: str) -> int | None:
        """Record in the last shift of the line, ended or not: for what comes in beside it. Its id or ``None``."""
        row = self._first(select(ShiftRow.id).where(ShiftRow.line == line).order_by(ShiftRow.id.desc()).limit(1))
        self.shift_id = None if row is None else int(row.id)
        return self.shift_id

    def end_shift(self, stamp: float, **payload: Any) -> None:
        """End the shift that records are made in."""
        with self.transaction() as tx:
            tx.record(EventKind.SHIFT_ENDED, None, stamp, **payload)
            tx.shift_id = None

    # ---- after a crash ----

    def open_batteries(self, line: str) -> list[OpenBattery]:
        """Batteries of the line that were detected and not disposed, of all its shifts, oldest first."""
        query = (
            _BATTERY.join(ShiftRow, ShiftRow.id == BatteryRow.shift_id)
            .where(ShiftRow.line == line, BatteryRow.bin.is_(None))
            .order_by(BatteryRow.detected_at, BatteryRow.battery_id)
        )
        return [_to_battery(row) for row in self._rows(query)]

    def finished_ids(self, line: str, limit: int) -> list[str]:
        """Ids of the last ``limit`` disposed batteries of the line, oldest first."""
        query = (
            select(BatteryRow.battery_id)
            .join(ShiftRow, ShiftRow.id == BatteryRow.shift_id)
            .where(ShiftRow.line == line, BatteryRow.bin.is_not(None))
            .order_by(BatteryRow.detected_at.desc(), BatteryRow.battery_id.desc())
            .limit(limit)
        )
        return [row.battery_id for row in reversed(self._rows(query))]

    def last_ids(self, line: str, limit: int) -> list[str]:
        """Ids of the last ``limit`` batteries of the line, newest first."""
        query = (
            select(BatteryRow.battery_id)
            .join(ShiftRow, ShiftRow.id == BatteryRow.shift_id)
            .where(ShiftRow.line == line)
            .order_by(BatteryRow.detected_at.desc(), BatteryRow.battery_id.desc())
            .limit(limit)
        )
        return [row.battery_id for row in self._rows(query)]

    def known_ids(self, prefix: str = "") -> set[str]:
        """Ids of all batteries whose id starts with ``prefix`` (the PLC's boot id in hex)."""
        query = select(BatteryRow.battery_id).where(BatteryRow.battery_id.startswith(prefix, autoescape=True))
        return {row.battery_id for row in self._rows(query)}

    # ---- reading ----

    def shifts(self) -> list[Shift]:
        """All shifts, oldest first."""
        return [Shift(*row) for row in self._rows(_SHIFT.order_by(ShiftRow.id))]

    def batteries(
        self,
        shift_id: int | None = None,
        *,
        prefix: str = "",
        bin: str | None = None,
        reason: str | None = None,
        limit: int | None = None,
    ) -> list[BatteryRecord]:
        """Batteries in the order of their detection, narrowed by what is given."""
        query = _BATTERY.order_by(BatteryRow.detected_at, BatteryRow.battery_id).limit(limit)
        if shift_id is not None:
            query = query.where(BatteryRow.shift_id == shift_id)
        if prefix:
            query = query.where(BatteryRow.battery_id.startswith(prefix, autoescape=True))
        if bin is not None:
            query = query.where(BatteryRow.bin == bin)
        if reason is not None:
            query = query.where(BatteryRow.reason == reason)
        return [_to_battery(row) for row in self._rows(query)]

    def battery(self, battery_id: str) -> BatteryRecord | None:
        """State of one battery, ``None`` if it was never detected."""
        row = self._first(_BATTERY.where(BatteryRow.battery_id == battery_id))
        return None if row is None else _to_battery(row)

    def events(
        self,
        shift_id: int | None = None,
        *,
        battery_id: str | None = None,
        kinds: Sequence[EventKind] = (),
        last: int | None = None,
    ) -> list[Event]:
        """Events in the order in which they were written, narrowed by what is given; at most the ``last`` ones."""
        query = _EVENT.order_by(EventRow.id.desc()).limit(last)
        if shift_id is not None:
            query = query.where(EventRow.shift_id == shift_id)
        if battery_id is not None:
            query = query.where(EventRow.battery_id == battery_id)
        if kinds:
            query = query.where(EventRow.kind.in_([kind.value for kind in kinds]))
        return [_to_event(row) for row in reversed(self._rows(query))]

    def images(self, battery_id: str) -> list[ImageRecord]:
        """Pictures of one battery, oldest first."""
        query = (
            select(
                BatteryImageRow.battery_id,
                ImageRow.sha256,
                ImageRow.path,
                ImageRow.width,
                ImageRow.height,
                ImageRow.bytes,
                BatteryImageRow.stamp,
                BatteryImageRow.station,
            )
            .join(ImageRow, ImageRow.sha256 == BatteryImageRow.sha256)
            .where(BatteryImageRow.battery_id == battery_id)
            .order_by(BatteryImageRow.stamp)
        )
        return [ImageRecord(*row) for row in self._rows(query)]

    def _rows(self, query: Executable) -> Sequence[Any]:
        with self._reading() as connection:
            return connection.execute(query).all()

    def _first(self, query: Executable) -> Any:
        with self._reading() as connection:
            return connection.execute(query).first()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with ledger_errors(self.name), self._engine.connect() as connection:
            yield connection


def _to_battery(row: Any) -> BatteryRecord:
    fields = row._asdict()
    if row.eject_outcome is not None:
        fields["eject_outcome"] = EjectOutcome(row.eject_outcome)
    return BatteryRecord(**fields)


def _to_event(row: Any) -> Event:
    return Event(row.id, row.shift_id, row.battery_id, row.stamp, row.recorded_at, EventKind(row.kind), row.payload)
