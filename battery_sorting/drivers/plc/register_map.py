"""The Modbus map that a belt PLC must offer. `docs/reference/plc.md` explains it to whoever programs the PLC.

All registers are 16 bits; 32-bit values stand with the high word first. Addresses are zero-based protocol
addresses. Input and holding registers, coils and discrete inputs are four separate blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

MAP_VERSION = 1
MAX_VALVES = 16
MAX_SPEED_MM_S = 20_000
"""No belt is faster."""

# ---- input registers: status block, read in one go ----
STATUS_ADDRESS = 0
STATUS_SIZE = 32
IR_MAP_VERSION = 0
IR_STATUS = 1  # bits of Status
IR_BOOT_ID = 2  # 32 bits: start of the PLC, seconds since 1970
IR_ENCODER_COUNT = 4  # 32 bits, wraps
IR_TIME_MS = 6  # 32 bits: milliseconds since the PLC's start, wraps
IR_SPEED_MM_S = 8  # measured from the encoder; signed, as a belt may creep back
IR_VALVE_FAULTS = 9  # bit n: valve n did not open when it was last fired
IR_WATCHDOG_TRIPS = 10
IR_GATE_TOTAL = 12  # 32 bits: edges seen so far by each eye
IR_EYE_TOTAL = 14
IR_EXIT_TOTAL = 16
IR_ACK_TOTAL = 18  # 32 bits: acknowledgements written so far
IR_SPEED_SETPOINT_MM_S = 20
IR_QUEUE_LENGTH = 21  # commands waiting for their count

# ---- input registers: rings. Entry k (k = 1, 2, …) stands in slot (k - 1) % RING_LENGTH ----
RING_LENGTH = 20
LATCH_SIZE = 6  # number of the edge (32), encoder count (32), time in ms (32)
GATE_RING_ADDRESS = 100  # eye ahead of the camera: measures slip and gaps
EYE_RING_ADDRESS = 300  # photo-eye that triggers the camera
EXIT_RING_ADDRESS = 500  # eye at the belt's end
ACK_RING_ADDRESS = 700
ACK_SIZE = 6  # token (32), AckStatus, valve, encoder count (32)

# ---- holding registers ----
HR_RUN = 0  # 1: belt on
HR_SPEED_MM_S = 1
HR_COMMAND = 100  # mailbox of one eject command, written in one request
HR_COMMAND_SIZE = 8  # token (32), valve, encoder count (32), pulse ms, expiry count (32)

# ---- coils ----
COIL_WATCHDOG = 0  # write 1 at least every WATCHDOG_TIMEOUT_S; the PLC clears it
COIL_RESET = 1  # write 1 to acknowledge faults (watchdog, encoder); the PLC clears it
COIL_CLEAR_QUEUE = 2  # write 1 to cancel all waiting commands; the PLC clears it

# ---- discrete inputs ----
DI_EMERGENCY_STOP = 0  # 1: the emergency stop is pressed

WATCHDOG_TIMEOUT_S = 0.5


class BeltStatusBits(IntFlag):
    """Bits of the status register."""

    RUNNING = 1
    EMERGENCY_STOP = 2
    WATCHDOG_TRIPPED = 4


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

    def to_registers(self) -> list[int]:
        """Content of the mailbox."""
        return [
            *to_words(self.token),
            self.valve,
            *to_words(self.encoder_count),
            self.pulse_ms,
            *to_words(self.expiry_count),
        ]

    @classmethod
    def from_registers(cls, words: list[int]) -> ValveCommand:
        """Inverse of `to_registers`."""
        return cls(
            token=to_int(words, 0),
            valve=words[2],
            encoder_count=to_int(words, 3),
            pulse_ms=words[5],
            expiry_count=to_int(words, 6),
        )


def to_words(value: int) -> tuple[int, int]:
    """High and low word of an unsigned 32-bit value."""
    return (value >> 16) & 0xFFFF, value & 0xFFFF


def to_signed(word: int) -> int:
    """Signed 16-bit value of a register."""
    return word - 0x10000 if word & 0x8000 else word


def to_int(words: list[int], offset: int) -> int:
    """Unsigned 32-bit value that starts at ``words[offset]``."""
    return (words[offset] << 16) | words[offset + 1]
