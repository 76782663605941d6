"""Records of what happens beside the line, written by others than the line controller."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ._ledger import Ledger
from ._records import UnknownBatteryError
from ._transaction import Transaction
from .events import EventData

WAITING = 1000
"""More records than this don't wait for the ledger; the oldest are given up."""
PATIENCE_S = 10.0
"""So long a record waits for its battery to be recorded: topics are delivered independently of one another."""
_LOOK_BACK = 64


@dataclass(frozen=True, slots=True)
class _SideRecord:
    data: EventData
    battery_id: str | None
    stamp: float
    since: float


class SideRecords:
    """Keeps records until the ledger takes them. The line doesn't depend on them: what can't be kept is counted.

    Attributes:
        given_up: Number of records that were not written and never will be.
    """

    def __init__(self, ledger: Ledger, line: str) -> None:
        self._ledger = ledger
        self._line = line
        self._waiting: deque[_SideRecord] = deque()
        self.given_up = 0

    def add(self, data: EventData, battery_id: str | None, stamp: float, now: float) -> None:
        """Take a record, to be written by the next `write`. It happened at ``stamp``; it is ``now`` (s)."""
        self._waiting.append(_SideRecord(data, battery_id, stamp, now))
        if len(self._waiting) > WAITING:
            self._waiting.popleft()
            self.given_up += 1

    def write(self, now: float) -> None:
        """Write what waits, into the last shift of the line; without a shift it goes on waiting.

        A record of no battery that the ledger has already (its message was delivered again) is passed over.

        Raises:
            LedgerError: The ledger refuses; all records go on waiting.
        """
        if not self._waiting or self._ledger.join_shift(self._line) is None:
            return
        news = [record for record in self._waiting if record.battery_id is not None or not self._is_known(record)]
        too_early: list[_SideRecord] = []
        with self._ledger.transaction() as transaction:
            for record in news:
                if not _write(transaction, record):
                    too_early.append(record)
        kept = [record for record in too_early if now - record.since < PATIENCE_S]
        self.given_up += len(too_early) - len(kept)
        self._waiting = deque(kept)

    def _is_known(self, record: _SideRecord) -> bool:
        events = self._ledger.events(kinds=[type(record.data)], last=_LOOK_BACK)
        return any(event.stamp == record.stamp and event.data == record.data for event in events)


def _write(transaction: Transaction, record: _SideRecord) -> bool:
    """Returns whether the battery is known, so that the record stands."""
    try:
        transaction.record(record.data, record.battery_id, record.stamp)
    except UnknownBatteryError:
        return False
    return True
