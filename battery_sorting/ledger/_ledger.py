"""The ledger: one record for every battery, written before anything is done to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Executable,
    Select,
    Text,
    cast,
    func,
    select,
    type_coerce,
)
from sqlalchemy.types import NullType

from battery_sorting.core.secrets import LedgerUrl
from battery_sorting.core.types import EjectOutcome

from ._engine import Access, FileWatch, ledger_errors, open_engine
from ._models import BatteryImageRow, EventRow, ImageRow, ShiftRow, batteries
from ._reading import UnreadableError, read_battery, read_event, read_image, read_shift
from ._records import DamagedLedgerError, DataT, Event, ImageRecord, OpenBattery, Shift, Tally
from ._salvage import Salvage
from ._transaction import Transaction
from .events import BatteryRecord, Commanded, EventData, EventKind, ShiftEnded, ShiftStarted

AT_ONCE = 500
"""So many rows are held at once where they are looked at one after the other."""
COMMANDS_READ = 20_000
"""What a person has ordered is looked for among so many last commands."""

_KINDS = [kind.value for kind in EventKind]
MOST_NAMED = 10_000
"""So many rows that can't be read are kept by name; further ones are counted."""


def _stored(column: Any) -> Any:
    """A column as it is stored: what SQLAlchemy would make of it, `_reading` does, row by row."""
    return type_coerce(column, NullType())


def _document(column: Any, dialect: str) -> Any:
    """A column of JSON as text, as SQLite stores it."""
    return cast(column, Text) if dialect == "postgresql" else _stored(column)


class _Queries:
    """What is asked for of each kind of record."""

    def __init__(self, dialect: str) -> None:
        shift, event = ShiftRow, EventRow
        plain = [shift.id, shift.line, shift.site, shift.started_at, shift.ended_at, shift.software_version]
        self.shift = select(*map(_stored, plain), _document(shift.config, dialect))
        self.battery = select(*(_stored(batteries.c[name]) for name in BatteryRecord.__dataclass_fields__))
        columns = [event.id, event.shift_id, event.battery_id, event.stamp, event.recorded_at, event.kind]
        self.event = select(*map(_stored, columns), _document(event.payload, dialect))
        picture = [ImageRow.sha256, ImageRow.path, ImageRow.width, ImageRow.height, ImageRow.bytes]
        link = BatteryImageRow
        self.image = select(*map(_stored, [link.battery_id, *picture, link.stamp, link.station]))


