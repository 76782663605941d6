"""The robot of the EV line: carries one cell at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from battery_sorting.action import MoveCell
from battery_sorting.core.errors import ConfigurationError, DeviceError
from battery_sorting.drivers.registry import find_driver
from battery_sorting.drivers.robot.base import MoveJob, MoveResult, Robot, RobotState
from battery_sorting.ev.places import BUFFER, PICK, channel_place, slot_place
from battery_sorting.ev.unit import MOVING
from battery_sorting.ros.long_action import LongActionServer, Refusal
from battery_sorting.ros.node import EvNode
from battery_sorting.ros.process import run

POLL_S = 0.05
RECONNECT_S = 0.5
MOVE_S = 30.0
"""A move that takes longer is stopped; the robot is then brought home."""
LET_GO_S = 2.0
"""So long after a reset a robot that is ready may still hold what it should have put back."""

_Result = MoveCell.Result
_CODES = {
    MoveResult.EMPTY: _Result.EMPTY,
    MoveResult.OCCUPIED: _Result.OCCUPIED,
    MoveResult.DROPPED: _Result.DROPPED,
    MoveResult.STOPPED: _Result.STOPPED,
    MoveResult.REFUSED: _Result.NOT_READY,
}


class RobotNode(EvNode):
    """Serves the action MoveCell. A thread watches the robot; it is the only one that talks to it.

    Whatever sets the robot in motion (an order, also one that is sent again, and a reset, which sends it home) is
    sent only while the line moves: a person who has held it, and then frees the robot, may stand beside it.
    """

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
        self._given = (0, 0)  # the robot's boot id, and the last token that it was sent
        self._dropped = 0
        self._resting = False  # the node was deactivated since the goal was taken
        ended = (_Result.STOPPED, _Result.WITHDRAWN)
        self._server = LongActionServer(self, MoveCell, "move_cell", self._why_not, self._begin, ended)

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

    def rest(self) -> None:
        """Lets the robot's thread stop the arm where it is; it goes home when the line moves again."""
        self._resting = True

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
        return Refusal(_Result.REFUSED, text, {"place": goal.source}) if text else None

    def _why_not_now(self) -> str:
        """What keeps the robot from taking any goal; empty if nothing does."""
        if not self.active:
            return f"the node is {self.lifecycle.name.lower()}: activate it"
        if not self.emergency.may_move:
            return "the robot's emergency stop is pressed, or was: release it, then clear, reset and start the line"
        if not self.ok:
            return self.detail
        if self.line_is_silent:
            return "the line controller is not heard: start the line"
        if self.line_state not in MOVING:
            return f"the line is {self.line_state}: nothing is moved before it goes on"
        if self._goal is not None:
            return "the robot carries another cell"
        return "" if self._state is not None else "the robot has not answered yet"

    @property
    def _line_moves(self) -> bool:
        """Whether the robot may be set in motion now."""
        return self.active and not self.line_is_silent and self.line_state in MOVING

    @property
    def _may_begin(self) -> bool:
        """Whether what was ordered may be begun: an order of before a deactivation is of the past after it."""
        return self._line_moves and not self._resting

    def _begin(self, handle: Any) -> None:
        self._resting = False
        self._goal = handle  # the robot's thread takes it from here

    def _forget_goal(self) -> None:
        self._goal = None

    # ---- the robot's thread ----

    def _watch(self) -> None:
        while not self._stop.wait(POLL_S):
            state, goal = self._read(), self._goal
            if state is not None and goal is not None and goal is not self._last_goal:
                self._last_goal = goal
                self._server.finish(goal, self._move(goal), self._forget_goal)

    def _read(self) -> RobotState | None:
        """The robot's state; None while it can't be reached."""
        try:
            if not self._robot.connected:
                self._robot.connect()
            state = self._robot.read_state()
        except DeviceError as error:
            self._tell_oddities()
            self._on_loss(error)
            return None
        self._tell_oddities()
        before, self._state = self._state, state
        if state.tells_a_new_stop(before):
            self.see_emergency_stop(True)  # it may have been released again between two looks, or two nodes
        self.see_emergency_stop(state.emergency_stop)
        if self.emergency.standing:
            self.degrade("the robot's emergency stop is pressed, or was: release it, then clear the line")
        else:
            self.recover()
        return state

    def _tell_oddities(self) -> None:
        """Answers that nobody has asked for change nothing, but somebody should look at the robot's program."""
        for text in self._robot.take_oddities():
            self._dropped += 1
            self.figures = {"answers_dropped": self._dropped}
            self.get_logger().warning(text)

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

    def _move(self, handle: Any) -> MoveCell.Result:
        """One move from order to end. Where the cell is follows from what the robot says, never from hope."""
        goal = handle.request
        state = self._bring_home()
        if state is None:
            text = "the robot does not get ready"
            if not self.emergency.may_move:
                text = "the robot's emergency stop was pressed"
            elif not self._may_begin:
                return _withdrawn(goal.source)
            elif self._state is not None and _only_holds(self._state):
                text = (
                    "the robot is ready, but its gripper holds something that it does not put back: lay it on "
                    f"{goal.source} if nothing lies there, else take it away"
                )
            return _Result(error_code=_Result.NOT_READY, error_msg=text, place=goal.source)
        if not self._may_begin:
            return _withdrawn(goal.source)
        job = MoveJob(self._next_token(state), goal.source, goal.target)
        refusal = self._send(job)
        if refusal:
            code = _Result.UNKNOWN_PLACE if "no such place" in refusal else _Result.NOT_READY
            return _Result(error_code=code, error_msg=refusal, place=goal.source)
        return self._follow(handle, job, state.boot_id)

    def _next_token(self, state: RobotState) -> int:
        """Above all that the robot knows, and above one that may be on its way to it: that is then too old."""
        boot_id, given = self._given
        token = max(state.done_token, state.active_token, given if boot_id == state.boot_id else 0) + 1
        self._given = (state.boot_id, token)
        return token

    def _send(self, job: MoveJob) -> str:
        """Gives an order, or gives it again: the robot does each once. Why it was refused; empty if it was not."""
        try:
            self._robot.send(job)
        except DeviceError as error:
            if self._robot.connected:  # it answered
                return str(error)
            self._on_loss(error)  # whether the order has arrived, the robot's state says
        return ""

    def _follow(self, handle: Any, job: MoveJob, boot_id: int) -> MoveCell.Result:
        until = time.monotonic() + MOVE_S
        stopped = False
        while not self._stop.wait(POLL_S):
            state = self._read()
            if state is None:
                continue
            self._server.feedback(handle, MoveCell.Feedback(holding=state.holding))
            if state.boot_id != boot_id:
                return _unknown("the robot's program has started anew")
            if state.done_token >= job.token:
                stopped_by_rest = self._resting and state.result is MoveResult.STOPPED
                return _withdrawn(job.source) if stopped_by_rest else _result(job, state)
            if not self.emergency.may_move:
                self._tell(self._robot.stop)  # a button that is released must not let it go on
                return _unknown("the robot's emergency stop was pressed during the move")
            wanted_stop = self._resting or self._server.cancel_requested(handle) or time.monotonic() > until
            if not state.active_token and not state.fault:  # the order has not arrived
                if wanted_stop:
                    return _unknown("the robot does not take the order")
                if not self._line_moves:
                    return _unknown("the line halted before the robot took the order")  # which may still arrive
                refusal = self._send(job)
                if refusal:
                    return _unknown(refusal)
            elif state.fault or (wanted_stop and stopped):
                if self._line_moves:  # else it stands, and the move ends when the line goes on
                    self._tell(self._robot.reset)
            elif wanted_stop:
                stopped = self._tell(self._robot.stop)
        return _unknown("the node ends")

    def _bring_home(self) -> RobotState | None:
        """The robot's state when it is ready and its gripper empty; None if it does not come to that.

        A robot that holds something though no job runs and no fault stands (its program was started anew) is reset
        as one with a fault is: it then puts back what it holds.
        """
        until, reset_at = time.monotonic() + MOVE_S, float("inf")
        while time.monotonic() < until and not self._stop.is_set():
            state = self._read()
            if not self.emergency.may_move:
                return None
            if not self._may_begin:
                if state is not None and self._resting and not (state.ready or state.fault):
                    self._tell(self._robot.stop)  # it is on its way home
                return None
            if state is None:
                continue
            if state.ready and not state.holding:
                return state
            if _only_holds(state) and time.monotonic() > reset_at + LET_GO_S:
                return None
            asked = reset_at < float("inf")
            wants_reset = state.fault or (_only_holds(state) and not asked)
            if wants_reset and not state.emergency_stop and self._tell(self._robot.reset) and not asked:
                reset_at = time.monotonic()
            self._stop.wait(POLL_S)
        return None


def _only_holds(state: RobotState) -> bool:
    """Whether nothing keeps the robot from a job but what is in its gripper."""
    return state.ready and state.holding


def _unknown(text: str) -> MoveCell.Result:
    """Nobody has seen the end of the move: the cell is at either place, or still in the gripper."""
    return _Result(error_code=_Result.UNKNOWN, error_msg=text, place="")


def _withdrawn(source: str) -> MoveCell.Result:
    """The robot was not sent, or has put the cell back; the line orders the move again when it goes on."""
    text = "the line halted before the move was done"
    return _Result(error_code=_Result.WITHDRAWN, error_msg=text, place=source)


def _result(job: MoveJob, state: RobotState) -> MoveCell.Result:
    if state.result is MoveResult.DONE:
        return _Result(success=True, place=job.target)
    place = "" if state.result in {MoveResult.DROPPED, MoveResult.EMPTY} else job.source
    code = _CODES.get(state.result, _Result.OTHER)
    return _Result(error_code=code, error_msg=f"the robot answered {state.result}", place=place)


def main() -> None:
    """Entry point."""
    run(RobotNode)
