"""The ledger as the inspection station needs it: what it decides is written before it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from battery_sorting.core.errors import LedgerError
from battery_sorting.ev.site import EvSite
from battery_sorting.ev.stations.host import StationHost, Workers
from battery_sorting.ledger import EventKind, Record
from battery_sorting.ledger.backlog import Backlog
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.paths import ledger_location

READ_AGAIN_S = 1.0
"""Between two looks whether a ledger that could not be read can be read again."""
WRITE_AGAIN_S = 0.1
"""Between two tries to write what the ledger does not take: the PLC's watchdog waits 0.5 s for a sign of life."""


class StationLedger:
    """The ledger. Whatever is wrong with it, the line hears by the heartbeat until it is mended.

    Attributes:
        ledger: None while the node is not configured.
    """

    def __init__(self, host: StationHost, workers: Workers, site: EvSite, run_dir: Path) -> None:
        self._host, self._workers = host, workers
        self._site, self._run_dir = site, run_dir
        self.ledger: Ledger | None = None
        self._backlog: Backlog | None = None
        self._unread = ""  # why the ledger could not be read
        self._read_again_at = 0.0

    def open(self) -> None:
        """Opens it.

        Raises:
            LedgerError: It can't be opened.
        """
        self.ledger = Ledger.open(ledger_location(self._site, self._run_dir))
        self._backlog = Backlog(self.ledger, self._host.get_logger().error)
        self._unread = ""

    def close(self) -> None:
        """Closes it, if it is open."""
        ledger, self.ledger = self.ledger, None
        if ledger is not None:
            ledger.close()

    @property
    def may_be_read(self) -> bool:
        """Whether it is worth another try to read it."""
        return time.monotonic() >= self._read_again_at

    def last_id(self) -> str:
        """The last cell on record, empty for none."""
        assert self.ledger is not None
        last = self.ledger.last_ids(self._site.line, 1)
        return last[0] if last else ""

    def watch(self) -> None:
        """All is well with the station; and with the ledger, if its file is where it was."""
        try:
            if self.ledger is not None:
                self.ledger.check_file()
                if self._unread and self.may_be_read:
                    self.join_shift()
        except LedgerError as error:
            self._host.degrade(error)
            return
        if self._unread:
            self._host.degrade(self._unread)
        else:
            self._host.recover()

    def join_shift(self) -> int | None:
        """The shift that is written into, None if there is none; and whether the ledger can be read.

        Raises:
            LedgerError: It can't.
        """
        assert self.ledger is not None
        try:
            shift_id = self.ledger.join_shift(self._site.line)
        except LedgerError as error:
            self._miss(error)
            raise
        self._unread = ""
        return shift_id

    def _miss(self, error: LedgerError) -> None:
        self._unread, self._read_again_at = str(error), time.monotonic() + READ_AGAIN_S
        self._host.degrade(error)

    def cut_off(self) -> list[tuple[str, str, int]]:
        """Cells that were loaded and not released: id, and outlet and token of the order to release it, if any.

        Raises:
            LedgerError: It can't be read.
        """
        try:
            self.join_shift()
            return self._cut_off()
        except LedgerError as error:
            self._miss(error)
            raise

    def _cut_off(self) -> list[tuple[str, str, int]]:
        assert self.ledger is not None
        found = []
        for battery in self.ledger.open_batteries(self._site.line):
            events = self.ledger.events(battery_id=battery.battery_id)
            if not any(event.kind is EventKind.RELEASED for event in events):
                orders = [event.payload for event in events if event.kind is EventKind.RELEASE_ORDERED]
                outlet, token = (orders[-1]["outlet"], orders[-1]["token"]) if orders else ("", 0)
                found.append((battery.battery_id, str(outlet), int(token)))
        return found

    def write(self, records: list[Record], meanwhile: Callable[[], None]) -> bool:
        """Writes records; waits until the ledger takes them, with ``meanwhile`` between any two tries.

        Returns:
            Whether they are written. If not, the node ends before.
        """
        backlog = self._backlog
        while backlog is not None and not self._workers.ending.is_set():
            backlog.write(records)
            if not len(backlog):
                return True
            records = []
            self._host.degrade(backlog.problem)
            self._workers.ending.wait(WRITE_AGAIN_S)
            meanwhile()
        return False
