"""Names of the places where a cell of the EV line may lie: pick place, tester channels, buffer, trays."""

from __future__ import annotations

PICK = "pick"
BUFFER = "buffer"
LEFTOVER_TRAY = "leftover"
RECYCLE_TRAY = "recycle"
QUARANTINE_TRAY = "quarantine"
FIXED_TRAYS = (LEFTOVER_TRAY, RECYCLE_TRAY, QUARANTINE_TRAY)
_CHANNEL = "channel"


def channel_place(channel: int) -> str:
    """Name of the place in a tester's channel, from 1."""
    return f"{_CHANNEL}-{channel}"


def slot_place(name: str, slot: int) -> str:
    """Name of a slot of the buffer or of a tray, from 1."""
    return f"{name}-{slot}"


def in_channel(place: str) -> bool:
    """Whether it is in a channel of the tester."""
    return holder(place) == _CHANNEL


def in_buffer(place: str) -> bool:
    """Whether it is a slot of the buffer."""
    return holder(place) == BUFFER


def holder(place: str) -> str:
    """What the place is a part of: the name of a tray, the buffer or the tester's channels; empty for another."""
    return place.rpartition("-")[0]


def place_number(place: str) -> int:
    """Number of a channel or slot, from 1."""
    return int(place.rpartition("-")[2])
