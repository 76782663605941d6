"""What the cell needs from a belt PLC."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from enum import Enum

from battery_sorting.drivers.base import Driver
from battery_sorting.drivers.plc.register_map import Ack, Latch, ValveCommand


class Eye(Enum):
    """The eyes along the belt that latch the encoder."""

    GATE = "gate"
    CAMERA = "camera"
    EXIT = "exit"


@dataclass(frozen=True, slots=True)
class PlcStatus:
    """The status block, read in a request of ``round_trip_s`` with ``host_time`` as its middle.

    ``host_time`` is of the host's monotonic clock (`time.monotonic`), as whoever sets the wall clock must not move
    what was measured.
    """

    host_time: float
    round_trip_s: float
    boot_id: int
    running: bool
    emergency_stop: bool
    watchdog_tripped: bool
    encoder_count: int
    time_ms: int
    speed_mps: float
    speed_setpoint_mps: float
    valve_faults: int
    watchdog_trips: int
    gate_total: int
    eye_total: int
    exit_total: int
    ack_total: int
    queue_length: int


class BeltPlc(Driver):
    """The PLC of a belt line: encoder, eyes that latch it, valves that fire at an encoder count."""

    @abstractmethod
    def read_status(self) -> PlcStatus:
        """Reads the status block."""

    @abstractmethod
    def read_latches(self, eye: Eye, since: int, total: int) -> list[Latch]:
        """Edges ``since`` + 1 to ``total`` of ``eye``, oldest first, as far as the PLC still has them."""

    @abstractmethod
    def read_acks(self, since: int, total: int) -> list[Ack]:
        """Acknowledgements ``since`` + 1 to ``total``, oldest first, as far as the PLC still has them."""

    @abstractmethod
    def set_belt(self, run: bool, speed_mps: float) -> None:
        """Switches the belt; reads the setting back.

        Raises:
            DeviceSettingsError: The PLC holds another setting than was written.
        """

    @abstractmethod
    def refresh_watchdog(self) -> None:
        """Tells the PLC that the host is alive."""

    @abstractmethod
    def send(self, command: ValveCommand) -> None:
        """Hands over an eject command. What became of it comes as an acknowledgement."""

    @abstractmethod
    def reset_faults(self) -> None:
        """Acknowledges watchdog and emergency stop."""

    @abstractmethod
    def clear_queue(self) -> None:
        """Cancels every eject command that has not fired."""
