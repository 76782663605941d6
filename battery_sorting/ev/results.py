"""What the result of an inspection is called in the action InspectCell. The codes are those of its file."""

from __future__ import annotations

from battery_sorting.ev.faults import InspectionError, StationFault
from battery_sorting.ev.inspection import CellResult

_ENDS = {"empty": InspectionError.EMPTY, "unaccounted": InspectionError.UNACCOUNTED}
"""Reasons of an inspection that ended without a fault and without a cell released."""


def error_code(result: CellResult) -> InspectionError:
    """Code of the first thing that went wrong, ``NONE`` if nothing did."""
    if result.faults:
        fault = StationFault.of(result.faults[0])
        return InspectionError.OTHER if fault is None else fault.error
    return InspectionError.NONE if result.released else _ENDS.get(result.verdict.reason, InspectionError.OTHER)


def error_text(result: CellResult) -> str:
    """What went wrong, in words; empty if nothing did."""
    if not result.faults and result.released:
        return ""
    return result.verdict.text or ", ".join(result.faults)
