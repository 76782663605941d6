"""The robot of the EV line: carries one cell at a time."""

from __future__ import annotations

from typing import Any

from battery_sorting.action import MoveCell
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.drivers.registry import find_driver
from battery_sorting.drivers.robot.base import Robot
from battery_sorting.ev.places import BUFFER, PICK, channel_place, slot_place
from battery_sorting.ev.stations.carrying import POLL_S, Carrier, MoveError, MoveRequest
from battery_sorting.ev.stations.host import Workers
from battery_sorting.ros.long_action import LongActionServer, Refusal
from battery_sorting.ros.node import EvNode, run
from battery_sorting.ros.station_messages import move_result

CLOSE_S = 2.0


class RobotNode(EvNode):
    """Serves the action MoveCell. A thread watches the robot; it is the only one that talks to it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("robot", **kwargs)
        measuring = self.settings.site.measuring
        if measuring is None:
            raise ConfigurationError(f"site {self.settings.site.name}", ["measuring: this section is missing"])
        self._measuring = measuring
        self._robot: Robot = find_driver("robot", measuring.robot.driver).from_settings(measuring.robot.settings)  # type: ignore[assignment]
        self._workers = Workers(self)
        self._carrier = Carrier(self, self._robot, self._workers.ending.wait)
        self._goal: Any = None
        self._last_goal: Any = None
        ended = (MoveError.STOPPED, MoveError.WITHDRAWN)
        self._server = LongActionServer(self, MoveCell, "move_cell", self._why_not, self._begin, ended)

    def open(self) -> None:
        """Connects to the robot; it must have been taught every place of the site."""
        self._robot.connect()
        missing = sorted(self._places() - self._robot.places())
        if missing:
            problem = f"the robot was not taught {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}"
            raise ConfigurationError(f"site {self.settings.site.name}", [f"measuring: {problem}"])
        self._workers.ending.clear()
        self._workers.start("robot", self._watch)

    def close(self) -> None:
        """Disconnects. A move that runs is finished by the robot itself."""
        self._workers.end(CLOSE_S)
        self._robot.disconnect()

    def rest(self) -> None:
        """Lets the robot's thread stop the arm where it is; it goes home when the line moves again."""
        self._carrier.rest()

    def _places(self) -> set[str]:
        measuring = self._measuring
        return {
            PICK,
            *(channel_place(number) for number in range(1, measuring.channels + 1)),
            *(slot_place(BUFFER, number) for number in range(1, measuring.buffer + 1)),
            *(slot_place(tray.name, number) for tray in measuring.trays for number in range(1, tray.slots + 1)),
        }

    # ---- the action ----

    def _why_not(self, goal: MoveCell.Goal) -> Refusal | None:
        text = self._why_not_now()  # whether it knows the places, the robot says
        return Refusal(MoveError.REFUSED, text, {"place": goal.source}) if text else None

    def _why_not_now(self) -> str:
        """What keeps the robot from taking any goal; empty if nothing does."""
        if not self.active:
            return f"the node is {self.lifecycle.name.lower()}: activate it"
        text = self._carrier.why_not_now()
        if text:
            return text
        if self._goal is not None:
            return "the robot carries another cell"
        return "" if self._carrier.state is not None else "the robot has not answered yet"

    def _begin(self, handle: Any) -> None:
        self._carrier.ordered()
        self._goal = handle  # the robot's thread takes it from here

    def _forget_goal(self) -> None:
        self._goal = None

    # ---- the robot's thread ----

    def _watch(self) -> None:
        while not self._workers.ending.wait(POLL_S):
            state, goal = self._carrier.read(), self._goal
            if state is not None and goal is not None and goal is not self._last_goal:
                self._last_goal = goal
                end = self._carrier.carry(self._request(goal))
                self._server.finish(goal, move_result(end), self._forget_goal)

    def _request(self, goal: Any) -> MoveRequest:
        return MoveRequest(
            goal.request.source,
            goal.request.target,
            lambda: self._server.cancel_requested(goal),
            lambda state: self._server.feedback(goal, MoveCell.Feedback(holding=state.holding)),
        )


def main() -> None:
    """Entry point."""
    run(RobotNode)
