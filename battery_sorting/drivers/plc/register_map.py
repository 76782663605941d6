"""The Modbus map that a belt PLC must offer. `docs/reference/plc.md` explains it to whoever programs the PLC.

All registers are 16 bits; 32-bit values stand with the high word first. Addresses are zero-based protocol
addresses. Input and holding registers, coils and discrete inputs are four separate blocks.
"""

from __future__ import annotations

from enum import IntFlag

from battery_sorting.drivers.plc.base import EVENTS_KEPT, ValveCommand
from battery_sorting.drivers.registers import to_int, to_words

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
RING_LENGTH = EVENTS_KEPT  # 20: another length is another MAP_VERSION
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


def to_mailbox(command: ValveCommand) -> list[int]:
    """Content of the mailbox that hands over ``command``."""
    return [
        *to_words(command.token),
        command.valve,
        *to_words(command.encoder_count),
        command.pulse_ms,
        *to_words(command.expiry_count),
    ]


def from_mailbox(words: list[int]) -> ValveCommand:
    """Inverse of `to_mailbox`."""
    return ValveCommand(
        token=to_int(words, 0),
        valve=words[2],
        encoder_count=to_int(words, 3),
        pulse_ms=words[5],
        expiry_count=to_int(words, 6),
    )
