"""What a line's controller watches besides: rivals, strangers, the contract, the clock, its own hearing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from battery_sorting.core.clock import Clock
from battery_sorting.line.controller import ProblemSeen
from battery_sorting.line.hearing import ControllerHearing
from battery_sorting.packml.unit import LineUnit
from battery_sorting.ros.graph_watch import watch_contract, watch_graph
from battery_sorting.ros.hearing import Marks, watch_hearing
from battery_sorting.ros.process import ParentWatch
from battery_sorting.ros.rival_watch import RivalWatch
from battery_sorting.ros.settings import RunSettings
from battery_sorting.ros.sim_clock import FAULT as CLOCK_FAULT
from battery_sorting.ros.sim_clock import uses_sim_time, watch_sim_clock


class LineWatch:
    """Strangers and who breaks the contract hold the line; who hears nobody though others run ends itself.

    Args:
        node: The line's controller.
        settings: Its settings.
        unit: The line's PackML unit.
        clock: By which nodes are waited for.
        tell: Takes what is wrong, or that it is mended.
    """

    def __init__(
        self,
        node: Node,
        settings: RunSettings[Any, Any],
        unit: LineUnit,
        clock: Clock,
        tell: Callable[[ProblemSeen], Any],
    ) -> None:
        self._logger = node.get_logger()
        self._tell = tell
        self._rivals = RivalWatch(node, tell)
        self._hearing = ControllerHearing(unit.nodes, unit.observers)
        if settings.exit_with_parent:
            ParentWatch(node)
        if uses_sim_time(node):
            tell(ProblemSeen(CLOCK_FAULT, "waits for /clock"))  # nothing starts before it
        watch_sim_clock(node, self._follow_clock)
        watch_graph(node, settings.kind.contract, unit, clock, tell)
        watch_contract(node, settings.kind.contract, unit, clock, tell)
        if settings.run_id:  # else nobody starts it anew
            marks = Marks(settings.run_dir)
            watch_hearing(
                node,
                marks,
                lambda now: self._hearing.why_to_end(now, {name: marks.read(name) for name in unit.nodes}),
            )

    @property
    def own(self) -> str:
        """Identifies the controller's process for ever."""
        return self._rivals.own

    @property
    def hears(self) -> list[str]:
        """The nodes that were heard lately."""
        return self._hearing.hears(time.monotonic())

    def heartbeat(self, name: str) -> None:
        """A node was heard."""
        self._hearing.heartbeat(name, time.monotonic())

    def _follow_clock(self, problem: str) -> None:
        """Without the clock of its replay a line holds, as it does without a node; it goes on by itself."""
        self._tell(ProblemSeen(CLOCK_FAULT, problem))
        if problem:
            self._logger.error(problem)
        else:
            self._logger.info("/clock runs")
