"""What a belt line needs from its PLC. Encoder counts and milliseconds are unsigned, 32 bits, and wrap."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from enum import Enum, IntEnum

from battery_sorting.drivers.base import Driver

EVENTS_KEPT = 20
"""How many edges of each eye, and how many acknowledgements, a PLC keeps for whoever asks late."""


class Eye(Enum):
    """The eyes along the belt that latch the encoder."""

    GATE = "gate"
    CAMERA = "camera"
    EXIT = "exit"


class AckStatus(IntEnum):
    """What the PLC did with an eject command."""

    NONE = 0
    QUEUED = 1
    FIRED = 2
    EXPIRED = 3  # its count had passed on arrival, or its expiry passed before it fired
    DUPLICATE = 4  # the token is waiting or has been used before
    REJECTED = 5  # unknown valve, bad pulse, or the queue is full
    CANCELLED = 6  # revoked by stop, clear, watchdog or emergency stop
    VALVE_FAULT = 7  # fired, but the valve's feedback did not come


@dataclass(frozen=True, slots=True)
class Latch:
    """One edge of an eye: its number, the encoder count and the PLC's time in ms."""

    number: int
    encoder_count: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Ack:
    """One acknowledgement."""

    token: int
    status: AckStatus
    valve: int
    encoder_count: int


@dataclass(frozen=True, slots=True)
class ValveCommand:
    """One eject command: open ``valve`` at ``encoder_count`` for ``pulse_ms``, never after ``expiry_count``."""

    token: int
    valve: int
    encoder_count: int
    pulse_ms: int
    expiry_count: int


@dataclass(frozen=True, slots=True)
class PlcStatus:
    """The PLC's status, read in a request of ``round_trip_s`` with ``host_time`` as its middle.

    Attributes:
        host_time: By the host's monotonic clock (`time.monotonic`), as whoever sets the wall clock must not move
            what was measured.
        boot_id: Changes when the PLC starts anew.
        time_ms: Since the PLC's start.
        valve_faults: Bit n: valve n did not open when it was last fired.
        gate_total: Edges that this eye has seen since the PLC's start; ``eye_total`` is the camera's.
        ack_total: Acknowledgements given since the PLC's start.
        queue_length: Commands that wait for their count.
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
        """Reads the status."""

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
