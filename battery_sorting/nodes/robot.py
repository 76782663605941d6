"""The robot of the EV line: carries one cell at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from battery_sorting.action import MoveBattery
from battery_sorting.core.errors import ConfigurationError, DeviceError
from battery_sorting.core.ev.flow import PICK, channel_place, slot_place
from battery_sorting.drivers.registry import find_driver
from battery_sorting.drivers.robot.base import MoveJob, MoveResult, Robot, RobotState
from battery_sorting.ros.long_action import LongActionServer
from battery_sorting.ros.node import EvNode, run

POLL_S = 0.05
RECONNECT_S = 0.5
MOVE_S = 30.0
"""A move that takes longer is stopped; the robot is then brought home."""

_Result = MoveBattery.Result
_CODES = {
    MoveResult.EMPTY: _Result.EMPTY,
    MoveResult.OCCUPIED: _Result.OCCUPIED,
    MoveResult.DROPPED: _Result.DROPPED,
    MoveResult.STOPPED: _Result.STOPPED,
    MoveResult.REFUSED: _Result.NOT_READY,
}


class RobotNode(EvNode):
    """Serves the action MoveBattery. A thread watches the robot; it is the only one that talks to it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("robot", **kwargs)
        measuring = self.settings.site.measuring
        if measuring is None:
            raise ConfigurationError(f"site {self.settings.site.name}", ["measuring: this section is missing"])
        self._measuring = measuring
        self._robot: Robot = find_driver("robot", measuring.robot.driver).from_settings(measuring.robot.settings)  # type: ignore[assignment]
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._state: RobotState | None = None
        self._goal: Any = None
        self._last_goal: Any = None
        self._server = LongActionServer(self, MoveBattery, "move_battery", self._may_move, self._begin)

    def open(self) -> None:
        """Connects to the robot; it must have been taught every place of the site."""
        self._robot.connect()
        missing = sorted(self._places() - self._robot.places())
        if missing:
            problem = f"the robot was not taught {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}"
            raise ConfigurationError(f"site {self.settings.site.name}", [f"measuring: {problem}"])
        self._stop.clear()
        self._thread = self.start_thread("robot", self._watch)

    def close(self) -> None:
        """Disconnects. A move that runs is finished by the robot itself."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(2.0)
        self._robot.disconnect()

    def _places(self) -> set[str]:
        measuring = self._measuring
        return {
            PICK,
            *(channel_place(number) for number in range(1, measuring.channels + 1)),
            *(slot_place("buffer", number) for number in range(1, measuring.buffer + 1)),
            *(slot_place(tray.name, number) for tray in measuring.trays for number in range(1, tray.slots + 1)),
        }

    # ---- the action ----

    def _may_move(self, _: MoveBattery.Goal) -> bool:
        return self.active and self.ok and self._goal is None and self._state is not None

    def _begin(self, handle: Any) -> None:
        self._goal = handle  # the robot's thread takes it from here

    def _forget_goal(self) -> None:
        self._goal = None

    # ---- the robot's thread ----

    def _watch(self) -> None:
        while not self._stop.wait(POLL_S):
            state = self._read()
            if state is None:
                continue
            if state.emergency_stop:
                self.degrade("the robot's emergency stop is pressed")
            else:
                self.recover()
            goal = self._goal
            if goal is not None and goal is not self._last_goal:
                self._last_goal = goal
                self._server.finish(goal, self._move(goal), self._forget_goal)

    def _read(self) -> RobotState | None:
        """The robot's state; None while it can't be reached."""
        try:
            if not self._robot.connected:
                self._robot.connect()
            self._state = self._robot.read_state()
        except DeviceError as error:
            self._on_loss(error)
            return None
        return self._state

    def _tell(self, order: Callable[[], None]) -> bool:
        """Stop or reset; returns whether that has reached the robot. Its state asks for it again if not."""
        try:
            order()
        except DeviceError as error:
            self._on_loss(error)
            return False
        return True

    def _on_loss(self, error: DeviceError) -> None:
        if not self._stop.is_set():
            self.degrade(error)
            self._stop.wait(RECONNECT_S)

    def _move(self, handle: Any) -> MoveBattery.Result:
        """One move from order to end. Where the cell is follows from what the robot says, never from hope."""
        goal = handle.request
        state = self._bring_home()
        if state is None:
            text = "the robot does not get ready"
            return _Result(error_code=_Result.NOT_READY, error_msg=text, place=goal.source)
        job = MoveJob(max(state.done_token, state.active_token) + 1, goal.source, goal.target)
        try:
            self._robot.send(job)
        except DeviceError as error:
            if self._robot.connected:  # it answered, and refused
                unknown = _Result.UNKNOWN_PLACE if "no such place" in str(error) else _Result.NOT_READY
                return _Result(error_code=unknown, error_msg=str(error), place=goal.source)
        return self._follow(handle, job, state.boot_id)

    def _follow(self, handle: Any, job: MoveJob, boot_id: int) -> MoveBattery.Result:
        until = time.monotonic() + MOVE_S
        stopped = False
        while not self._stop.wait(POLL_S):
            state = self._read()
            if state is None:
                continue
            self._server.feedback(handle, MoveBattery.Feedback(holding=state.holding))
            if state.boot_id != boot_id:
                return _Result(error_code=_Result.OTHER, error_msg="the robot's program has started anew")
            if state.done_token >= job.token:
                return _result(job, state)
            if not state.active_token and not state.fault:
                return _Result(error_code=_Result.NOT_READY, error_msg="the order was lost", place=job.source)
            wanted_stop = handle.is_cancel_requested or time.monotonic() > until
            if state.fault or (wanted_stop and stopped):
                self._tell(self._robot.reset)
            elif wanted_stop:
                stopped = self._tell(self._robot.stop)
        return _Result(error_code=_Result.OTHER, error_msg="the node ends", place="")

    def _bring_home(self) -> RobotState | None:
        until = time.monotonic() + MOVE_S
        while time.monotonic() < until and not self._stop.is_set():
            state = self._read()
            if state is None:
                continue
            if state.ready:
                return state
            if state.fault and not state.emergency_stop:
                self._tell(self._robot.reset)
            self._stop.wait(POLL_S)
        return None


def _result(job: MoveJob, state: RobotState) -> MoveBattery.Result:
    if state.result is MoveResult.DONE:
        return _Result(success=True, place=job.target)
    place = "" if state.result in {MoveResult.DROPPED, MoveResult.EMPTY} else job.source
    code = _CODES.get(state.result, _Result.OTHER)
    return _Result(error_code=code, error_msg=f"the robot answered {state.result}", place=place)


def main() -> None:
    """Entry point."""
    run(RobotNode)
