"""Waiting by ``/clock``, and saying so when it does not come."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.node import Node

from battery_sorting.core.clock import FASTEST, Clock, ReplayClock, ReplayWatch

LOOK_S = 0.5
FAULT = "clock"


def uses_sim_time(node: Node) -> bool:
    """Whether the node's ROS clock is ``/clock``."""
    return bool(node.get_parameter("use_sim_time").value)


def waiting_clock(node: Node, at_most: float = FASTEST) -> Clock:
    """The clock by which this node waits for data: monotonic, or that of the replay under ``use_sim_time``.

    A replay counts as ``at_most`` so many times as fast as the host's clock.
    """
    return ReplayClock(lambda: ros_time(node), at_most=at_most) if uses_sim_time(node) else time.monotonic


def ros_time(node: Node) -> float:
    """Time of the node's ROS clock (s)."""
    return float(node.get_clock().now().nanoseconds * 1e-9)


def watch_sim_clock(node: Node, tell: Callable[[str], None]) -> None:
    """Calls ``tell`` with what is wrong with ``/clock`` when that is known, and when it changes; empty: it runs.

    In a replay only.
    """
    if not uses_sim_time(node):
        return
    watch = ReplayWatch(time.monotonic())
    told: str | None = None

    def look() -> None:
        nonlocal told
        replay = ros_time(node)
        problem = watch.problem(replay, time.monotonic())
        is_known = replay != 0 or bool(problem)  # a clock that has not come may just be starting
        if is_known and problem != told:
            told = problem
            tell(problem)

    node.create_timer(LOOK_S, look)