class Ledger:
    """Ledger of a cell. Open it with `Ledger.open`; it may be used by many threads and processes at once.

    What is read is checked, row by row: a row that is no record is left out, and `unreadable` says which and why.

    Attributes:
        name: Path or URL (without password), for messages.
        shift_id: The shift that records are made in, or ``None``.
    """

    def __init__(
        self, engine: Engine, name: str, now: Callable[[], float] = time.time, watch: FileWatch | None = None
    ) -> None:
        self._engine = engine
        self._watch = watch or FileWatch(None)
        self._writer = engine.execution_options(ledger_write=True)
        self._now = now
        self._queries = _Queries(engine.dialect.name)
        self._unreadable: dict[str, str] = {}
        self._more_unreadable = 0
        self.name = name
        self.shift_id: int | None = None

    @classmethod
    def open(
        cls,
        location: str | Path | LedgerUrl,
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
        engine, name, watch = open_engine(location, access)
        return cls(engine, name, now, watch)

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

    def check_file(self) -> None:
        """Look whether the file that was opened is still at its place; a ledger on a server has none.

        Raises:
            LedgerError: It was deleted, moved or replaced. The message names it and the remedy.
        """
        self._watch.check()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Records made inside the ``with`` are committed at its end, or none of them if it raises.

        Raises:
            LedgerError: The database refuses (locked for more than 5 s, disk full, file replaced, …); nothing was
                written.
        """
        self.check_file()
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
            tx.record(ShiftStarted(line, site, software_version, config or {}), None, stamp)
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

    def end_shift(self, stamp: float, end: ShiftEnded | None = None) -> None:
        """End the shift that records are made in."""
        with self.transaction() as tx:
            tx.record(end or ShiftEnded(), None, stamp)
            tx.shift_id = None

    # ---- after a crash ----

    def open_batteries(self, line: str) -> list[OpenBattery]:
        """Batteries of the line that were detected and not disposed, of all its shifts, oldest first."""
        query = (
            self._queries.battery.join(ShiftRow, ShiftRow.id == batteries.c.shift_id)
            .where(ShiftRow.line == line, batteries.c.bin.is_(None))
            .order_by(batteries.c.detected_at, batteries.c.battery_id)
        )
        return list(self._batteries_of(query))

    def finished_ids(self, line: str, limit: int) -> list[str]:
        """Ids of the last ``limit`` disposed batteries of the line, oldest first."""
        query = (
            select(batteries.c.battery_id)
            .join(ShiftRow, ShiftRow.id == batteries.c.shift_id)
            .where(ShiftRow.line == line, batteries.c.bin.is_not(None))
            .order_by(batteries.c.detected_at.desc(), batteries.c.battery_id.desc())
            .limit(limit)
        )
        return [row.battery_id for row in reversed(self._rows(query)) if isinstance(row.battery_id, str)]

    def last_ids(self, line: str, limit: int) -> list[str]:
        """Ids of the last ``limit`` batteries of the line, newest first."""
        query = (
            select(batteries.c.battery_id)
            .join(ShiftRow, ShiftRow.id == batteries.c.shift_id)
            .where(ShiftRow.line == line)
            .order_by(batteries.c.detected_at.desc(), batteries.c.battery_id.desc())
            .limit(limit)
        )
        return [row.battery_id for row in self._rows(query) if isinstance(row.battery_id, str)]

    def known_ids(self, prefix: str = "") -> set[str]:
        """Ids of all batteries whose id starts with ``prefix`` (the PLC's boot id in hex)."""
        query = select(batteries.c.battery_id).where(batteries.c.battery_id.startswith(prefix, autoescape=True))
        return {row.battery_id for row in self._rows(query) if isinstance(row.battery_id, str)}

    # ---- reading ----

    @property
    def unreadable(self) -> list[str]:
        """A sentence for each row, of those that were read so far, that is no record. It was left out.

        At most `MOST_NAMED`; the last sentence says how many more there are.
        """
        named = [f"{what} can't be read: {why}" for what, why in self._unreadable.items()]
        more = self._more_unreadable
        return [*named, f"{more} more rows can't be read"] if more else named

    def shifts(self) -> list[Shift]:
        """All shifts, oldest first. What of a shift can't be read is empty."""
        found = []
        for row in self._each_row(self._queries.shift.order_by(ShiftRow.id), "shifts"):
            try:
                shift, problems = read_shift(row)
            except UnreadableError as error:
                self._leave_out("a shift", str(error))
                continue
            if problems:
                self._leave_out(f"shift {shift.shift_id}", "; ".join(problems))
            found.append(shift)
        return found

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
        return list(self.each_battery(shift_id, prefix=prefix, bin=bin, reason=reason, limit=limit))

    def each_battery(
        self,
        shift_id: int | None = None,
        *,
        prefix: str = "",
        bin: str | None = None,
        reason: str | None = None,
        limit: int | None = None,
    ) -> Iterator[BatteryRecord]:
        """As `batteries`, one after the other: none is kept here."""
        query = self._queries.battery.order_by(batteries.c.detected_at, batteries.c.battery_id).limit(limit)
        if shift_id is not None:
            query = query.where(batteries.c.shift_id == shift_id)
        if prefix:
            query = query.where(batteries.c.battery_id.startswith(prefix, autoescape=True))
        if bin is not None:
            query = query.where(batteries.c.bin == bin)
        if reason is not None:
            query = query.where(batteries.c.reason == reason)
        return self._batteries_of(query)

    def battery(self, battery_id: str) -> BatteryRecord | None:
        """State of one battery, ``None`` if it was never detected."""
        found = list(self._batteries_of(self._queries.battery.where(batteries.c.battery_id == battery_id)))
        return found[0] if found else None

    def events(
        self,
        shift_id: int | None = None,
        *,
        battery_id: str | None = None,
        kinds: Sequence[type[DataT]] = (),
        last: int | None = None,
        line: str | None = None,
        after: int = 0,
    ) -> list[Event[DataT]]:
        """Events in the order in which they were written, narrowed by what is given.

        Args:
            shift_id: Of this shift.
            battery_id: Of this battery.
            kinds: Of these kinds; none given: of all.
            last: At most so many, the last ones.
            line: Of this line.
            after: Written after the event with this id.
        """
        if last is None:
            return list(self.each_event(shift_id, battery_id=battery_id, kinds=kinds, line=line, after=after))
        numbers = _narrowed(select(EventRow.id), shift_id, battery_id, kinds, line, after)
        numbers = numbers.order_by(EventRow.id.desc()).limit(last)
        return list(self._events_of(self._queries.event.where(EventRow.id.in_(numbers)).order_by(EventRow.id)))

    def each_event(
        self,
        shift_id: int | None = None,
        *,
        battery_id: str | None = None,
        kinds: Sequence[type[DataT]] = (),
        line: str | None = None,
        after: int = 0,
    ) -> Iterator[Event[DataT]]:
        """As `events`, one after the other: none is kept here."""
        query = _narrowed(self._queries.event, shift_id, battery_id, kinds, line, after)
        return self._events_of(query.order_by(EventRow.id))

    def commands(self, line: str) -> list[Commanded]:
        """The last commands to a line, of all its shifts, oldest first; at most `COMMANDS_READ`."""
        numbers = select(EventRow.id).join(ShiftRow, ShiftRow.id == EventRow.shift_id).where(ShiftRow.line == line)
        # An event whose kind can't be read may have been one; it is told, then (`unreadable`).
        numbers = numbers.where((EventRow.kind == EventKind.COMMAND.value) | EventRow.kind.not_in(_KINDS))
        numbers = numbers.order_by(EventRow.id.desc()).limit(COMMANDS_READ)
        query = self._queries.event.where(EventRow.id.in_(numbers)).order_by(EventRow.id)
        return [event.data for event in self._events_of(query)]

    def tally(self, shift_id: int) -> Tally:
        """How many batteries were detected and disposed in a shift, and for how many an ejection was late."""
        events = select(EventRow.battery_id).where(EventRow.shift_id == shift_id)
        detected = events.where(EventRow.kind == EventKind.DETECTED.value)
        disposed = events.where(EventRow.kind == EventKind.DISPOSED.value)
        reported = events.where(EventRow.kind == EventKind.EJECT_REPORTED.value)
        late = select(func.count()).where(
            batteries.c.eject_outcome == EjectOutcome.LATE.value, batteries.c.battery_id.in_(reported)
        )
        placed = (
            select(batteries.c.bin, batteries.c.reason, func.count())
            .where(batteries.c.battery_id.in_(disposed))
            .group_by(batteries.c.bin, batteries.c.reason)
        )
        return Tally(
            detected=self._first(select(func.count()).select_from(detected.subquery()))[0],
            late=self._first(late)[0],
            placed={
                (row[0], row[1]): int(row[2])
                for row in self._rows(placed)
                if isinstance(row[0], str) and isinstance(row[1], str)
            },
        )

    def disposals(self, line: str, after: int = 0) -> list[tuple[int, str]]:
        """Id of the event and bin of all batteries of a line that were disposed after the event ``after``."""
        query = (
            select(EventRow.id, batteries.c.bin)
            .join(batteries, batteries.c.battery_id == EventRow.battery_id)
            .join(ShiftRow, ShiftRow.id == EventRow.shift_id)
            .where(ShiftRow.line == line, EventRow.kind == EventKind.DISPOSED.value, EventRow.id > after)
            .order_by(EventRow.id)
        )
        return [(int(row[0]), row[1]) for row in self._rows(query) if isinstance(row[1], str)]

    def images(self, battery_id: str) -> list[ImageRecord]:
        """Pictures of one battery, oldest first."""
        query = (
            self._queries.image.join(ImageRow, ImageRow.sha256 == BatteryImageRow.sha256)
            .where(BatteryImageRow.battery_id == battery_id)
            .order_by(BatteryImageRow.stamp)
        )
        found = []
        for row in self._rows(query):
            try:
                found.append(read_image(row))
            except UnreadableError as error:
                self._leave_out(f"picture {_shown_name(row[1])} of battery {battery_id}", str(error))
        return found

    def _events_of(self, query: Select[Any]) -> Iterator[Event[Any]]:
        for row in self._each_row(query, "events"):
            try:
                yield read_event(row)
            except UnreadableError as error:
                self._leave_out(f"event {row[0]}", str(error))

    def _batteries_of(self, query: Select[Any]) -> Iterator[BatteryRecord]:
        for row in self._each_row(query, "batteries"):
            try:
                yield read_battery(row)
            except UnreadableError as error:
                self._leave_out(f"battery {_shown_name(row[0])}", str(error))

    def _leave_out(self, what: str, why: str) -> None:
        if what in self._unreadable or len(self._unreadable) < MOST_NAMED:
            self._unreadable[what] = why
        else:
            self._more_unreadable += 1

    def _each_row(self, query: Select[Any], table: str) -> Iterator[Any]:
        """Rows of a query of this table, one after the other. Of a damaged file, those that are left."""
        row, in_order = None, table != "batteries"
        try:
            with self._reading() as connection:
                for row in connection.execution_options(yield_per=AT_ONCE).execute(query):
                    yield row
        except DamagedLedgerError:
            if self._engine.dialect.name != "sqlite" or (row is not None and not in_order):
                raise
            first = row[0] + 1 if row is not None and isinstance(row[0], int) else 1
            yield from Salvage(self._reading, query, table, self._leave_out).rows(first)

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


def _narrowed(
    query: Select[Any],
    shift_id: int | None,
    battery_id: str | None,
    kinds: Sequence[type[EventData]],
    line: str | None,
    after: int,
) -> Select[Any]:
    """A query of events as `Ledger.events` describes it."""
    if line is not None:
        query = query.join(ShiftRow, ShiftRow.id == EventRow.shift_id).where(ShiftRow.line == line)
    if after:
        query = query.where(EventRow.id > after)
    if shift_id is not None:
        query = query.where(EventRow.shift_id == shift_id)
    if battery_id is not None:
        query = query.where(EventRow.battery_id == battery_id)
    if kinds:
        query = query.where(EventRow.kind.in_([data.KIND.value for data in kinds]))
    return query


def _shown_name(stored: Any) -> str:
    return ascii(stored)[1:-1][:80] if isinstance(stored, str) else "without a name"
