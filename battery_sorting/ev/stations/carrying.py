"""Moves of the EV line's robot, each from its order to its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from battery_sorting.core.errors import DeviceError
from battery_sorting.drivers.robot.base import MoveJob, MoveResult, Robot, RobotState
from battery_sorting.ev.stations.host import StationHost
from battery_sorting.ev.unit import MOVING

POLL_S = 0.05
RECONNECT_S = 0.5
MOVE_S = 30.0
"""A move that takes longer is stopped; the robot is then brought home."""
LET_GO_S = 2.0
"""So long after a reset a robot that is ready may still hold what it should have put back."""


class MoveError(IntEnum):
    """Error codes of MoveCell.action."""

    NONE = 0
    NOT_READY = 200
    UNKNOWN_PLACE = 201
    EMPTY = 202
    OCCUPIED = 203
    DROPPED = 204
    STOPPED = 205
    UNKNOWN = 207
    WITHDRAWN = 208
    REFUSED = 209
    OTHER = 299


_ERRORS = {
    MoveResult.EMPTY: MoveError.EMPTY,
    MoveResult.OCCUPIED: MoveError.OCCUPIED,
    MoveResult.DROPPED: MoveError.DROPPED,
    MoveResult.STOPPED: MoveError.STOPPED,
    MoveResult.REFUSED: MoveError.NOT_READY,
}


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """A move that is wanted.

    Attributes:
        source: Place where the cell lies.
        target: Place where it is to lie.
        is_cancelled: Whether it is no longer wanted.
        on_way: Is told of the robot's state on the way.
    """

    source: str
    target: str
    is_cancelled: Callable[[], bool]
    on_way: Callable[[RobotState], None]


@dataclass(frozen=True, slots=True)
class MoveEnd:
    """How a move has ended.

    Attributes:
        error: What went wrong.
        text: The same in words; empty if nothing did.
        place: Where the cell is now, empty: nobody knows.
    """

    error: MoveError
    text: str
    place: str


class Carrier:
    """Carries one cell at a time; one thread talks to the robot by it.

    Whatever sets the robot in motion (an order, also one that is sent again, and a reset, which sends it home) is
    sent only while the line moves: a person who has held it, and then frees the robot, may stand beside it.

    Args:
        host: The node.
        robot: The robot.
        wait: Waits so many seconds; returns whether the node ends, at once if it does.
        now: The time (s).

    Attributes:
        state: What the robot said last; None: nothing yet.
    """

    def __init__(
        self,
        host: StationHost,
        robot: Robot,
        wait: Callable[[float], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host, self._robot = host, robot
        self._wait, self._now = wait, now
        self.state: RobotState | None = None
        self._given = (0, 0)  # the robot's boot id, and the last token that it was sent
        self._dropped = 0
        self._resting = False  # the node was deactivated since the last move was ordered

    # ---- for other threads ----

    def ordered(self) -> None:
        """A move has been ordered; `carry` follows."""
        self._resting = False

    def rest(self) -> None:
        """Stops the arm where it is; it goes home when the line moves again."""
        self._resting = True

    def why_not_now(self) -> str:
        """What keeps the robot from taking any order, but for one that it has; empty if nothing does."""
        if not self._host.emergency.may_move:
            return "the robot's emergency stop is pressed, or was: release it, then clear, reset and start the line"
        if not self._host.ok:
            return self._host.detail
        if self._host.line_is_silent:
            return "the line controller is not heard: start the line"
        if self._host.line_state not in MOVING:
            return f"the line is {self._host.line_state}: nothing is moved before it goes on"
        return ""

    @property
    def _line_moves(self) -> bool:
        """Whether the robot may be set in motion now."""
        return self._host.active and not self._host.line_is_silent and self._host.line_state in MOVING

    @property
    def _may_begin(self) -> bool:
        """Whether what was ordered may be begun: an order of before a deactivation is of the past after it."""
        return self._line_moves and not self._resting

    # ---- the robot's thread ----

    def read(self) -> RobotState | None:
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
        before, self.state = self.state, state
        if state.tells_a_new_stop(before):
            self._host.see_emergency_stop(True)  # it may have been released again between two looks, or two nodes
        self._host.see_emergency_stop(state.emergency_stop)
        if self._host.emergency.standing:
            self._host.degrade("the robot's emergency stop is pressed, or was: release it, then clear the line")
        else:
            self._host.recover()
        return state

    def _tell_oddities(self) -> None:
        """Answers that nobody has asked for change nothing, but somebody should look at the robot's program."""
        for text in self._robot.take_oddities():
            self._dropped += 1
            self._host.figures = {"answers_dropped": self._dropped}
            self._host.get_logger().warning(text)

    def _tell(self, order: Callable[[], None]) -> bool:
        """Stop or reset; returns whether that has reached the robot. Its state asks for it again if not."""
        try:
            order()
        except DeviceError as error:
            self._on_loss(error)
            return False
        return True

    def _on_loss(self, error: DeviceError) -> None:
        if not self._wait(0.0):
            self._host.degrade(error)
            self._wait(RECONNECT_S)

    def carry(self, request: MoveRequest) -> MoveEnd:
        """One move from order to end. Where the cell is follows from what the robot says, never from hope."""
        state = self._bring_home()
        if state is None:
            return self._not_ready(request.source)
        if not self._may_begin:
            return _withdrawn(request.source)
        job = MoveJob(self._next_token(state), request.source, request.target)
        refusal = self._send(job)
        if refusal:
            error = MoveError.UNKNOWN_PLACE if "no such place" in refusal else MoveError.NOT_READY
            return MoveEnd(error, refusal, request.source)
        return self._follow(request, job, state.boot_id)

    def _not_ready(self, source: str) -> MoveEnd:
        text = "the robot does not get ready"
        if not self._host.emergency.may_move:
            text = "the robot's emergency stop was pressed"
        elif not self._may_begin:
            return _withdrawn(source)
        elif self.state is not None and _only_holds(self.state):
            text = (
                "the robot is ready, but its gripper holds something that it does not put back: lay it on "
                f"{source} if nothing lies there, else take it away"
            )
        return MoveEnd(MoveError.NOT_READY, text, source)

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

    def _follow(self, request: MoveRequest, job: MoveJob, boot_id: int) -> MoveEnd:
        until = self._now() + MOVE_S
        stopped = False
        while not self._wait(POLL_S):
            state = self.read()
            if state is None:
                continue
            request.on_way(state)
            end = self._end_of(job, state, boot_id)
            if end is not None:
                return end
            wanted_stop = self._resting or request.is_cancelled() or self._now() > until
            if not state.active_token and not state.fault:  # the order has not arrived
                why_not = self._send_again(job, wanted_stop)
                if why_not:
                    return _unknown(why_not)
            elif state.fault or (wanted_stop and stopped):
                if self._line_moves:  # else it stands, and the move ends when the line goes on
                    self._tell(self._robot.reset)
            elif wanted_stop:
                stopped = self._tell(self._robot.stop)
        return _unknown("the node ends")

    def _end_of(self, job: MoveJob, state: RobotState, boot_id: int) -> MoveEnd | None:
        """How the job has ended, None if it has not."""
        if state.boot_id != boot_id:
            return _unknown("the robot's program has started anew")
        if state.done_token >= job.token:
            stopped_by_rest = self._resting and state.result is MoveResult.STOPPED
            return _withdrawn(job.source) if stopped_by_rest else _end(job, state)
        if not self._host.emergency.may_move:
            self._tell(self._robot.stop)  # a button that is released must not let it go on
            return _unknown("the robot's emergency stop was pressed during the move")
        return None

    def _send_again(self, job: MoveJob, wanted_stop: bool) -> str:
        """Sends an order that has not arrived; returns why that can't be, empty if it can."""
        if wanted_stop:
            return "the robot does not take the order"
        if not self._line_moves:
            return "the line halted before the robot took the order"  # which may still arrive
        return self._send(job)

    def _bring_home(self) -> RobotState | None:
        """The robot's state when it is ready and its gripper empty; None if it does not come to that.

        A robot that holds something though no job runs and no fault stands (its program was started anew) is reset
        as one with a fault is: it then puts back what it holds.
        """
        until, reset_at = self._now() + MOVE_S, float("inf")
        while self._now() < until and not self._wait(0.0):
            state = self.read()
            if not self._host.emergency.may_move:
                return None
            if not self._may_begin:
                if state is not None and self._resting and not (state.ready or state.fault):
                    self._tell(self._robot.stop)  # it is on its way home
                return None
            if state is None:
                continue
            if state.ready and not state.holding:
                return state
            if _only_holds(state) and self._now() > reset_at + LET_GO_S:
                return None
            asked = reset_at < float("inf")
            wants_reset = state.fault or (_only_holds(state) and not asked)
            if wants_reset and not state.emergency_stop and self._tell(self._robot.reset) and not asked:
                reset_at = self._now()
            self._wait(POLL_S)
        return None


def _only_holds(state: RobotState) -> bool:
    """Whether nothing keeps the robot from a job but what is in its gripper."""
    return state.ready and state.holding


def _unknown(text: str) -> MoveEnd:
    """Nobody has seen the end of the move: the cell is at either place, or still in the gripper."""
    return MoveEnd(MoveError.UNKNOWN, text, "")


def _withdrawn(source: str) -> MoveEnd:
    """The robot was not sent, or has put the cell back; the line orders the move again when it goes on."""
    return MoveEnd(MoveError.WITHDRAWN, "the line halted before the move was done", source)


def _end(job: MoveJob, state: RobotState) -> MoveEnd:
    if state.result is MoveResult.DONE:
        return MoveEnd(MoveError.NONE, "", job.target)
    place = "" if state.result in {MoveResult.DROPPED, MoveResult.EMPTY} else job.source
    return MoveEnd(_ERRORS.get(state.result, MoveError.OTHER), f"the robot answered {state.result}", place)
