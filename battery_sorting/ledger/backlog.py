"""Records that wait for the ledger: what can't be written now is written later, in its order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from battery_sorting.core.errors import LedgerError
from battery_sorting.core.strict_json import to_json
from battery_sorting.ledger import DuplicateRecordError, Record, UnknownBatteryError
from battery_sorting.ledger.store import Ledger


class Backlog:
    """Writes records into a ledger, first those that could not be written before.

    Args:
        ledger: The ledger, with a shift.
        refused: Is told why the ledger will never take a record. That one is given up: it would block all others.
        stamp: Wall clock (s), for records that don't bring the time of what was seen.

    Attributes:
        problem: Why the ledger takes nothing now, empty if it does.
    """

    def __init__(
        self, ledger: Ledger, refused: Callable[[str], None], stamp: Callable[[], float] = time.time
    ) -> None:
        self._ledger = ledger
        self._refused = refused
        self._stamp = stamp
        self._waiting: list[Record] = []
        self.problem = ""

    def __len__(self) -> int:
        return len(self._waiting)

    def write(self, records: Iterable[Record] = ()) -> bool:
        """Returns whether all these records, and those that waited, stand in the ledger."""
        self._waiting += (record.stamped(self._stamp()) for record in records)
        if not self._waiting:
            return True
        complaints = []
        try:
            with self._ledger.transaction() as transaction:
                for record in self._waiting:
                    assert record.stamp is not None  # since it waits here
                    try:
                        transaction.record(record.data, record.battery_id, record.stamp)
                    except (DuplicateRecordError, UnknownBatteryError) as error:
                        complaints.append(str(error))  # the ledger knows better
        except LedgerError as error:
            self.problem = str(error)
            return False
        self._waiting, self.problem = [], ""
        for complaint in complaints:
            self._refused(complaint)
        return not complaints

    def check_file(self) -> None:
        """Look whether the ledger's file is still there, also while nothing is to be written; see `problem`."""
        try:
            self._ledger.check_file()
        except LedgerError as error:
            self.problem = str(error)
            return
        if not self._waiting:
            self.problem = ""

    def rescue(self, path: Path) -> int:
        """Append what waits to a file, one record a line as JSON, since nobody will write it any more.

        Returns:
            How many records these are.

        Raises:
            OSError: The file can't be written.
        """
        if self._waiting:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.writelines(f"{_as_json(record)}\n" for record in self._waiting)
        return len(self._waiting)


def _as_json(record: Record) -> str:
    row = {
        "kind": record.data.KIND,
        "battery_id": record.battery_id,
        "stamp": record.stamp,
        "payload": record.data.payload(),
    }
    return to_json(row, None, ensure_ascii=False)
