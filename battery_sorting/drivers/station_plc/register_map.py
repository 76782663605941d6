"""The Modbus map that the PLC of an inspection station must offer. `docs/reference/station_plc.md` explains it.

All registers are 16 bits; 32-bit values stand with the high word first. Addresses are zero-based protocol
addresses. Input and holding registers, coils and discrete inputs are four separate blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

from battery_sorting.drivers.registers import to_int, to_words

MAP_VERSION = 101  # station maps count from 100 on, so that a belt PLC is not taken for one

# ---- input registers: status block, read in one go ----
STATUS_ADDRESS = 0
STATUS_SIZE = 24
IR_MAP_VERSION = 0
IR_STATUS = 1  # bits of Status
IR_BOOT_ID = 2  # 32 bits: start of the PLC, seconds since 1970
IR_TIME_MS = 4  # 32 bits: milliseconds since the PLC's start, wraps
IR_LOADED_TOTAL = 6  # 32 bits: cells that the loader has brought since the PLC's start
IR_ACTIVE_TOKEN = 8  # 32 bits: 0 while nothing runs
IR_DONE_TOKEN = 10  # 32 bits: of the last action that has ended, 0 for none
IR_DONE_RESULT = 12  # ActionResult
IR_DONE_COUNT = 13  # 16 bits, wraps: how often any action was reported as ended
IR_ACTIVE_ACTION = 14  # StationAction
IR_WATCHDOG_TRIPS = 15
IR_LUG_TRIGGERS = 16  # 32 bits: how often each camera was fired
IR_CASE_TRIGGERS = 18

# ---- holding registers ----
HR_COMMAND = 100  # mailbox of one action, written in one request
HR_COMMAND_SIZE = 6  # token (32), StationAction, argument, deadline on the PLC's clock in ms (32)

# ---- coils ----
COIL_WATCHDOG = 0  # write 1 at least every WATCHDOG_TIMEOUT_S; the PLC clears it
COIL_RESET = 1  # write 1 to acknowledge faults and home the flipper; the PLC clears it

# ---- discrete inputs ----
DI_EMERGENCY_STOP = 0
DI_PART_PRESENT = 1
DI_UPRIGHT = 2  # the flipper's end switches
DI_INVERTED = 3

WATCHDOG_TIMEOUT_S = 0.5


class StationStatusBits(IntFlag):
    """Bits of the status register."""

    EMERGENCY_STOP = 1
    WATCHDOG_TRIPPED = 2
    JAM = 4
    PART_PRESENT = 8
    UPRIGHT = 16
    INVERTED = 32


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One action as it stands in the registers. ``deadline_ms`` is on the PLC's clock."""

    token: int
    action: int
    argument: int
    deadline_ms: int

    def to_registers(self) -> list[int]:
        """Content of the mailbox."""
        return [*to_words(self.token), self.action, self.argument, *to_words(self.deadline_ms)]

    @classmethod
    def from_registers(cls, words: list[int]) -> Mailbox:
        """Inverse of `to_registers`."""
        return cls(to_int(words, 0), words[2], words[3], to_int(words, 4))
