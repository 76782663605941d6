"""Writing into the ledger: every event becomes one row, and the battery's state follows in the same transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Update, bindparam, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from battery_sorting.core.errors import LedgerError

from ._models import BatteryImageRow, EventRow, ImageRow, ShiftRow, batteries
from ._records import DuplicateRecordError, UnknownBatteryError
from .events import (
    Decided,
    Detected,
    Disposed,
    EjectOrdered,
    EjectReported,
    EventData,
    Exited,
    ShiftEnded,
    ShiftStarted,
    Typed,
    plain,
)

_INSERT_EVENT = insert(EventRow.__table__)  # type: ignore[arg-type]
_INSERT_BATTERY = insert(batteries)

_this = batteries.c.battery_id == bindparam("b_id")
_open = batteries.c.bin.is_(None)
_own_token = batteries.c.token == bindparam("b_token")

_CONDITIONS: dict[type[EventData], tuple[ColumnElement[bool], ...]] = {
    # A verdict that comes after the disposition is logged, but the record keeps what was acted on.
    Typed: (_open,),
    Decided: (_open,),
    EjectOrdered: (_open, or_(batteries.c.token.is_(None), _own_token)),
    EjectReported: (_own_token,),
    Exited: (),
    Disposed: (_open,),
}
"""Events that change the battery's state, and on what condition."""
_ONCE = (Decided, EjectOrdered, Disposed)
"""Events that move a battery: refused when their condition is not met."""


def _change(data: type[EventData]) -> Update:
    """How the battery's state follows: the parameter of a field is ``b_`` and its name."""
    values: dict[str, Any] = {column: bindparam(f"b_{name}") for name, column in data.columns().items()}
    if data.STAMP_COLUMN:
        values[data.STAMP_COLUMN] = bindparam("b_stamp")
    return update(batteries).where(_this, *_CONDITIONS[data]).values(values)


_CHANGES = {data: _change(data) for data in _CONDITIONS}
_PARAMETERS = {data: frozenset(change.compile().params) for data, change in _CHANGES.items()}


class Transaction:
    """Records that are committed together. Made by `Ledger.transaction`, valid inside its ``with`` only."""

    def __init__(self, connection: Connection, name: str, shift_id: int | None, now: Callable[[], float]) -> None:
        self._connection = connection
        self._name = name
        self._now = now
        self.shift_id = shift_id

    def record(self, data: EventData, battery_id: str | None, stamp: float) -> None:
        """Write one event and bring the battery's state up to date.

        Args:
            data: What happened.
            battery_id: The battery it happened to; ``None`` for events of the line.
            stamp: When it happened, in seconds.

        Raises:
            DuplicateRecordError: A second detection or disposition, a decision or order after the disposition, or
                an order with a second token. Nothing of this record is written.
            UnknownBatteryError: The battery was never detected.
            LedgerError: No shift is open, or the database refuses.
            ValueError: An event of a battery that names none.
        """
        if battery_id is None and data.OF_A_BATTERY:
            raise ValueError(f"event {data.KIND} needs a battery_id")
        if isinstance(data, ShiftStarted):
            self._start_shift(stamp, data)
        shift_id = self._current_shift()
        if isinstance(data, ShiftEnded):
            self._connection.execute(update(ShiftRow).where(ShiftRow.id == shift_id).values(ended_at=stamp))
        elif isinstance(data, Detected):
            self._add_battery(str(battery_id), shift_id, stamp, data)
        elif battery_id is not None:
            self._change_battery(data, battery_id, stamp)
        row = {
            "shift_id": shift_id,
            "battery_id": battery_id,
            "stamp": stamp,
            "recorded_at": self._now(),
            "kind": data.KIND.value,
            "payload": data.payload(),
        }
        self._connection.execute(_INSERT_EVENT, row)

    def add_image(
        self,
        battery_id: str,
        sha256: str,
        *,
        path: str,
        width: int,
        height: int,
        size: int,
        stamp: float,
        station: str = "infeed",
    ) -> None:
        """File a picture of a battery. The same picture of the same battery at the same station is filed once.

        Args:
            battery_id: The battery; it need not have been recorded yet.
            sha256: As returned by `ImageStore.put`.
            path: Where the file is.
            width: In pixels.
            height: In pixels.
            size: In bytes.
            stamp: End of exposure in seconds.
            station: Where it was taken.
        """
        if not self._exists(select(ImageRow.sha256).where(ImageRow.sha256 == sha256)):
            image = {"sha256": sha256, "path": path, "width": width, "height": height, "bytes": size}
            self._connection.execute(insert(ImageRow), image)
        link = {"battery_id": battery_id, "sha256": sha256, "station": station}
        if not self._exists(select(BatteryImageRow.stamp).filter_by(**link)):
            self._connection.execute(insert(BatteryImageRow), {**link, "stamp": stamp})

    def _start_shift(self, stamp: float, data: ShiftStarted) -> None:
        row = {**data.payload(), "started_at": stamp}
        key = self._connection.execute(insert(ShiftRow), row).inserted_primary_key
        assert key is not None
        self.shift_id = int(key[0])

    def _current_shift(self) -> int:
        if self.shift_id is None:
            raise LedgerError(f"{self._name}: no shift is open; record shift_started or call resume_shift first")
        return self.shift_id

    def _add_battery(self, battery_id: str, shift_id: int, stamp: float, data: Detected) -> None:
        values = {column: plain(getattr(data, name)) for name, column in data.columns().items()}
        row = {"battery_id": battery_id, "shift_id": shift_id, data.STAMP_COLUMN: stamp, **values}
        # Asked first, since PostgreSQL gives up the whole transaction when a constraint is hurt.
        if self._exists(select(batteries.c.shift_id).where(batteries.c.battery_id == battery_id)):
            raise DuplicateRecordError(f"{self._name}: battery {battery_id} was detected before")
        try:
            self._connection.execute(_INSERT_BATTERY, row)
        except IntegrityError as error:
            raise DuplicateRecordError(
                f"{self._name}: battery {battery_id} was detected before ({error.orig})"
            ) from error

    def _change_battery(self, data: EventData, battery_id: str, stamp: float) -> None:
        change = _CHANGES.get(type(data))
        if change is not None:
            values = {"b_id": battery_id, "b_stamp": stamp}
            values |= {f"b_{name}": plain(value) for name, value in vars(data).items()}
            values = {name: value for name, value in values.items() if name in _PARAMETERS[type(data)]}
            if self._connection.execute(change, values).rowcount:
                return
        state = self._connection.execute(select(batteries).where(batteries.c.battery_id == battery_id)).first()
        event = f"{self._name}: {data.KIND} of battery {battery_id}"
        if state is None:
            raise UnknownBatteryError(f"{event}, which was never detected")
        if not isinstance(data, _ONCE):
            return
        if state.bin is not None:
            raise DuplicateRecordError(f"{event}, which went to {state.bin} ({state.reason}) before")
        raise DuplicateRecordError(
            f"{self._name}: battery {battery_id} has the eject token {state.token} and gets no second one"
        )

    def _exists(self, query: Any) -> bool:
        return self._connection.execute(query.limit(1)).first() is not None
