"""What the EV line needs from the robot that carries its cells."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from enum import Enum

from battery_sorting.drivers.base import Driver


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


@dataclass(frozen=True, slots=True)
class RobotState:
    """The robot at this moment.

    Attributes:
        boot_id: Changes when the robot's program starts anew.
        ready: It may be sent a job: at home, drives on, no fault.
        active_token: Job that runs, 0 for none.
        done_token: Last job that ended, 0 for none since the boot.
        holding: The gripper holds a cell.
        fault: What keeps it from being ready, empty if nothing does.
    """

    boot_id: int
    ready: bool
    emergency_stop: bool
    active_token: int
    done_token: int
    result: MoveResult
    holding: bool
    fault: str = ""


class Robot(Driver):
    """A robot that carries one cell at a time between taught places."""

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
