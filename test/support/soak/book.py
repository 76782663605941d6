"""What a person sees of a line that runs: read from its ledger bit by bit, so that no run is too long for it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from battery_sorting.core.errors import LedgerError
from battery_sorting.core.types import OTHERS

WARNINGS = {"valve_fault", "unexpected_exit", "unaccounted"}
"""Alarms that hold nothing."""
SELF_ENDING = ("node_", "belt_state", "plc", "watchdog", "ledger", "emergency_stop", "encoder")
"""Beginnings of alarms that end with their cause: nobody has to acknowledge them."""
FULL = "full: "
"""Beginning of the reason of a line that waits for a person to empty what it then names."""
WORK = ("detected", "looked", "released", "moved", "measured", "grouped", "disposed")
"""Kinds of events by which a line shows that it works."""
_KINDS = ("line_state", "alarm_raised", "alarm_cleared", "decided", *WORK)
_QUERY = (
    # By the number of the row alone: an index on the kind would be read from its beginning every time.
    "SELECT id, battery_id, kind, payload FROM events NOT INDEXED "
    f"WHERE id > ? AND kind IN ({', '.join('?' * len(_KINDS))}) ORDER BY id LIMIT 2000"
)


@contextmanager
def reading(path: Path, timeout_s: float = 5.0) -> Iterator[sqlite3.Connection]:
    """A connection to a ledger of SQLite that only reads; how it stands is nothing that the soak changes."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=timeout_s)
    try:
        yield connection
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}") from error
    finally:
        connection.close()


class Book:
    """State, alarms and progress of a line, by its ledger.

    Attributes:
        state: PackML state as last recorded; empty before the first.
        reason: Why it is in that state.
        since: When it was first seen in it (monotonic, s).
        standing: Alarms that are raised now: code → text.
        sent: Highest number of a battery that was meant for a product bin.
        counts: Kind of event → how many so far.
        last: The last states and alarms, for a report.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = ""
        self.reason = ""
        self.since = time.monotonic()
        self.standing: dict[str, str] = {}
        self.sent = 0
        self.counts: Counter[str] = Counter()
        self.last: deque[str] = deque(maxlen=40)
        self._event_id = 0

    def follow(self) -> None:
        """Read what was written since the last call. A ledger that can't be read just now is read the next time."""
        if not self.path.exists():
            return
        try:
            with reading(self.path) as connection:
                rows = connection.execute(_QUERY, (self._event_id, *_KINDS)).fetchall()
        except LedgerError:
            return
        for event_id, battery_id, kind, payload in rows:
            self._event_id = event_id
            self.counts[kind] += 1
            self._take(kind, battery_id, payload)

    def _take(self, kind: str, battery_id: str | None, text: str) -> None:
        if kind == "decided" and battery_id:
            if json.loads(text)["bin"] != OTHERS:
                self.sent = max(self.sent, int(battery_id.partition(".")[0].rpartition("-")[2]))
        elif kind == "line_state":
            payload: dict[str, Any] = json.loads(text)
            self.state, self.reason = payload["name"], payload.get("reason") or ""
            self.since = time.monotonic()
            self.last.append(f"{self.state} ({self.reason})")
        elif kind == "alarm_raised":
            payload = json.loads(text)
            self.standing[payload["code"]] = payload["text"]
            self.last.append(f"alarm {payload['code']}: {payload['text']}")
        elif kind == "alarm_cleared":
            code = json.loads(text)["code"]
            self.standing.pop(code, None)
            self.last.append(f"alarm {code} is over")

    @property
    def full(self) -> list[str]:
        """Bins and places for which the line waits until a person has emptied them."""
        return self.reason.removeprefix(FULL).split(", ") if self.reason.startswith(FULL) else []

    @property
    def work(self) -> int:
        """How much was done so far, in events."""
        return sum(self.counts[kind] for kind in WORK)

    @property
    def to_acknowledge(self) -> dict[str, str]:
        """Standing alarms that end by a person's command alone."""
        return {
            code: text
            for code, text in self.standing.items()
            if code not in WARNINGS and not code.startswith(SELF_ENDING)
        }
