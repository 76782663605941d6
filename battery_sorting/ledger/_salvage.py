"""What is left of a damaged SQLite file: the rows that can be read, whichever pages around them can't."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Connection, Select, bindparam, literal_column, select, text

from ._records import DamagedLedgerError

AT_ONCE = 512
NOT_INDEXED = "not_indexed"
"""Option of a query: name of the table that is read by its own rows, and not by an index."""
_NAMES = {"events": "event", "shifts": "shift", "batteries": "battery of row"}
PROBES = 64
MOST_TRIES = 20_000
"""So often a damaged file is asked; ranges that are not clear by then are given up as a whole."""


class Salvage:
    """Reads the rows of a query by their numbers, since indices and single pages of the table may be damaged.

    Args:
        reading: Gives a connection; raises `DamagedLedgerError` where the file can't be read.
        query: What is asked for.
        table: The table whose rows these are.
        leave_out: Is told what can't be read, and why.
    """

    def __init__(
        self,
        reading: Callable[[], AbstractContextManager[Connection]],
        query: Select[Any],
        table: str,
        leave_out: Callable[[str, str], None],
    ) -> None:
        self._reading = reading
        self._table = table
        self._number: Any = literal_column(f"{table}.rowid")
        self._query = query.limit(None).order_by(None).order_by(self._number)
        self._leave_out = leave_out
        self._tries = MOST_TRIES

    def rows(self, begin: int = 1) -> Iterator[Any]:
        """The rows that can be read, in the order of their numbers from ``begin`` on."""
        end = self._last()
        if end is None:
            self._leave_out(f"the table of {self._table}", "its first page is damaged")
            return
        for first in range(begin, end + 1, AT_ONCE):
            yield from self._between(first, min(first + AT_ONCE - 1, end))

    def _between(self, first: int, last: int) -> Iterator[Any]:
        self._tries -= 1
        try:
            rows = self._read(first, last)
        except DamagedLedgerError as error:
            what = _NAMES.get(self._table, f"row of {self._table}")
            if first == last or self._tries <= 0:
                self._leave_out(f"{what} {first}" + (f" to {last}" if last > first else ""), error.cause)
                return
            middle = (first + last) // 2
            yield from self._between(first, middle)
            yield from self._between(middle + 1, last)
            return
        yield from rows

    def _read(self, first: int, last: int) -> list[Any]:
        query = self._query.where(self._number >= bindparam("first"), self._number <= bindparam("last"))
        with self._reading() as connection:
            by_rows = connection.execution_options(**{NOT_INDEXED: self._table})
            return list(by_rows.execute(query, {"first": first, "last": last}).all())

    def _last(self) -> int | None:
        """The largest number of a row, or of one that a file of this size may have; None: no row can be reached."""
        query = select(self._number).select_from(text(self._table)).order_by(self._number.desc()).limit(1)
        try:
            with self._reading() as connection:
                return int(connection.execute(query).scalar() or 0)
        except DamagedLedgerError:
            with self._reading() as connection:
                pages, size = (
                    connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("page_count", "page_size")
                )
            most = int(pages or 0) * int(size or 0) // 32
            return most if any(self._can_be_reached(most * part // PROBES + 1) for part in range(PROBES)) else None

    def _can_be_reached(self, number: int) -> bool:
        """Whether the way to a row can be read, whether or not there is one of this number."""
        try:
            self._read(number, number)
        except DamagedLedgerError:
            return False
        return True
