"""Timers that go on whatever becomes of the ROS clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock
from rclpy.clock_type import ClockType


class SteadyTimers:
    """Base of a node, before `rclpy.node.Node`: its timers run on the host's steady clock, unless one is given.

    rclpy's default is the ROS clock. Under ``use_sim_time`` that stands still until somebody publishes ``/clock``,
    and again when the replay ends: no heartbeat, no tick, no look at a silent line would come any more. Timers only
    say when to look; what is looked at is judged by the node's waiting clock.
    """

    def create_timer(
        self,
        timer_period_sec: float,
        callback: Callable[..., Any],
        *args: Any,
        clock: Clock | None = None,
        **kwargs: Any,
    ) -> Any:
        """As of `rclpy.node.Node`."""
        clock = clock or Clock(clock_type=ClockType.STEADY_TIME)
        return super().create_timer(timer_period_sec, callback, *args, clock=clock, **kwargs)  # type: ignore[misc]
