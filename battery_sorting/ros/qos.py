"""Quality of service of every topic of the cell, in one place."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

BATTERIES_IN_FLIGHT = 64
"""No belt line holds more batteries than this between the photo-eye and its end."""


def _profile(reliability: ReliabilityPolicy, durability: DurabilityPolicy, depth: int) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability)


_RELIABLE, _BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
_VOLATILE, _TRANSIENT = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL

BATTERY_EVENT = _profile(_RELIABLE, _TRANSIENT, BATTERIES_IN_FLIGHT)
"""What happened to a battery. A node that comes back gets the events of all batteries that may be on the belt."""

BATTERY_IMAGE = _profile(_RELIABLE, _TRANSIENT, 16)
"""Frames that are a battery. Kept for a node that comes back, as many as pass in its absence."""

ORDER = _profile(_RELIABLE, _VOLATILE, BATTERIES_IN_FLIGHT)
"""Orders to hardware. Never delivered to a node that was not there when they were given."""

NOTICE = _profile(_RELIABLE, _TRANSIENT, 16)
"""What changed at a node, for the ledger. A node that comes back gets the last ones again."""

STATE = _profile(_RELIABLE, _TRANSIENT, 1)
"""The last state counts."""

SHADOW = _profile(_RELIABLE, _VOLATILE, BATTERIES_IN_FLIGHT)
"""Verdicts that nobody acts on."""

STREAM = _profile(_RELIABLE, _VOLATILE, 10)
"""Frequent states and heartbeats: an old one is worth nothing."""

PREVIEW = _profile(_BEST_EFFORT, _VOLATILE, 1)
"""Pictures for people."""
