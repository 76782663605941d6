"""Writing into the ledger: every event becomes one row, and the battery's state follows in the same transaction."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from sqlalchemy import Connection, Update, bindparam, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from battery_sorting.core.errors import LedgerError
from battery_sorting.core.types import EjectOutcome

from ._models import BatteryImageRow, BatteryRow, EventRow, ImageRow, ShiftRow
from ._records import DuplicateRecordError, EventKind, UnknownBatteryError

_REQUIRED: dict[EventKind, frozenset[str]] = {
    EventKind.SHIFT_STARTED: frozenset({"line", "site"}),
    EventKind.DETECTED: frozenset({"trigger_count", "encoder_count"}),
    EventKind.TYPED: frozenset({"label"}),
    EventKind.DECIDED: frozenset({"bin"}),
    EventKind.EJECT_ORDERED: frozenset({"token", "bin"}),
    EventKind.EJECT_REPORTED: frozenset({"token", "outcome"}),
    EventKind.DISPOSED: frozenset({"bin", "reason"}),
    EventKind.MODEL_CHANGED: frozenset({"model"}),
    EventKind.SHADOW_TYPED: frozenset({"label"}),
    EventKind.LOOKED: frozenset({"view", "verdict"}),
    EventKind.STATION_FAULT: frozenset({"code"}),
    EventKind.RELEASE_ORDERED: frozenset({"outlet", "token"}),
    EventKind.RELEASED: frozenset({"outlet"}),
    EventKind.MOVE_ORDERED: frozenset({"source", "target"}),
    EventKind.MOVED: frozenset({"place"}),
    EventKind.MEASURED: frozenset({"programme"}),
    EventKind.GRADED: frozenset({"grade"}),
    EventKind.GROUPED: frozenset({"group"}),
}
_OF_A_BATTERY = frozenset(_REQUIRED) - {EventKind.SHIFT_STARTED, EventKind.MODEL_CHANGED}

_INSERT_EVENT = insert(EventRow.__table__)  # type: ignore[arg-type]
_INSERT_BATTERY = insert(BatteryRow.__table__)  # type: ignore[arg-type]

_this = BatteryRow.battery_id == bindparam("b_id")
_open = BatteryRow.bin.is_(None)

# What an event changes in the battery's state, and on what condition. The parameters are those of `_state_values`.
_CHANGES: dict[EventKind, Update] = {
    # A verdict that comes after the disposition is logged, but the record keeps what was acted on.
    EventKind.TYPED: update(BatteryRow)
    .where(_this, _open)
    .values(
        label=bindparam("b_label"),
        confidence=bindparam("b_confidence"),
        accepted=bindparam("b_accepted"),
        type_reason=bindparam("b_reason"),
    ),
    EventKind.DECIDED: update(BatteryRow)
    .where(_this, _open)
    .values(decided_bin=bindparam("b_bin"), decided_reason=bindparam("b_reason")),
    EventKind.EJECT_ORDERED: update(BatteryRow)
    .where(_this, _open, or_(BatteryRow.token.is_(None), BatteryRow.token == bindparam("b_token")))
    .values(token=bindparam("b_token")),
    EventKind.EJECT_REPORTED: update(BatteryRow)
    .where(_this, BatteryRow.token == bindparam("b_token"))
    .values(eject_outcome=bindparam("b_outcome")),
    EventKind.EXITED: update(BatteryRow).where(_this).values(exited_at=bindparam("b_stamp")),
    EventKind.DISPOSED: update(BatteryRow)
    .where(_this, _open)
    .values(bin=bindparam("b_bin"), reason=bindparam("b_reason"), disposed_at=bindparam("b_stamp")),
}
_ONCE = frozenset({EventKind.DECIDED, EventKind.EJECT_ORDERED, EventKind.DISPOSED})
"""Kinds that move a battery: refused when their condition is not met."""


class Transaction:
    """Records that are committed together. Made by `Ledger.transaction`, valid inside its ``with`` only."""

    def __init__(self, connection: Connection, name: str, shift_id: int | None, now: Callable[[], float]) -> None:
        self._connection = connection
        self._name = name
        self._now = now
        self.shift_id = shift_id

    def record(self, kind: EventKind | str, battery_id: str | None, stamp: float, /, **payload: Any) -> None:
        """Write one event and bring the battery's state up to date. The payload may have keys of any name.

        Args:
            kind: What happened.
            battery_id: The battery it happened to; ``None`` for events of the line.
            stamp: When it happened, in seconds.
            payload: See `docs/reference/ledger.md`. Enums, NumPy scalars and paths are stored plainly, NaN as null.

        Raises:
            DuplicateRecordError: A second detection or disposition, a decision or order after the disposition, or
                an order with a second token. Nothing of this record is written.
            UnknownBatteryError: The battery was never detected.
            LedgerError: No shift is open, or the database refuses.
            ValueError: No such kind, or the payload lacks a key that the kind needs.
        """
        kind = EventKind(kind)
        _check_call(kind, battery_id, payload)
        plain = {key: _plain(value) for key, value in payload.items()}
        if kind is EventKind.SHIFT_STARTED:
            self._start_shift(stamp, plain)
        shift_id = self._current_shift()
        if kind is EventKind.SHIFT_ENDED:
            self._connection.execute(update(ShiftRow).where(ShiftRow.id == shift_id).values(ended_at=stamp))
        elif kind is EventKind.DETECTED:
            self._add_battery(str(battery_id), shift_id, stamp, plain)
        elif battery_id is not None:
            self._change_battery(kind, battery_id, stamp, plain)
        row = {
            "shift_id": shift_id,
            "battery_id": battery_id,
            "stamp": stamp,
            "recorded_at": self._now(),
            "kind": kind.value,
            "payload": plain,
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

    def _start_shift(self, stamp: float, payload: Mapping[str, Any]) -> None:
        row = {
            "line": payload["line"],
            "site": payload["site"],
            "started_at": stamp,
            "software_version": payload.get("software_version", ""),
            "config": payload.get("config", {}),
        }
        key = self._connection.execute(insert(ShiftRow), row).inserted_primary_key
        assert key is not None
        self.shift_id = int(key[0])

    def _current_shift(self) -> int:
        if self.shift_id is None:
            raise LedgerError(f"{self._name}: no shift is open; record shift_started or call resume_shift first")
        return self.shift_id

    def _add_battery(self, battery_id: str, shift_id: int, stamp: float, payload: Mapping[str, Any]) -> None:
        row = {
            "battery_id": battery_id,
            "shift_id": shift_id,
            "detected_at": stamp,
            "trigger_count": payload["trigger_count"],
            "encoder_count": payload["encoder_count"],
            "gap_ahead_mm": payload.get("gap_ahead_mm"),
            "gap_behind_mm": payload.get("gap_behind_mm"),
            "gate_seen": payload.get("gate_seen"),
        }
        # Asked first, since PostgreSQL gives up the whole transaction when a constraint is hurt.
        if self._exists(select(BatteryRow.shift_id).where(BatteryRow.battery_id == battery_id)):
            raise DuplicateRecordError(f"{self._name}: battery {battery_id} was detected before")
        try:
            self._connection.execute(_INSERT_BATTERY, row)
        except IntegrityError as error:
            raise DuplicateRecordError(
                f"{self._name}: battery {battery_id} was detected before ({error.orig})"
            ) from error

    def _change_battery(self, kind: EventKind, battery_id: str, stamp: float, payload: Mapping[str, Any]) -> None:
        change = _CHANGES.get(kind)
        if change is not None:
            values = _state_values(kind, battery_id, stamp, payload)
            if self._connection.execute(change, values).rowcount:
                return
        state = self._connection.execute(
            select(BatteryRow.bin, BatteryRow.reason, BatteryRow.token).where(BatteryRow.battery_id == battery_id)
        ).first()
        if state is None:
            raise UnknownBatteryError(f"{self._name}: {kind} of battery {battery_id}, which was never detected")
        if kind not in _ONCE:
            return
        if state.bin is not None:
            raise DuplicateRecordError(
                f"{self._name}: {kind} of battery {battery_id}, which went to {state.bin} ({state.reason}) before"
            )
        raise DuplicateRecordError(
            f"{self._name}: battery {battery_id} has the eject token {state.token} and gets no second one"
        )

    def _exists(self, query: Any) -> bool:
        return self._connection.execute(query.limit(1)).first() is not None


def _state_values(kind: EventKind, battery_id: str, stamp: float, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the update that belongs to this kind."""
    values: dict[str, Any] = {"b_id": battery_id}
    if kind is EventKind.TYPED:
        values["b_label"] = payload["label"]
        values["b_confidence"] = payload.get("confidence")
        values["b_accepted"] = payload.get("accepted", True)
        values["b_reason"] = payload.get("reason", "")
    elif kind is EventKind.DECIDED:
        values.update(b_bin=payload["bin"], b_reason=payload.get("reason", ""))
    elif kind is EventKind.EJECT_ORDERED:
        values["b_token"] = payload["token"]
    elif kind is EventKind.EJECT_REPORTED:
        values.update(b_token=payload["token"], b_outcome=_outcome(payload["outcome"]))
    elif kind is EventKind.EXITED:
        values["b_stamp"] = stamp
    elif kind is EventKind.DISPOSED:
        values.update(b_bin=payload["bin"], b_reason=payload["reason"], b_stamp=stamp)
    return values


def _outcome(value: int | str) -> int:
    """Number of an `EjectOutcome` that is given by number or by name."""
    return EjectOutcome[value.upper()].value if isinstance(value, str) else EjectOutcome(value).value


def _check_call(kind: EventKind, battery_id: str | None, payload: Mapping[str, Any]) -> None:
    missing = sorted(_REQUIRED.get(kind, frozenset()) - payload.keys())
    if missing:
        raise ValueError(f"event {kind} needs {', '.join(missing)}")
    if battery_id is None and kind in _OF_A_BATTERY:
        raise ValueError(f"event {kind} needs a battery_id")


def _plain(value: Any) -> Any:
    """The value as JSON can hold it. NaN and infinities become ``None``."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return _plain(value.tolist())
    return str(value)
