"""When a valve must open so that its air meets the battery."""

from __future__ import annotations

from dataclasses import dataclass

from battery_sorting.belt.site import Ejector
from battery_sorting.core.types import count_add, count_difference

EXPIRY_MM = 8.0
"""An ejection that comes later than this on the belt would miss its battery or hit the next one."""


@dataclass(frozen=True, slots=True)
class Shot:
    """Encoder counts at which a valve is switched, and after which it must not be switched any more."""

    fire_count: int
    expiry_count: int


def aim(ejector: Ejector, encoder_count: int, mm_per_count: float, speed_mps: float) -> Shot:
    """The shot that centres the air pulse on a battery.

    Args:
        ejector: The ejector.
        encoder_count: Encoder count at which the battery was at the photo-eye.
        mm_per_count: Belt travel per count, slip included (mm).
        speed_mps: Belt speed while the valve opens (m/s).
    """
    lead_mm = speed_mps * (ejector.delay_ms + ejector.pulse_ms / 2)  # m/s times ms is mm
    fire_count = count_add(encoder_count, round((ejector.offset_mm - lead_mm) / mm_per_count))
    return Shot(fire_count, count_add(fire_count, round(EXPIRY_MM / mm_per_count)))


def time_left_s(shot: Shot, encoder_count: int, mm_per_count: float, speed_mps: float) -> float:
    """Seconds until the shot if the belt goes on at ``speed_mps``; inf if it stands, negative if it is too late."""
    distance_mm = count_difference(shot.fire_count, encoder_count) * mm_per_count
    if speed_mps <= 0:
        return float("inf") if distance_mm > 0 else -1.0
    return distance_mm / (speed_mps * 1000)
