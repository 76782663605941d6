"""Records that wait for the ledger: what can't be written now is written later, in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from battery_sorting.core.errors import LedgerError
from battery_sorting.core.ledger import DuplicateRecordError, Ledger, UnknownBatteryError
from battery_sorting.core.line import Record


class Backlog:
    """Writes records into a ledger, first those that could not be written before.

    Args:
        ledger: The ledger, with a shift.
        refused: Is told why the ledger will never take a record. That one is given up: it would block all others.

    Attributes:
        problem: Why the ledger takes nothing now, empty if it does.
    """

    def __init__(self, ledger: Ledger, refused: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._refused = refused
        self._waiting: list[Record] = []
        self.problem = ""

    def __len__(self) -> int:
        return len(self._waiting)

    def write(self, records: Iterable[Record] = ()) -> bool:
        """Returns whether all these records, and those that waited, stand in the ledger."""
        self._waiting += records
        if not self._waiting:
            return True
        complaints = []
        try:
            with self._ledger.transaction() as transaction:
                for record in self._waiting:
                    try:
                        transaction.record(record.kind, record.battery_id, record.stamp, **record.payload)
                    except (DuplicateRecordError, UnknownBatteryError) as error:
                        complaints.append(str(error))  # the ledger knows better
        except LedgerError as error:
            self.problem = str(error)
            return False
        self._waiting, self.problem = [], ""
        for complaint in complaints:
            self._refused(complaint)
        return not complaints


def follow_ledger(backlog: Backlog, faults: dict[str, str], tell: Callable[[str], None]) -> None:
    """Keep the line's fault ``ledger`` as the backlog has it; ``tell`` hears of a new one."""
    if not backlog.problem:
        faults.pop("ledger", None)
        return
    if "ledger" not in faults:
        tell(backlog.problem)
    faults["ledger"] = backlog.problem
