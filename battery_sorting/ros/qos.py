"""Quality of service of every topic of the cell, as rclpy wants it. What each is for stands in `line.contract`."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from battery_sorting.line.contract import QUALITIES


def profile(name: str) -> QoSProfile:
    """The quality of that name in `battery_sorting.line.contract.QUALITIES`."""
    quality = QUALITIES[name]
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=quality.depth,
        reliability=ReliabilityPolicy.RELIABLE if quality.reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if quality.transient_local else DurabilityPolicy.VOLATILE,
    )


BATTERY_EVENT = profile("BATTERY_EVENT")
EJECT_RESULT = profile("EJECT_RESULT")
BATTERY_IMAGE = profile("BATTERY_IMAGE")
ORDER = profile("ORDER")
NOTICE = profile("NOTICE")
STATE = profile("STATE")
SHADOW = profile("SHADOW")
STREAM = profile("STREAM")
PREVIEW = profile("PREVIEW")
