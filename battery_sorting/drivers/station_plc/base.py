"""What the EV line needs from the PLC of its inspection station."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from enum import IntEnum

from battery_sorting.drivers.base import Driver


class StationAction(IntEnum):
    """What the station PLC can be told to do."""

    NONE = 0
    LOAD = 1
    CAPTURE_LUG = 2
    CAPTURE_CASE = 3
    FLIP = 4
    RELEASE = 5


class ActionResult(IntEnum):
    """What became of an action."""

    NONE = 0
    DONE = 1
    REFUSED = 2
    JAM = 3
    EMPTY = 4
    EXPIRED = 5
    CANCELLED = 6


class FlipperPosition(IntEnum):
    """What the two end switches of the flipper say. ``BETWEEN`` is neither of the two."""

    BETWEEN = 0
    UPRIGHT = 1
    INVERTED = 2


@dataclass(frozen=True, slots=True)
class StationCommand:
    """One action for the PLC.

    Attributes:
        token: 1 to 2^32 - 1, above every token before it; the PLC does each once.
        argument: Number of the outlet for ``RELEASE``, else 0.
        expiry_ms: Milliseconds after which the PLC must not begin it any more.
    """

    token: int
    action: StationAction
    argument: int = 0
    expiry_ms: int = 1000


@dataclass(frozen=True, slots=True)
class StationStatus:
    """The PLC's status, read with ``host_time`` (s, host's monotonic clock) as the middle of the request.

    Attributes:
        loaded_total: Cells that the loader has brought since the PLC's boot; with ``boot_id`` it identifies a cell.
        active_token: Token of the action that runs, 0 for none.
        done_token: Token of the last action that ended, 0 for none since boot.
        done_count: How often any action was reported as ended, so that a second answer to one token shows.
    """

    host_time: float
    round_trip_s: float
    boot_id: int
    time_ms: int
    emergency_stop: bool
    watchdog_tripped: bool
    jam: bool
    part_present: bool
    flipper: FlipperPosition
    loaded_total: int
    active_token: int
    done_token: int
    done_result: ActionResult
    done_count: int


class StationPlc(Driver):
    """The PLC of an inspection station: loader, flipper, ring lights with their cameras, outlets.

    It does one action at a time and each token once: a token that it knows already moves nothing, and only newer
    ones are taken. What it can't do now (another action runs, emergency stop, watchdog, a cell where none may be)
    it refuses. What became of an action stands in the status.
    """

    @abstractmethod
    def read_status(self) -> StationStatus:
        """Reads the status."""

    @abstractmethod
    def send(self, command: StationCommand) -> None:
        """Hands over an action, which the PLC must not begin when ``expiry_ms`` from now have passed.

        Raises:
            DeviceSettingsError: There can be no such command; nothing was sent.
        """

    @abstractmethod
    def refresh_watchdog(self) -> None:
        """Tells the PLC that the host is alive."""

    @abstractmethod
    def reset_faults(self) -> None:
        """Acknowledges watchdog, emergency stop and jam. What runs is cancelled, and the flipper goes home."""
