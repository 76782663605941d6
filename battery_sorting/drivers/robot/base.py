"""What the EV line needs from the robot that carries its cells."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from pydantic import Field

from battery_sorting.drivers.base import Driver

EMERGENCY_STOP = "emergency stop"
"""In a robot's fault: what stands there until a reset after the emergency stop was pressed."""


class MoveResult(str, Enum):
    """What became of a move."""

    NONE = "none"
    DONE = "done"
    EMPTY = "empty"
    OCCUPIED = "occupied"
    DROPPED = "dropped"
    STOPPED = "stopped"
    REFUSED = "refused"

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class MoveJob:
    """Take the cell from ``source`` to ``target``. The robot does each token once; a newer one is above all before.

    Both places are names that the robot was taught.
    """

    token: int
    source: str
    target: str


Count = Annotated[int, Field(ge=0, le=2**53)]
"""What any program can count to and write down, also one that has floating-point numbers only."""


@dataclass(frozen=True, slots=True)
class RobotState:
    """The robot at this moment.

    Attributes:
        boot_id: Changes when the robot's program starts anew.
        emergency_stop: It is pressed.
        ready: It may be sent a job: at home, drives on, no fault.
        active_token: Job that runs, 0 for none.
        done_token: Last job that ended, 0 for none since the boot.
        holding: The gripper holds a cell.
        fault: What keeps it from being ready, empty if nothing does. After an emergency stop it names that
            (``emergency stop``) until `Robot.reset`, however short the press was.
        emergency_stops: How often the emergency stop was pressed since the boot, so that none is missed.
    """

    boot_id: int
    ready: bool
    emergency_stop: bool
    active_token: Count
    done_token: Count
    result: MoveResult
    holding: bool
    fault: str = ""
    emergency_stops: Count = 0

    @property
    def latched_stop(self) -> bool:
        """Whether an emergency stop has ended the motion, and nobody has reset the robot since."""
        return EMERGENCY_STOP in self.fault.lower().replace("_", " ")

    def tells_a_new_stop(self, before: RobotState | None) -> bool:
        """Whether the emergency stop was pressed since ``before``, seen or not; None: nothing was seen before.

        What stands in ``fault`` counts even if nobody saw the press: whoever watched may have died meanwhile.
        """
        if before is None or before.boot_id != self.boot_id:
            return self.latched_stop or (before is not None and self.emergency_stops > 0)
        return self.emergency_stops != before.emergency_stops or (self.latched_stop and not before.latched_stop)


class Robot(Driver):
    """A robot that carries one cell at a time between taught places.

    An emergency stop ends the motion for good: when it is released nothing moves until `reset`.
    """

    def take_oddities(self) -> list[str]:
        """What the robot has said since the last call that nobody had asked for, for people."""
        return []

    @abstractmethod
    def places(self) -> frozenset[str]:
        """Names of the places that the robot was taught."""

    @abstractmethod
    def read_state(self) -> RobotState:
        """Reads the state."""

    @abstractmethod
    def send(self, job: MoveJob) -> None:
        """Hands over a job and returns at once. What became of it shows in the state.

        Raises:
            DeviceError: The robot refuses it; it has not moved.
        """

    @abstractmethod
    def stop(self) -> None:
        """Stops the arm where it is; the gripper keeps what it holds."""

    @abstractmethod
    def reset(self) -> None:
        """Acknowledges a fault and goes home. What the gripper holds is put back to where it was taken from."""
