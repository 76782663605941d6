"""What the result of an inspection is called in the action InspectBattery. The codes are those of its file."""

from __future__ import annotations

from enum import IntEnum

from battery_sorting.ev.inspection import CellResult


class InspectionError(IntEnum):
    """Error codes of InspectBattery.action."""

    NONE = 0
    EMPTY = 100
    NOT_READY = 101
    CANCELLED = 102
    LOADER = 110
    IMAGE = 120
    FLIPPER = 130
    IDENTITY = 140
    PLC = 150
    UNACCOUNTED = 160
    OTHER = 199


_BY_PREFIX = {
    "empty": InspectionError.EMPTY,
    "cancelled": InspectionError.CANCELLED,
    "load": InspectionError.LOADER,
    "capture": InspectionError.IMAGE,
    "no_frame": InspectionError.IMAGE,
    "frame_twice": InspectionError.IMAGE,
    "bad_image": InspectionError.IMAGE,
    "no_verdict": InspectionError.IMAGE,
    "flip": InspectionError.FLIPPER,
    "half_flip": InspectionError.FLIPPER,
    "answered_twice": InspectionError.FLIPPER,
    "not_upright": InspectionError.FLIPPER,
    "wrong_position": InspectionError.FLIPPER,
    "wrong_face": InspectionError.IDENTITY,
    "identity": InspectionError.IDENTITY,
    "code_unread": InspectionError.IDENTITY,
    "plc": InspectionError.PLC,
    "emergency_stop": InspectionError.PLC,
    "watchdog": InspectionError.PLC,
    "cell_gone": InspectionError.UNACCOUNTED,
    "unaccounted": InspectionError.UNACCOUNTED,
}


def error_code(result: CellResult) -> InspectionError:
    """Code of the first thing that went wrong, ``NONE`` if nothing did."""
    codes = [*result.faults, *((result.verdict.reason,) if not result.released else ())]
    for code in codes[:1]:
        return next(
            (error for prefix, error in _BY_PREFIX.items() if code.startswith(prefix)), InspectionError.OTHER
        )
    return InspectionError.NONE


def error_text(result: CellResult) -> str:
    """What went wrong, in words; empty if nothing did."""
    if not result.faults and result.released:
        return ""
    return result.verdict.text or ", ".join(result.faults)
